# SPDX-License-Identifier: Apache-2.0
"""ByteFormer gives what the public implementation gave, and the plain implementation on any configuration."""

import pytest
import torch
from byteformer import modeling_byteformer
from byteformer_helpers import byte_batch, golden_cases, golden_model, golden_tensors, plain_twin, random_config, randomised
from measure import OUTPUTS, relative_error
from byteformer import ByteFormerForImageClassification
from plain_byteformer import PlainByteFormerSdpa



@pytest.fixture(params=["convolution", "look-ups"])
def reduction(request, monkeypatch):
    """Both ways from bytes to tokens, whatever the length of the input."""
    forced = request.param == "look-ups"
    monkeypatch.setattr(modeling_byteformer, "look_ups_pay", lambda tokens, vocabulary: forced)


@pytest.mark.parametrize("autograd", [False, True])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("name, case", golden_cases())
def test_recorded_outputs(name, case, backend, autograd, reduction):
    input_ids, expected = golden_tensors(name, case)
    model = golden_model(name, backend)
    with torch.set_grad_enabled(autograd):
        base, outputs = model.byteformer(input_ids, output_hidden_states=True), model(input_ids)
    assert relative_error(base.hidden_states[0], expected["embeddings"]) <= OUTPUTS
    assert relative_error(base.last_hidden_state, expected["last_hidden_state"]) <= OUTPUTS
    assert relative_error(outputs.logits, expected["logits"]) <= OUTPUTS


@pytest.mark.parametrize("name, case", golden_cases())
@torch.no_grad()
def test_the_plain_implementation_gives_them_too(name, case):
    input_ids, expected = golden_tensors(name, case)
    model = golden_model(name, "eager")
    for plain_class in (type(plain_twin(model)), PlainByteFormerSdpa):
        plain = plain_class({**model.config.to_dict(), "num_labels": model.config.num_labels}).eval()
        plain.load_state_dict({key.removeprefix("byteformer."): value for key, value in model.state_dict().items()})
        outputs = plain(input_ids)
        for key, value in expected.items():
            assert relative_error(outputs[key], value) <= OUTPUTS, key


@pytest.mark.parametrize("seed", range(60))
@torch.no_grad()
def test_random_configurations_match_the_plain_implementation(seed, reduction):
    model = randomised(ByteFormerForImageClassification(random_config(seed)).eval(), seed)
    if model.config.sinusoidal_pos_emb:
        model.apply(model._init_weights)
    input_ids = byte_batch([60 + seed, 8, 33], seed=seed)
    outputs, expected = model(input_ids, output_hidden_states=True), plain_twin(model)(input_ids)
    assert relative_error(outputs.logits, expected["logits"]) <= OUTPUTS
    assert len(outputs.hidden_states) == len(expected["hidden_states"]) == model.config.num_hidden_layers + 1
    for got, wanted in zip(outputs.hidden_states, expected["hidden_states"]):
        assert relative_error(got, wanted) <= OUTPUTS


@torch.no_grad()
def test_work_in_many_chunks_is_the_same(monkeypatch):
    model = golden_model("byteformer_k8_mixed_windows", "sdpa")
    input_ids, expected = golden_tensors("byteformer_k8_mixed_windows", "ragged")
    monkeypatch.setattr(modeling_byteformer, "CHUNK_TOKENS", 16)
    assert relative_error(model(input_ids).logits, expected["logits"]) <= OUTPUTS
