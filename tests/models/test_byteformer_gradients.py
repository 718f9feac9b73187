# SPDX-License-Identifier: Apache-2.0
"""Training ByteFormer: gradients, checkpointing, losses, dropout, initialisation."""

import copy

import pytest
import torch
from byteformer import ByteFormerForAudioClassification, ByteFormerForImageClassification, ByteFormerModel, modeling_byteformer
from byteformer_helpers import PADDING, byte_batch, plain_twin, tiny_model
from measure import assert_gradients_close, close



def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("masked", [False, True])
def test_look_up_gradients_equal_the_convolution_s(masked, monkeypatch):
    input_ids = byte_batch([390, 120, 33])
    found = []
    for look_ups in (True, False):
        monkeypatch.setattr(modeling_byteformer, "look_ups_pay", lambda tokens, vocabulary: look_ups)
        model = tiny_model(mask_padding=masked)
        model(input_ids, labels=torch.tensor([0, 3, 1])).loss.backward()
        found.append(gradients(model))
    assert_gradients_close(found[0], found[1])
    assert not found[0]["byteformer.embeddings.byte_embeddings.weight"][PADDING].any(), "padding is never trained"


def test_gradients_equal_those_of_the_plain_implementation():
    model = tiny_model()
    input_ids, labels = byte_batch([390, 120]), torch.tensor([0, 3])
    plain = plain_twin(model)
    model(input_ids, labels=labels).loss.backward()
    torch.nn.functional.cross_entropy(plain(input_ids)["logits"], labels).backward()
    expected = dict(plain.named_parameters())
    found = gradients(model)
    assert_gradients_close(found, {name: expected[name.removeprefix("byteformer.")].grad for name in found})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sinusoidal", [False, True])
def test_every_parameter_gets_a_gradient(masked, sinusoidal):
    model = tiny_model(mask_padding=masked, sinusoidal_pos_emb=sinusoidal)
    model(byte_batch([300, 77]), labels=torch.tensor([0, 3])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == (["byteformer.embeddings.position_embeddings"] if sinusoidal else [])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(masked, reentrant):
    model = tiny_model(mask_padding=masked).train()
    other = copy.deepcopy(model)
    other.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    calls = []
    other.byteformer.encoder.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for candidate in (model, other):
        candidate(byte_batch([300, 77]), labels=torch.tensor([0, 3])).loss.backward()
    assert len(calls) == 2, "the layer ran again in the backward pass"
    assert_gradients_close(gradients(other), gradients(model))


def test_losses_follow_the_labels():
    input_ids = byte_batch([100, 60])
    cases = [
        (dict(num_labels=5), torch.tensor([1, 4]), torch.nn.functional.cross_entropy),
        (dict(num_labels=5), torch.rand(2, 5), torch.nn.functional.binary_cross_entropy_with_logits),
        (dict(num_labels=1), torch.rand(2), lambda logits, labels: torch.nn.functional.mse_loss(logits[:, 0], labels)),
        (dict(num_labels=3, problem_type="regression"), torch.rand(2, 3), torch.nn.functional.mse_loss),
    ]
    for changes, labels, loss in cases:
        for model_class in (ByteFormerForImageClassification, ByteFormerForAudioClassification):
            output = tiny_model(model_class, **changes)(input_ids, labels=labels)
            assert close(output.loss, loss(output.logits, labels)), changes


def test_dropouts_act_in_training_only():
    rates = dict(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, activation_dropout_prob=0.2, drop_path_rate=0.5)
    input_ids = byte_batch([300])
    for name, rate in rates.items():
        model = tiny_model(**{name: rate})
        assert close(model(input_ids).logits, model(input_ids).logits), name
        model.train()
        assert not close(model(input_ids).logits, model(input_ids).logits), name
    assert [layer.drop_path_rate for layer in tiny_model(drop_path_rate=0.3).byteformer.encoder.layers] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_fresh_weights_are_sane():
    torch.manual_seed(0)
    model = ByteFormerModel(tiny_model(sinusoidal_pos_emb=True, hidden_size=64).config)
    embeddings = model.embeddings
    assert not embeddings.byte_embeddings.weight[PADDING].any()
    positions = embeddings.position_embeddings[0, 0]
    assert not embeddings.position_embeddings.requires_grad
    assert close(positions[3, :2], torch.sin(torch.tensor([3.0, 3 * 10000 ** (-1 / 31)])))
    assert close(positions[3, 32:34], torch.cos(torch.tensor([3.0, 3 * 10000 ** (-1 / 31)])))
    tokens = embeddings.reduce(byte_batch([390]), None)
    assert 0.5 < tokens.std() / embeddings.byte_embeddings.weight.std() < 2, "the convolution keeps the embeddings' scale"


def test_training_fits_a_batch():
    torch.manual_seed(0)
    model = ByteFormerForImageClassification(tiny_model(mask_padding=True).config).train()
    input_ids, labels = byte_batch([100, 3, 60, 44]), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(input_ids, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1
