# SPDX-License-Identifier: Apache-2.0
"""Training ByteFormer: gradients, checkpointing, losses, dropout, initialisation."""

import copy

import pytest
import torch
from byteformer_helpers import PADDING, byte_batch, plain_twin, tiny_model
from measure import OUTPUTS, assert_gradients_close, close, relative_error

from byteformer import (
    ByteFormerForAudioClassification,
    ByteFormerForImageClassification,
    ByteFormerModel,
    modeling_byteformer,
)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("masked", [False, True])
def test_look_up_gradients_equal_the_convolution_s(masked, monkeypatch):
    input_ids = byte_batch([390, 120, 33])
    found = []
    for look_ups in (True, False):
        monkeypatch.setattr(modeling_byteformer, "look_ups_pay", lambda tokens, vocabulary, pays=look_ups: pays)
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
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == (["byteformer.embeddings.position_embeddings"] if sinusoidal else [])


def attention_runs(model):
    """How often the attention of each layer runs from now on, a list that fills as the model is used."""
    counts = [0] * model.config.num_hidden_layers

    def count(number):
        def hook(module, args):
            counts[number] += 1

        return hook

    for number, layer in enumerate(model.byteformer.encoder.layers):
        layer.self_attn.register_forward_pre_hook(count(number))
    return counts


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(masked, reentrant):
    model = tiny_model(mask_padding=masked).train()
    other = copy.deepcopy(model)
    other.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    counts = [attention_runs(candidate) for candidate in (model, other)]
    for candidate in (model, other):
        if reentrant:
            candidate.enable_input_require_grads()
        candidate(byte_batch([300, 77]), labels=torch.tensor([0, 3])).loss.backward()
    once, again = counts
    assert again == [2 * runs for runs in once], "every layer ran again in the backward pass"
    assert_gradients_close(gradients(other), gradients(model))


def test_every_second_layer_can_be_checkpointed():
    model = tiny_model().train()
    if not hasattr(model, "activation_checkpointing_enable"):
        pytest.skip("this transformers checkpoints all layers or none")
    model.activation_checkpointing_enable(every_n_layers=2)
    counts = attention_runs(model)
    model(byte_batch([300]), labels=torch.tensor([3])).loss.backward()
    assert sorted(counts) == [1, 1, 2, 2] and counts[0] != counts[1]


@pytest.mark.parametrize("masked", [False, True])
def test_returned_states_and_attentions_are_part_of_the_graph(masked):
    model = tiny_model(mask_padding=masked)
    output = model(byte_batch([300, 77]), output_hidden_states=True, output_attentions=True)
    returned = (*output.hidden_states, *output.attentions)
    for tensor in returned:
        tensor.retain_grad()
    output.logits[0].sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in returned)
    assert not any(state.grad[1].any() for state in output.hidden_states) or not masked


def test_the_loss_of_accumulated_batches_is_that_of_one():
    """Trainer passes the number of labels in all batches before an optimiser step."""
    model = tiny_model(mask_padding=True)
    input_ids, labels = byte_batch([90, 80, 70]), torch.tensor([1, 0, 4])
    whole = model(input_ids, labels=labels).loss
    parts = [
        model(input_ids[rows], labels=labels[rows], num_items_in_batch=torch.tensor(3)).loss
        for rows in (slice(0, 1), slice(1, 3))
    ]
    assert relative_error(sum(parts), whole) <= OUTPUTS


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
    rates = dict(
        hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, activation_dropout_prob=0.2, drop_path_rate=0.5
    )
    input_ids = byte_batch([300])
    for name, rate in rates.items():
        model = tiny_model(**{name: rate})
        assert relative_error(model(input_ids).logits, model(input_ids).logits) <= OUTPUTS, name
        model.train()
        assert relative_error(model(input_ids).logits, model(input_ids).logits) > OUTPUTS, name
    assert [
        layer.drop_path_rate for layer in tiny_model(drop_path_rate=0.3).byteformer.encoder.layers
    ] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_fresh_weights_are_sane():
    torch.manual_seed(0)
    model = ByteFormerModel(tiny_model(sinusoidal_pos_emb=True, hidden_size=64).config)
    embeddings = model.embeddings
    assert not embeddings.byte_embeddings.weight[PADDING].any()
    positions = embeddings.position_embeddings[0, 0]
    assert not embeddings.position_embeddings.requires_grad
    assert close(positions[3, :2], torch.sin(torch.tensor([3.0, 3 * 10000 ** (-1 / 31)])))
    assert close(positions[3, 32:34], torch.cos(torch.tensor([3.0, 3 * 10000 ** (-1 / 31)])))
    tokens = model(byte_batch([390]), output_hidden_states=[0]).hidden_states[0] - positions[:194]
    assert 0.5 < tokens.std() / embeddings.byte_embeddings.weight.std() < 2, (
        "the convolution keeps the embeddings' scale"
    )


def test_an_embedding_without_padding_is_initialised_in_every_row():
    model = tiny_model()
    model.extra = torch.nn.Embedding(5, 32)
    torch.nn.init.zeros_(model.extra.weight)
    model._init_weights(model.extra)
    assert model.extra.weight.any(1).all()


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
