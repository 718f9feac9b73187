# SPDX-License-Identifier: Apache-2.0
"""What ByteFormer returns, on which backends and types, and how it goes through compile and export."""

import logging

import pytest
import torch
from byteformer_helpers import byte_batch, tiny_config, tiny_model
from measure import OUTPUTS, close, relative_error
from transformers.utils.logging import warning_once

from byteformer import ByteFormerForAudioClassification, ByteFormerForImageClassification, ByteFormerModel
from byteformer.modeling_byteformer import ByteFormerLayer, Rows

# One that merges tokens, one that shifts its windows: recording a graph takes as long as it has layers.
TWO_LAYERS = {"num_hidden_layers": 2, "window_shifts": [0, 8], "downsample": [True, False]}


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_shapes(masked):
    model = tiny_model(ByteFormerModel, mask_padding=masked)
    output = model(byte_batch([90, 33]), output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, n, 32) for n in (44, 22, 22, 11, 11)]
    assert output.last_hidden_state.shape == (2, 11, 32) and output.pooler_output.shape == (2, 32)
    assert [weights.shape[1:] for weights in output.attentions] == [(2, 16, 16)] * 4
    for weights in output.attentions:
        assert close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@torch.no_grad()
def test_hidden_states_lead_to_the_pooled_output():
    model = tiny_model(ByteFormerModel)
    output = model(byte_batch([90]), output_hidden_states=True)
    assert relative_error(model.layernorm(output.hidden_states[-1]), output.last_hidden_state) <= OUTPUTS
    assert relative_error(output.last_hidden_state.mean(1), output.pooler_output) <= OUTPUTS


@torch.no_grad()
def test_hidden_states_by_number():
    """The others are None, so that the numbers stay what they are; -1 is the last."""
    for masked in (False, True):
        model = tiny_model(mask_padding=masked)
        input_ids = byte_batch([90, 33])
        every = model(input_ids, output_hidden_states=True).hidden_states
        output = model(input_ids, output_hidden_states=[2, -1])
        assert [number for number, state in enumerate(output.hidden_states) if state is not None] == [2, 4]
        for number in (2, 4):
            assert relative_error(output.hidden_states[number], every[number]) <= OUTPUTS
        assert model(input_ids, output_hidden_states=False).hidden_states is None
        for wrong in ([5], [0, -6], ["last"]):
            with pytest.raises(ValueError, match="output_hidden_states must be .* from -5 to 4"):
                model(input_ids, output_hidden_states=wrong)


@torch.no_grad()
def test_tuples_hold_the_same():
    input_ids = byte_batch([90])
    for model_class in (ByteFormerModel, ByteFormerForImageClassification, ByteFormerForAudioClassification):
        model = tiny_model(model_class)
        output, entries = (
            model(input_ids, output_hidden_states=True),
            model(input_ids, output_hidden_states=True, return_dict=False),
        )
        assert isinstance(entries, tuple) and len(entries) == len(output.to_tuple())
        assert relative_error(entries[0], output[0]) <= OUTPUTS


@torch.no_grad()
def test_all_labels_come_back():
    assert tiny_model(num_labels=1000)(byte_batch([90, 5])).logits.shape == (2, 1000)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("autograd", [False, True])
def test_eager_equals_sdpa(masked, autograd):
    input_ids = byte_batch([390, 77, 4])
    with torch.set_grad_enabled(autograd):
        outputs = [tiny_model(mask_padding=masked, attn_implementation=name)(input_ids) for name in ("eager", "sdpa")]
        assert relative_error(outputs[0].logits, outputs[1].logits) <= OUTPUTS
        with_weights = tiny_model(mask_padding=masked)(input_ids, output_attentions=True)
        assert relative_error(with_weights.logits, outputs[1].logits) <= OUTPUTS


