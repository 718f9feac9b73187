# SPDX-License-Identifier: Apache-2.0
"""What the LLaVA-ViT tests share: tiny models, recorded cases, and the error measure."""

import json
from pathlib import Path

import torch
from measure import relative_error  # noqa: F401, for the tests that take it from here
from plain_llava_vit import PlainLlavaViT
from safetensors.torch import load_file

from llavavit import LlavaViTConfig, LlavaViTModel

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)


def tiny_config(**changes) -> LlavaViTConfig:
    return LlavaViTConfig(**{**TINY, **changes})


def tiny_model(model_class=LlavaViTModel, seed=0, **changes):
    """A tiny model in eval mode whose every parameter, biases and norms included, has a value that matters."""
    torch.manual_seed(seed)
    model = model_class(tiny_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.1 * noise)
    return model


def plain_twin(model: LlavaViTModel) -> PlainLlavaViT:
    """The plain implementation with the same weights."""
    plain = PlainLlavaViT(model.config.to_dict()).eval()
    plain.load_state_dict(model.state_dict(), strict=True)
    return plain


def clip(batch=2, frames=3, height=32, width=24, seed=0) -> torch.Tensor:
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(seed))


def golden_cases() -> list:
    """(model name, case name) of every recorded case."""
    paths = sorted(GOLDEN.glob("llava_vit_*.json"))
    return [(path.stem, case) for path in paths for case in json.loads(path.read_text())["cases"]]


def golden_model(name: str, **changes) -> LlavaViTModel:
    config = json.loads((GOLDEN / f"{name}.json").read_text())["config"]
    model = LlavaViTModel(LlavaViTConfig(**config, **changes)).eval()
    model.load_state_dict(load_file(GOLDEN / f"{name}.weights.safetensors"), strict=True)
    return model


def golden_tensors(name: str, case: str):
    """(inputs, outputs) of a recorded case."""
    tensors = load_file(GOLDEN / f"{name}.cases.safetensors")
    inputs = {key.split(".in.")[1]: value for key, value in tensors.items() if key.startswith(f"{case}.in.")}
    outputs = {key.split(".out.")[1]: value for key, value in tensors.items() if key.startswith(f"{case}.out.")}
    return inputs, outputs
