# SPDX-License-Identifier: Apache-2.0
"""Training: gradients, checkpointing, losses, dropout and initialisation."""

import pytest
import torch
from llava_vit_helpers import clip, tiny_config, tiny_model
from measure import assert_gradients_close, close, relative_error
from torch.nn import functional as F

from llavavit import LlavaViTForImageClassification, LlavaViTForVideoClassification, LlavaViTModel


def gradients(model, **inputs):
    model.zero_grad()
    model(clip(), labels=torch.tensor([0, 2]), **inputs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("use_head", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(backend, use_reentrant, use_head):
    model = tiny_model(
        LlavaViTForImageClassification, num_labels=3, use_head=use_head, attn_implementation=backend
    ).train()
    expected = gradients(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    # Reentrant checkpointing runs its segments only for inputs that require gradients.
    model.llava_vit.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_())
    runs = []
    model.llava_vit.encoder.layers[0].layer_norm1.register_forward_pre_hook(lambda *call: runs.append(1))
    got = gradients(model)
    assert len(runs) == 2  # once forward, once again for the backward pass
    assert set(got) == set(dict(model.named_parameters()))
    assert_gradients_close(got, expected)


@pytest.mark.parametrize("settings", [{}, dict(use_head=False), dict(layer_norm_type="rms_norm")])
def test_every_parameter_gets_a_gradient(settings):
    model = tiny_model(LlavaViTForVideoClassification, num_labels=3, **settings).train()
    got = gradients(model, visible_indices=torch.tensor([[0, 13, 35], [1, 2, 30]]))
    for name, _ in model.named_parameters():
        assert name in got and got[name].abs().sum() > 0 and torch.isfinite(got[name]).all(), name


def test_checkpointing_is_off_in_eval_and_can_be_disabled():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    assert torch.isfinite(model(clip()).logits).all()
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_checkpointing_keeps_attentions_and_hidden_states():
    model = tiny_model().train()
    expected = model(clip(), output_attentions=True, output_hidden_states=True)
    model.gradient_checkpointing_enable()
    got = model(clip(), output_attentions=True, output_hidden_states=True)
    assert len(got.attentions) == 2 and len(got.hidden_states) == 3
    assert close(got.attentions[1], expected.attentions[1])


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_attention_dropout_acts_in_training_only(backend):
    model = tiny_model(attention_dropout=0.5, attn_implementation=backend)
    calm = tiny_model(attn_implementation=backend)(clip()).last_hidden_state
    assert close(model(clip()).last_hidden_state, calm)
    model.train()
    assert not close(model(clip()).last_hidden_state, model(clip()).last_hidden_state)


def test_loss_of_integer_labels_is_cross_entropy():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3)
    labels = torch.tensor([2, -100])
    outputs = model(clip(), labels=labels)
    assert close(outputs.loss, F.cross_entropy(outputs.logits[:1], labels[:1]))
    assert model.config.problem_type == "single_label_classification"
    assert close(model(clip(), labels=labels.int(), return_dict=False)[0], outputs.loss)


def test_loss_of_float_labels_is_binary_cross_entropy():
    model = tiny_model(LlavaViTForVideoClassification, num_labels=3)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    outputs = model(clip(), labels=labels)
    assert close(outputs.loss, F.binary_cross_entropy_with_logits(outputs.logits, labels))
    assert model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_loss_of_one_label_is_the_squared_error(shape):
    model = tiny_model(LlavaViTForImageClassification, num_labels=1)
    outputs = model(clip(), labels=torch.tensor([0.5, -1.0]).view(shape))
    assert close(outputs.loss, F.mse_loss(outputs.logits[:, 0], torch.tensor([0.5, -1.0])))
    assert model.config.problem_type == "regression"


def test_a_problem_type_that_was_set_decides():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3, problem_type="regression")
    labels = torch.randn(2, 3)
    outputs = model(clip(), labels=labels)
    assert close(outputs.loss, F.mse_loss(outputs.logits, labels))


def test_accumulated_batches_weigh_what_they_hold():
    """Trainer passes the labels of all batches: their losses then add up to the loss of one batch."""
    cases = {
        "single": (dict(num_labels=3), torch.tensor([2, -100, 1]), 2),
        "several": (dict(num_labels=3), torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]]), 9),
        "regression": (dict(num_labels=1), torch.tensor([0.5, -1.0, 2.0]), 3),
    }
    for name, (settings, labels, items) in cases.items():
        model = tiny_model(LlavaViTForImageClassification, **settings)
        whole = model(clip(batch=3), labels=labels).loss
        for count in (items, torch.tensor(items)):
            parts = [
                model(clip(batch=3)[rows], labels=labels[rows], num_items_in_batch=count).loss
                for rows in (slice(0, 2), slice(2, 3))
            ]
            torch.testing.assert_close(sum(parts), whole, msg=name)


def test_the_loss_of_a_half_precision_model_is_float32():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3).to(torch.bfloat16)
    outputs = model(clip(), labels=torch.tensor([1, 2]))
    assert outputs.logits.dtype == torch.bfloat16 and outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits.float(), torch.tensor([1, 2])))


def test_every_second_layer_may_be_checkpointed_and_hooks_run_once():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3, num_hidden_layers=4).train()
    if not hasattr(model, "activation_checkpointing_enable"):
        pytest.skip("this transformers release checkpoints every layer or none")
    expected = gradients(model)
    model.activation_checkpointing_enable(every_n_layers=2)
    layers = model.llava_vit.encoder.layers
    inside, outside = [], []
    for number, layer in enumerate(layers):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: inside.append(number))
        layer.register_forward_pre_hook(lambda *_, number=number: outside.append(number))
    got = gradients(model)
    assert sorted(inside.count(number) for number in range(4)) == [1, 1, 2, 2] and outside == [0, 1, 2, 3]
    for name, gradient in got.items():
        assert relative_error(gradient, expected[name]) <= 1e-4, name


def test_initialisation():
    torch.manual_seed(0)
    model = LlavaViTModel(tiny_config(initializer_range=0.05, hidden_size=128, num_attention_heads=4))
    for name, parameter in model.named_parameters():
        if name == "head.probe":
            assert 0.8 < parameter.std() < 1.2
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.04 < parameter.std() < 0.06, name


def test_nothing_is_stored_beside_the_parameters():
    model = tiny_model()
    assert not list(model.buffers())
    assert set(model.state_dict()) == set(dict(model.named_parameters()))


def test_input_gradients_reach_only_visible_patches():
    pixels = clip().requires_grad_()
    tiny_model()(pixels, visible_indices=torch.tensor([[0], [35]])).pooler_output.sum().backward()
    touched = pixels.grad.abs().sum(1) > 0
    assert touched[0, 0, :8, :8].all() and touched[1, 2, 24:, 16:].all()
    assert touched.sum() == 2 * 64