@torch.no_grad()
def test_flash_attention_falls_back_with_one_warning():
    warning_once.cache_clear()  # other tests may have had this process's one
    if torch.cuda.is_available():
        pytest.skip("flash-attn may run here")
    messages = []

    class Keep(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("byteformer.modeling_byteformer"), Keep()
    logger.addHandler(handler)
    try:
        model = tiny_model(attn_implementation="flash_attention_2")
        input_ids = byte_batch([90])
        assert relative_error(model(input_ids).logits, tiny_model()(input_ids).logits) <= OUTPUTS
    finally:
        logger.removeHandler(handler)
    assert model.config._attn_implementation == "sdpa"
    assert len(messages) == 1 and "using sdpa instead" in messages[0]


def test_an_unknown_backend_is_refused_by_name():
    model = tiny_model()
    model.config._attn_implementation = "flesh_attention"
    with pytest.raises(ValueError, match="'flesh_attention'.*eager.*sdpa"):
        model(byte_batch([90]))


@torch.no_grad()
def test_a_layer_needs_no_model():
    """A configuration that no model has set up names no backend: the default one attends."""
    model = tiny_model(ByteFormerModel)
    layer = ByteFormerLayer(tiny_config(), 1)
    layer.load_state_dict(model.encoder.layers[1].state_dict())
    tokens, rows = torch.randn(41, 32), Rows((30, 10), None)
    tokens[-1] = 0
    assert relative_error(layer.eval()(tokens, rows)[0], model.encoder.layers[1](tokens, rows)[0]) <= OUTPUTS


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(masked, dtype):
    input_ids = byte_batch([390, 77])
    model = tiny_model(mask_padding=masked)
    expected = model(input_ids).logits
    for autograd in (False, True):
        with torch.set_grad_enabled(autograd):
            logits = model.to(dtype)(input_ids).logits
        assert logits.dtype == dtype and relative_error(logits, expected) < 0.05
    logits.float().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@torch.no_grad()
def test_the_mean_of_many_tokens_does_not_overflow_in_float16():
    for masked in (False, True):
        model = tiny_model(mask_padding=masked)
        model.byteformer.layernorm.bias.fill_(3000.0)  # of 49 tokens the sum is beyond float16, the mean is not
        expected = model(byte_batch([390])).logits
        assert relative_error(model.half()(byte_batch([390])).logits, expected) < 0.01, f"mask_padding={masked}"


@pytest.mark.parametrize("masked", [False, True])
def test_autocast(masked):
    input_ids = byte_batch([390, 77])
    model = tiny_model(mask_padding=masked)
    expected = model(input_ids).logits
    for autograd in (False, True):
        with torch.set_grad_enabled(autograd), torch.autocast("cpu", torch.bfloat16):
            assert relative_error(model(input_ids).logits, expected) < 0.05


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("autograd", [False, True])
def test_compiles_as_one_graph(masked, autograd):
    model = tiny_model(mask_padding=masked, **TWO_LAYERS)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    with torch.set_grad_enabled(autograd):
        for lengths in ([390, 77], [390, 5]):  # the second has windows of nothing but padding
            input_ids = byte_batch(lengths)
            assert relative_error(compiled(input_ids).logits, model(input_ids).logits) <= OUTPUTS


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_exports(masked):
    model = tiny_model(mask_padding=masked, **TWO_LAYERS)
    exported = torch.export.export(model, (byte_batch([390, 77], seed=1),)).module()
    input_ids = byte_batch([390, 20], seed=2)
    assert relative_error(exported(input_ids).logits, model(input_ids).logits) <= OUTPUTS


@pytest.mark.parametrize(
    "model_class", [ByteFormerModel, ByteFormerForImageClassification, ByteFormerForAudioClassification]
)
@torch.no_grad()
def test_saved_and_loaded_models_agree(model_class, tmp_path):
    model = tiny_model(model_class, sinusoidal_pos_emb=True)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "modeling_byteformer.py").exists() and (tmp_path / "configuration_byteformer.py").exists()
    again, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    input_ids = byte_batch([90])
    assert relative_error(again.eval()(input_ids)[0], model(input_ids)[0]) <= OUTPUTS


@torch.no_grad()
def test_a_missing_head_is_initialised_and_nothing_else(tmp_path):
    base = tiny_model(ByteFormerModel)
    with torch.no_grad():
        base.embeddings.byte_embeddings.weight[-1] = 0.5  # a padding row of somebody else's making stays as it is
    base.save_pretrained(tmp_path)
    model, info = ByteFormerForImageClassification.from_pretrained(tmp_path, output_loading_info=True, num_labels=7)
    assert sorted(info["missing_keys"]) == ["classifier.bias", "classifier.weight"]
    for name, value in base.state_dict().items():
        assert torch.equal(model.byteformer.state_dict()[name], value), name
    assert not model.classifier.bias.any() and 0.005 < model.classifier.weight.std() < 0.05


