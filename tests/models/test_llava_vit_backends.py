# SPDX-License-Identifier: Apache-2.0
"""Attention backends, torch.compile and torch.export."""

import subprocess

import pytest
import torch
from hubtools.packages import ROOT
from llava_vit_helpers import clip, tiny_config, tiny_model
from measure import OUTPUTS, close, relative_error

import llavavit.modeling_llava_vit as modeling
from llavavit import LlavaViTForImageClassification

FALLBACK = """
import logging, torch
from llavavit import LlavaViTConfig, LlavaViTModel
from transformers.utils import logging as transformers_logging

class Counter(logging.Handler):
    records = []
    def emit(self, record):
        self.records.append(record.getMessage())

for name in ("llavavit.modeling_llava_vit", "transformers"):
    logging.getLogger(name).addHandler(Counter(level=logging.WARNING))
config = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
LlavaViTModel(LlavaViTConfig(**config)).save_pretrained(FOLDER)
for _ in range(2):
    model = LlavaViTModel.from_pretrained(FOLDER, attn_implementation="flash_attention_2")
    assert model.config._attn_implementation == "sdpa", model.config._attn_implementation
    assert model(torch.zeros(1, 3, 16, 16)).pooler_output.shape == (1, 64)
print(len(Counter.records), Counter.records)
"""


