"""What users of a vision backbone switch on: hidden states, attentions, tuples, gradient checkpointing."""

import pytest
import torch
from kit import ORIGINS, PAIR, TOLERANCE, error, folder, load, main_output, run
from measure import assert_gradients_close

BOTH_MODELS = pytest.mark.parametrize("source", PAIR, ids=lambda f: f.name)
BOTH = pytest.mark.parametrize("origin", ORIGINS)
BACKENDS = pytest.mark.parametrize("backend", [None, "eager", "sdpa"])


@BOTH_MODELS
@BOTH
def test_output_hidden_states(source, origin):
    model = load(source, origin)
    plain, asked = run(model, source.inputs), run(model, source.inputs, output_hidden_states=True)
    assert plain.hidden_states is None
    assert len(asked.hidden_states) == model.config.num_hidden_layers + 1
    assert error(main_output(plain), main_output(asked)) <= TOLERANCE


@BOTH_MODELS
@BACKENDS
def test_output_attentions(source, backend):
    """Asked for on any backend, through the eager one."""
    model = load(source, attn_implementation=backend)
    plain, asked = run(model, source.inputs), run(model, source.inputs, output_attentions=True)
    assert plain.attentions is None
    assert len(asked.attentions) == model.config.num_hidden_layers
    for attention in asked.attentions:
        assert attention.shape[-3:-2] == (model.config.num_attention_heads,)
        assert error(attention.sum(-1), torch.ones_like(attention.sum(-1))) <= TOLERANCE
    assert error(main_output(asked), main_output(plain)) <= TOLERANCE


@BOTH_MODELS
@pytest.mark.parametrize(
    "extra",
    [{}, {"output_hidden_states": True}, {"output_hidden_states": True, "output_attentions": True}],
    ids=["plain", "states", "all"],
)
def test_return_dict_false(source, extra):
    model = load(source)
    asked = run(model, source.inputs, **extra)
    as_tuple = run(model, source.inputs, return_dict=False, **extra)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(asked.to_tuple())
    assert error(as_tuple[0], asked.to_tuple()[0]) <= TOLERANCE
    model.config.return_dict = False
    assert isinstance(run(model, source.inputs, **extra), tuple)


@BOTH_MODELS
def test_flags_of_the_configuration(source):
    model = load(source, output_hidden_states=True)
    assert len(run(model, source.inputs).hidden_states) == model.config.num_hidden_layers + 1
    assert run(model, source.inputs, output_hidden_states=False).hidden_states is None


def gradients(model, source):
    model.train()
    model.zero_grad(set_to_none=True)
    output = main_output(model(**source.inputs))
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@BOTH_MODELS
@BOTH
@pytest.mark.parametrize("reentrant", [None, False, True], ids=["default", "non-reentrant", "reentrant"])
def test_gradient_checkpointing(source, origin, reentrant):
    expected = gradients(load(source, origin), source)
    model = load(source, origin)
    model.gradient_checkpointing_enable(
        **({} if reentrant is None else {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}})
    )
    assert model.is_gradient_checkpointing
    actual = gradients(model, source)
    assert [name for name, gradient in actual.items() if gradient is None] == []
    assert_gradients_close(actual, expected)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@BOTH_MODELS
def test_checkpointing_recomputes_every_layer(source):
    """A flag that is set but not acted on would pass every test of equality."""
    model = load(source)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    calls = []
    for layer in getattr(model, source.prefix).encoder.layers:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    gradients(model, source)
    depth = model.config.num_hidden_layers
    assert len(calls) >= 2 * depth
    calls.clear()
    model.gradient_checkpointing_disable()
    gradients(model, source)
    assert depth <= len(calls) < 2 * depth


@BOTH_MODELS
def test_loss_and_labels(source):
    model = load(source)
    rows = main_output(run(model, source.inputs)).shape[0]
    labels = torch.arange(rows) % model.config.num_labels
    output = run(model, source.inputs, labels=labels)
    assert error(output.loss, torch.nn.functional.cross_entropy(output.logits, labels)) <= TOLERANCE


@pytest.mark.parametrize("name", ["llava_vit_image", "llava_vit_video"])
def test_classifier_reads_the_pooled_output(name):
    """Logits against the recorded pooled outputs and the file's own classifier weights."""
    source = folder(name)
    model, weights = load(source), source.weights
    for case, (inputs, expected) in source.cases.items():
        logits = expected["pooler_output"] @ weights["classifier.weight"].T + weights["classifier.bias"]
        assert error(run(model, inputs).logits, logits) <= TOLERANCE, case
