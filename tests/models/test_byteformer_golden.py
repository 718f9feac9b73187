# SPDX-License-Identifier: Apache-2.0
"""ByteFormer gives what the public implementation gave, and the plain implementation on any configuration."""

import pytest
import torch
from byteformer_helpers import (
    byte_batch,
    golden_cases,
    golden_model,
    golden_tensors,
    plain_twin,
    random_config,
    randomised,
    tiny_model,
)
from measure import OUTPUTS, relative_error
from plain_byteformer import PlainByteFormerSdpa

from byteformer import ByteFormerForImageClassification, modeling_byteformer


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


@torch.no_grad()
def test_random_configurations_match_the_plain_implementation(reduction):
    for seed in range(60):
        model = randomised(ByteFormerForImageClassification(random_config(seed)).eval(), seed)
        if model.config.sinusoidal_pos_emb:
            model.apply(model._init_weights)
        input_ids = byte_batch([60 + seed, 8, 33], seed=seed)
        outputs, expected = model(input_ids, output_hidden_states=True), plain_twin(model)(input_ids)
        assert relative_error(outputs.logits, expected["logits"]) <= OUTPUTS, seed
        assert len(outputs.hidden_states) == len(expected["hidden_states"]) == model.config.num_hidden_layers + 1
        for got, wanted in zip(outputs.hidden_states, expected["hidden_states"]):
            assert relative_error(got, wanted) <= OUTPUTS, seed


@torch.no_grad()
def test_a_shift_by_whole_windows_and_more_is_the_shift_modulo_the_window():
    for masked in (False, True):
        for shifts in ([64, 16, 21, 5], [0, 37, 100, 15]):
            model = tiny_model(mask_padding=masked, window_shifts=shifts)
            assert model.config.window_shifts == shifts
            input_ids = byte_batch([333, 50, 7])
            outputs = model(input_ids).logits
            reduced = tiny_model(mask_padding=masked, window_shifts=[shift % 16 for shift in shifts])
            assert relative_error(outputs, reduced(input_ids).logits) <= OUTPUTS
            assert relative_error(outputs, plain_twin(model)(input_ids)["logits"]) <= OUTPUTS


def test_long_inputs_without_autograd_are_the_same():
    """Without autograd the windows of a layer, and the tokens to merge, go in chunks."""
    for masked in (False, True):
        model = tiny_model(mask_padding=masked, max_position_embeddings=6000)
        input_ids = byte_batch([10_001, 5_002, 4])
        expected = model(input_ids, output_attentions=True, output_hidden_states=True)
        with torch.no_grad():
            outputs = model(input_ids, output_attentions=True, output_hidden_states=True)
            assert relative_error(model(input_ids).logits, expected.logits) <= OUTPUTS
            assert relative_error(plain_twin(model)(input_ids)["logits"], expected.logits) <= OUTPUTS
        for name in ("hidden_states", "attentions"):
            for got, wanted in zip(outputs[name], expected[name]):
                assert relative_error(got, wanted) <= OUTPUTS, (masked, name)