@pytest.mark.skipif(modeling.flash_attention_obstacle("flash_attention_2") is None, reason="flash-attn can run here")
def test_flash_attention_falls_back_to_sdpa_with_one_warning(tmp_path, warm):
    code = f"FOLDER = {str(tmp_path)!r}\n{FALLBACK}"
    result = subprocess.run([warm.command, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("1 "), result.stdout
    assert "flash attention cannot run here, using sdpa" in result.stdout


@torch.no_grad()
def test_flash_attention_is_decided_again_at_each_call(monkeypatch):
    """A model set to flash-attn where it is installed still runs in float32 and on the CPU."""
    monkeypatch.setattr(modeling, "flash_attn_func", lambda *args, **kwargs: pytest.fail("called on the CPU"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = tiny_model()
    expected = model(clip()).last_hidden_state
    model.config._attn_implementation = "flash_attention_2"
    for layer in model.encoder.layers:
        assert layer.self_attn.config._attn_implementation == "flash_attention_2"
    assert close(model(clip()).last_hidden_state, expected)
    assert "cpu" in modeling.flash_attention_obstacle("flash_attention_2", torch.zeros(1))


@torch.no_grad()
def test_flash_attention_gets_the_layout_and_scale_it_wants(monkeypatch):
    def flash(query, key, value, dropout_p, softmax_scale, causal):
        assert query.shape == (2, 36, 2, 32) and not causal  # (B, N, A, d)
        probabilities = torch.einsum("bqad,bkad->baqk", query, key).mul(softmax_scale).softmax(-1)
        return torch.einsum("baqk,bkad->bqad", probabilities, value)

    model = tiny_model()
    expected = model(clip()).last_hidden_state
    monkeypatch.setattr(modeling, "flash_attn_func", flash)
    monkeypatch.setattr(modeling, "flash_attention_obstacle", lambda *args: None)
    model.config._attn_implementation = "flash_attention_2"
    assert relative_error(model(clip()).last_hidden_state, expected) <= OUTPUTS


@torch.no_grad()
def test_flex_attention_where_transformers_offers_it():
    if "flex_attention" not in modeling.ALL_ATTENTION_FUNCTIONS:
        pytest.skip("this transformers release has no flex_attention")
    model = tiny_model()
    expected = model(clip()).last_hidden_state
    model.config._attn_implementation = "flex_attention"
    assert relative_error(model(clip()).last_hidden_state, expected) <= OUTPUTS


@torch.no_grad()
def test_a_backend_registered_with_transformers_is_used():
    calls = []

    def counted(module, query, key, value, attention_mask, **kwargs):
        calls.append(tuple(query.shape))
        assert attention_mask is None and kwargs["is_causal"] is False and kwargs["scaling"] == 32**-0.5
        return modeling.sdpa_attention(module, query, key, value, **kwargs)

    if not modeling.ALL_ATTENTION_FUNCTIONS:
        pytest.skip("this transformers release has no attention interface")
    model = tiny_model()
    expected = model(clip()).last_hidden_state
    modeling.ALL_ATTENTION_FUNCTIONS["counted"] = counted
    try:
        model.config._attn_implementation = "counted"
        got = model(clip()).last_hidden_state
    finally:
        del modeling.ALL_ATTENTION_FUNCTIONS["counted"]
    assert close(got, expected) and calls == [(2, 2, 36, 32)] * 2


@torch.no_grad()
def test_transformers_own_sdpa_agrees():
    """Its default is causal attention, which must be switched off."""
    model = tiny_model()
    expected = model(clip()).last_hidden_state
    modeling.ALL_ATTENTION_FUNCTIONS["theirs"] = modeling.ALL_ATTENTION_FUNCTIONS["sdpa"]
    try:
        model.config._attn_implementation = "theirs"
        assert relative_error(model(clip()).last_hidden_state, expected) <= OUTPUTS
    finally:
        del modeling.ALL_ATTENTION_FUNCTIONS["theirs"]


@torch.no_grad()
def test_a_layer_by_itself_needs_no_model():
    layer = modeling.LlavaViTAttention(tiny_config()).eval()
    cos, sin = modeling.rotary_cos_sin(torch.zeros(1, 5, 3), 32, 1e4, torch.float32)
    assert layer(torch.randn(2, 5, 64), cos, sin)[0].shape == (2, 5, 64)


@torch.no_grad()
def test_set_attn_implementation():
    model = tiny_model(LlavaViTForImageClassification)
    if not hasattr(model, "set_attn_implementation"):
        pytest.skip("this transformers release cannot change the backend of a model")
    expected = model(clip()).logits
    model.set_attn_implementation("eager")
    assert model.llava_vit.encoder.layers[0].self_attn.config._attn_implementation == "eager"
    assert relative_error(model(clip()).logits, expected) < 1e-5


def test_an_unknown_backend_is_an_error():
    model = tiny_model()
    model.config._attn_implementation = "telepathy"
    with pytest.raises(ValueError, match="'telepathy'.*offers.*sdpa"):
        model(clip())


INPUTS = {
    "image": dict(pixel_values=clip()[:, :, 0]),
    "video": dict(pixel_values=clip()),
    "sparse": dict(pixel_values=clip(), visible_indices=torch.tensor([[0, 9, 4], [35, 2, 2]])),
    "residual": dict(pixel_values=clip(), visible_indices=clip()[:, :1]),
    "positions": dict(pixel_values=clip(), patch_positions=torch.randint(0, 9, (2, 36, 3))),
}


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("form", INPUTS)
@torch.no_grad()
def test_compile_without_a_graph_break(form, backend):
    torch._dynamo.reset()
    model = tiny_model(attn_implementation=backend)
    expected = model(**INPUTS[form])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = compiled(**INPUTS[form])
    assert relative_error(got.last_hidden_state, expected.last_hidden_state) <= OUTPUTS
    assert relative_error(got.pooler_output, expected.pooler_output) <= OUTPUTS


def test_compile_of_a_training_step_without_a_graph_break():
    torch._dynamo.reset()
    model = tiny_model(LlavaViTForImageClassification, num_labels=3).train()
    labels = torch.tensor([1, 2])
    expected = model(clip(), labels=labels).loss
    got = torch.compile(model, fullgraph=True, backend="aot_eager")(
        clip(), labels=labels, output_hidden_states=True
    ).loss
    got.backward()
    assert close(got, expected)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("form", INPUTS)
@torch.no_grad()
def test_export(form):
    model = tiny_model()
    exported = torch.export.export(model, (), INPUTS[form]).module()
    got, expected = exported(**INPUTS[form]), model(**INPUTS[form])
    assert relative_error(got.last_hidden_state, expected.last_hidden_state) <= OUTPUTS
    assert relative_error(got.pooler_output, expected.pooler_output) <= OUTPUTS


@torch.no_grad()
def test_export_with_a_batch_and_a_selection_of_any_size():
    model = tiny_model()
    batch, visible = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("visible", min=2, max=36)
    shapes = dict(pixel_values={0: batch}, visible_indices={0: batch, 1: visible})
    exported = torch.export.export(model, (), INPUTS["sparse"], dynamic_shapes=shapes).module()
    pixels, indices = clip(batch=5), torch.randint(0, 36, (5, 11))
    got = exported(pixel_values=pixels, visible_indices=indices)
    assert relative_error(got.last_hidden_state, model(pixels, indices).last_hidden_state) <= OUTPUTS


def test_meta_device():
    """Sizes of a model can be worked out without memory."""
    with torch.device("meta"):
        model = tiny_model().to("meta")
        outputs = model(torch.empty(2, 3, 3, 32, 24), visible_indices=torch.empty(2, 5, dtype=torch.long))
    assert outputs.last_hidden_state.shape == (2, 5, 64) and outputs.last_hidden_state.is_meta
