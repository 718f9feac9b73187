# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT gives what the public implementation gave."""

import json

import pytest
import torch
from llava_vit_helpers import GOLDEN, golden_cases, golden_model, golden_tensors
from measure import OUTPUTS, relative_error
from plain_llava_vit import PlainLlavaViT, PlainLlavaViTSdpa
from safetensors.torch import load_file


def pick(outputs, key: str) -> torch.Tensor:
    """'hidden_states.2' -> outputs["hidden_states"][2]."""
    name, _, index = key.partition(".")
    return outputs[name][int(index)] if index else outputs[name]


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("name, case", golden_cases())
@torch.no_grad()
def test_recorded_outputs(name, case, backend):
    inputs, expected = golden_tensors(name, case)
    outputs = golden_model(name, attn_implementation=backend)(**inputs, output_hidden_states=True)
    for key, value in expected.items():
        if not key.startswith("attentions"):
            assert relative_error(pick(outputs, key), value) <= OUTPUTS, key
    described = json.loads((GOLDEN / f"{name}.json").read_text())
    layers = described["config"]["num_hidden_layers"]
    assert len(outputs.hidden_states) == described["cases"][case].get("num_hidden_states", layers + 1)


@torch.no_grad()
def test_recorded_attentions():
    inputs, expected = golden_tensors("llava_vit_base", "image")
    recorded = [key for key in expected if key.startswith("attentions")]
    assert recorded
    outputs = golden_model("llava_vit_base", attn_implementation="eager")(**inputs, output_attentions=True)
    for key in recorded:
        assert relative_error(pick(outputs, key), expected[key]) <= OUTPUTS, key


@pytest.mark.parametrize("plain_class", [PlainLlavaViT, PlainLlavaViTSdpa])
@pytest.mark.parametrize("name, case", golden_cases())
@torch.no_grad()
def test_the_plain_implementation_gives_them_too(name, case, plain_class):
    inputs, expected = golden_tensors(name, case)
    plain = plain_class(json.loads((GOLDEN / f"{name}.json").read_text())["config"]).eval()
    plain.load_state_dict(load_file(GOLDEN / f"{name}.weights.safetensors"), strict=True)
    outputs = plain(**inputs)
    for key, value in expected.items():
        if not key.startswith("attentions"):
            assert relative_error(pick(outputs, key), value) <= OUTPUTS, key