@torch.no_grad()
def test_adapters_on_the_embedding_are_obeyed():
    """Whatever stands in for the two modules of the look-ups is called, not bypassed."""

    class Doubled(torch.nn.Embedding):
        def forward(self, ids):
            return 2 * super().forward(ids)

    model, input_ids = tiny_model(), byte_batch([390, 300])
    embeddings = model.byteformer.embeddings
    table = embeddings.byte_embeddings
    embeddings.byte_embeddings = Doubled(*table.weight.shape, _weight=table.weight)
    adapted = model(input_ids).logits
    embeddings.byte_embeddings = table
    table.weight.mul_(2)
    assert relative_error(adapted, model(input_ids).logits) <= OUTPUTS


def test_backward_hooks_on_the_convolution_are_called():
    model, calls = tiny_model(), []
    convolution = model.byteformer.embeddings.token_reduction
    convolution.register_full_backward_hook(lambda module, inputs, outputs: calls.append(outputs[0].any().item()))
    model(byte_batch([390, 300])).logits.sum().backward()  # tokens enough for look-ups
    assert calls == [True]


HOOKED = ["embeddings.byte_embeddings", "embeddings.token_reduction"] + [
    f"encoder.layers.0.{name}"
    for name in ("self_attn", "self_attn.out_proj", "mlp", "mlp.fc1", "mlp.fc2", "downsample.reduction")
]


def hook(module, change):
    module.register_forward_hook(lambda module, args, output: change(output))


def wrap(module, change):
    """As accelerate does for layers that it moves between devices."""
    inner = module.forward
    module.forward = lambda *args, **kwargs: change(inner(*args, **kwargs))


@pytest.mark.parametrize("come_between", [hook, wrap])
@pytest.mark.parametrize("name", HOOKED)
def test_hooks_and_wrappers_see_and_change_the_same_without_autograd(name, come_between):
    """Whatever stands between a module and its caller is called, in chunks or not, and the look-ups stand back."""
    model, input_ids, seen = tiny_model(), byte_batch([390, 300]), []
    untouched = model(input_ids).logits

    def mirror(output):
        values = output[0] if isinstance(output, tuple) else output
        seen.append(values)
        return (values.flip(-1), *output[1:]) if isinstance(output, tuple) else values.flip(-1)

    come_between(model.byteformer.get_submodule(name), mirror)
    with_autograd = model(input_ids).logits
    with torch.no_grad():
        without = model(input_ids).logits
    assert relative_error(without, with_autograd) <= OUTPUTS < relative_error(without, untouched)
    assert relative_error(torch.cat([values.flatten() for values in seen[1:]]), seen[0].flatten()) <= OUTPUTS


def watch(model):
    """What hooks on every module are handed, as (module's name, the tensor, a copy of what it was then)."""
    handed = []

    def look(name):
        def hook(module, args, output):
            outputs = output if isinstance(output, tuple) else (output,)
            handed.extend((name, value, value.clone()) for value in (*args, *outputs) if torch.is_tensor(value))

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(look(name))
    return handed


def test_what_hooks_were_handed_stays_as_it_was():
    """Features are often collected by hooks that keep the tensors of every layer."""
    model = tiny_model()
    handed = watch(model.byteformer)
    with torch.no_grad():
        model(byte_batch([390, 300]))
    names = {name for name, _, _ in handed}
    assert {"embeddings", "encoder.layers.0", "encoder.layers.0.layer_norm2", "encoder.layers.0.downsample"} <= names
    assert [name for name, value, copy in handed if not torch.equal(value, copy)] == []


def test_layers_leave_their_input_alone():
    model, length = tiny_model().byteformer, 40
    tokens = torch.randn(length + 1, model.config.hidden_size)
    tokens[-1] = 0
    before = tokens.clone()
    for autograd in (False, True):
        with torch.set_grad_enabled(autograd):
            model.encoder.layers[0](tokens, Rows((length,), None))
        assert torch.equal(tokens, before)


def test_dropout_that_is_switched_on_in_eval_mode_drops():
    """Monte Carlo dropout: the model is in eval mode, its dropout is not."""
    model, input_ids = tiny_model(hidden_dropout_prob=0.5), byte_batch([390])
    for module in model.byteformer.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    with torch.no_grad():
        assert relative_error(model(input_ids).logits, model(input_ids).logits) > OUTPUTS
