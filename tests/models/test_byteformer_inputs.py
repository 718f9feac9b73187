# SPDX-License-Identifier: Apache-2.0
"""What ByteFormer cannot read, or cannot be built from, is a ValueError that says why; what it reads it leaves alone."""

import inspect

import pytest
import torch
from byteformer_helpers import PADDING, byte_batch, tiny_config, tiny_model
from measure import OUTPUTS, relative_error

from byteformer import BYTEFORMER_MODES, ByteFormerConfig, ByteFormerModel

BYTES = byte_batch([60])
BAD_INPUTS = {
    "an id beyond padding": (dict(input_ids=BYTES + 200), r"0\.\.255.*got \d+"),
    "an id below -1": (dict(input_ids=BYTES - 400), r"0\.\.255.*got -\d+"),
    "floats": (dict(input_ids=BYTES.float()), "integers, got torch.float32"),
    "complex numbers": (dict(input_ids=BYTES.to(torch.complex64)), "integers"),
    "booleans": (dict(input_ids=BYTES.bool()), "integers"),
    "one row without a batch": (dict(input_ids=BYTES[0]), r"\(batch, bytes\).*\(60,\)"),
    "three dimensions": (dict(input_ids=BYTES[None]), r"\(batch, bytes\)"),
    "a list": (dict(input_ids=[[1, 2, 3, 4]]), "torch.Tensor, got list"),
    "bytes": (dict(input_ids=b"file"), "torch.Tensor, got bytes"),
    "no rows": (dict(input_ids=BYTES[:0]), r"\(0, 60\)"),
    "no bytes": (dict(input_ids=BYTES[:, :0]), r"\(1, 0\)"),
    "shorter than the kernel": (dict(input_ids=BYTES[:, :3]), "at least conv_kernel_size = 4 bytes, got 3"),
    "longer than the position table": (
        dict(input_ids=BYTES.repeat(1, 7)[:, :404]),
        "at most 403 bytes .*200 tokens.*got 404",
    ),
    "a mask of another length": (
        dict(input_ids=BYTES, attention_mask=torch.ones(1, 59)),
        r"\(1, 60\), got .*\(1, 59\)",
    ),
    "a mask of another batch": (dict(input_ids=BYTES, attention_mask=torch.ones(2, 60)), r"\(2, 60\)"),
    "a mask that is a list": (dict(input_ids=BYTES, attention_mask=[1] * 60), "got list"),
    "a mask of fractions": (dict(input_ids=BYTES, attention_mask=torch.full((1, 60), 0.5)), "only 0 and 1"),
    "a mask of twos": (dict(input_ids=BYTES, attention_mask=torch.full((1, 60), 2)), "only 0 and 1"),
    "a mask that shows padding": (
        dict(input_ids=byte_batch([50], 60), attention_mask=torch.ones(1, 60)),
        "contradicts the padding: it is 1",
    ),
    "a mask that shows padding written -1": (
        dict(input_ids=torch.cat([BYTES, torch.tensor([[-1]])], 1), attention_mask=torch.ones(1, 61)),
        "contradicts the padding",
    ),
    "a mask that hides bytes": (
        dict(input_ids=BYTES, attention_mask=torch.zeros(1, 60)),
        "hides bytes.*mask_padding=True",
    ),
}
BAD_MASKED_INPUTS = {
    "a row of padding": (dict(input_ids=byte_batch([60, 0])), "only padding in row 1"),
    "a row hidden by the mask": (dict(input_ids=BYTES, attention_mask=torch.zeros(1, 60)), "only padding in row 0"),
    "a mask that shows padding": (
        dict(input_ids=byte_batch([50], 60), attention_mask=torch.ones(1, 60)),
        "contradicts",
    ),
    "longer than the position table": (dict(input_ids=byte_batch([404])), "at most 403 bytes"),
}
BAD_LABELS = {
    "too many": (torch.tensor([1, 2]), r"integers of shape \(1,\).*got torch.int64 of shape \(2,\)"),
    "several labels of the wrong number": (torch.rand(1, 4), r"\(1, 5\)"),
    "a label beyond the last": (torch.tensor([5]), r"labels must lie in \[0, 5\).*got 5"),
    "a label below 0": (torch.tensor([-1]), "labels must lie in .*got -1"),
    "a share above 1": (torch.full((1, 5), 1.5), r"\[0, 1\], got 1.5"),
    "a list": ([1], "labels must be a torch.Tensor, got list"),
}
BAD_CONFIGS = {
    "window_sizes of the wrong length": (
        dict(window_sizes=[16, 16]),
        "window_sizes needs 1 or 4 entries for 4 layers, got 2",
    ),
    "window_shifts of the wrong length": (
        dict(window_shifts=[0, 8]),
        "window_shifts needs 4 entries for 4 layers, got 2",
    ),
    "downsample of the wrong length": (dict(downsample=[True] * 5), "downsample needs 4 entries for 4 layers, got 5"),
    "defaults for another depth": (dict(num_hidden_layers=5), "needs 5 entries"),
    "a negative shift": (dict(window_shifts=[0, -8, 0, 0]), "window_shifts must be a list of integers, 0 or more"),
    "a window of nothing": (dict(window_sizes=[0]), "window_sizes must be a list of positive integers"),
    "windows that are no list": (dict(window_sizes=16), "window_sizes must be a list"),
    "no windows": (dict(window_sizes=[]), "window_sizes needs"),
    "merging by number": (dict(downsample=[1, 0, 1, 0]), "downsample must be a list of True or False"),
    "an odd kernel": (dict(conv_kernel_size=5), "conv_kernel_size must be even"),
    "a kernel of nothing": (dict(conv_kernel_size=0), "conv_kernel_size must be a positive integer"),
    "heads that do not divide the width": (
        dict(num_attention_heads=3),
        "hidden_size must be a multiple of num_attention_heads",
    ),
    "a fractional width": (dict(hidden_size=32.0), "hidden_size must be a positive integer, got 32.0"),
    "no positions": (dict(max_position_embeddings=0), "max_position_embeddings must be a positive integer"),
    "no room for padding": (dict(vocab_size=1), "vocab_size must be 2 or more"),
    "an odd width with sinusoidal positions": (
        dict(hidden_size=33, num_attention_heads=3, sinusoidal_pos_emb=True),
        "hidden_size must be even",
    ),
    "a switch by name": (dict(mask_padding="yes"), "mask_padding must be True or False"),
    "a dropout of 1": (dict(hidden_dropout_prob=1.0), r"hidden_dropout_prob must be a probability in \[0, 1\)"),
    "a negative drop path": (dict(drop_path_rate=-0.1), "drop_path_rate"),
    "an epsilon of 0": (dict(layer_norm_eps=0), "layer_norm_eps must be a positive number"),
    "an infinite epsilon": (dict(layer_norm_eps=float("inf")), "layer_norm_eps"),
    "an epsilon that is no number": (dict(layer_norm_eps=float("nan")), "layer_norm_eps"),
    "an unknown activation": (dict(hidden_act="gulu"), "hidden_act must be one of .*got 'gulu'"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input(case):
    arguments, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        tiny_model()(**arguments)


@pytest.mark.parametrize("case", BAD_MASKED_INPUTS)
def test_bad_input_with_masking(case):
    arguments, message = BAD_MASKED_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        tiny_model(mask_padding=True)(**arguments)


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(case):
    labels, message = BAD_LABELS[case]
    with pytest.raises(ValueError, match=message):
        tiny_model()(BYTES, labels=labels)


def test_a_misspelt_keyword_is_refused_by_name():
    for model in (tiny_model(), tiny_model(ByteFormerModel)):
        with pytest.raises(TypeError, match="'attention_masks'; did you mean 'attention_mask'"):
            model(BYTES, attention_masks=torch.ones(1, 60))
        with pytest.raises(TypeError, match="'pixel_values'; known: input_ids, "):
            model(BYTES, pixel_values=torch.zeros(1, 3, 8, 8))


def test_what_transformers_passes_to_every_model_is_taken():
    passed = dict(num_items_in_batch=torch.tensor(1), use_cache=False)
    for model in (tiny_model(), tiny_model(ByteFormerModel)):
        assert relative_error(model(BYTES, **passed)[0], model(BYTES)[0]) <= OUTPUTS


def test_the_vocabulary_keeps_its_size():
    """A new last row would be padding, and the old padding a byte."""
    model = tiny_model()
    expected = model(byte_batch([50], 60)).logits
    for arguments in (dict(new_num_tokens=300), dict(new_num_tokens=200), dict(pad_to_multiple_of=64)):
        with pytest.raises(ValueError, match="257 rows and cannot have .* padding, id 256"):
            model.resize_token_embeddings(**arguments)
    assert model.resize_token_embeddings() is model.resize_token_embeddings(257) is model.get_input_embeddings()
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 257
    assert relative_error(model(byte_batch([50], 60)).logits, expected) <= OUTPUTS


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configuration(case):
    changes, message = BAD_CONFIGS[case]
    with pytest.raises(ValueError, match=message):
        ByteFormerModel(tiny_config(**changes))


def test_a_configuration_changed_after_construction_is_checked_too():
    config = tiny_config()
    config.window_shifts = [0, 8]
    with pytest.raises(ValueError, match="window_shifts needs 4 entries"):
        ByteFormerModel(config)


def test_modes():
    for mode, sizes in BYTEFORMER_MODES.items():
        lists = {} if mode != "huge" else dict(window_shifts=[0] * 32, downsample=[False] * 32)
        config = ByteFormerConfig.from_mode(mode, conv_kernel_size=4, **lists)
        assert {name: getattr(config, name) for name in sizes} == sizes and config.conv_kernel_size == 4
    with pytest.raises(ValueError, match="window_shifts needs 32 entries"):
        ByteFormerConfig.from_mode("huge")
    with pytest.raises(ValueError, match="mode must be one of tiny, small, base, huge, got 'giant'"):
        ByteFormerConfig.from_mode("giant")


def test_default_shifts_fit_the_window():
    assert ByteFormerConfig().window_shifts == [0, 64] * 6
    assert ByteFormerConfig(window_sizes=[32]).window_shifts == [0] * 12  # 64 is two whole windows of 32
    assert ByteFormerConfig(window_sizes=[96]).window_shifts == [0, 64] * 6


def test_a_configuration_survives_its_file(tmp_path):
    config = tiny_config(mask_padding=True, sinusoidal_pos_emb=True, drop_path_rate=0.1)
    config.save_pretrained(tmp_path)
    again = ByteFormerConfig.from_pretrained(tmp_path)
    fields = inspect.signature(ByteFormerConfig.__init__).parameters.keys() - {"self", "kwargs"}
    assert {name: getattr(again, name) for name in fields} == {name: getattr(config, name) for name in fields}
    assert again.num_labels == 5


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("autograd", [False, True])
def test_the_caller_s_tensors_are_untouched(masked, autograd):
    input_ids = byte_batch([100, 7], 120)
    input_ids[0, 110:] = -1
    mask = ((input_ids >= 0) & (input_ids < PADDING)).long()
    before = input_ids.clone(), mask.clone()
    with torch.set_grad_enabled(autograd):
        tiny_model(mask_padding=masked)(input_ids, attention_mask=mask)
    assert torch.equal(input_ids, before[0]) and torch.equal(mask, before[1])


@torch.no_grad()
def test_minus_one_and_256_are_the_same_padding_in_any_integer_type():
    model = tiny_model()
    input_ids = byte_batch([100, 7])
    expected = model(input_ids).logits
    for ids in (input_ids.where(input_ids < PADDING, torch.tensor(-1)), input_ids.int(), input_ids.short()):
        assert relative_error(model(ids).logits, expected) <= OUTPUTS
    assert relative_error(model(input_ids[:1].to(torch.uint8)).logits, model(input_ids[:1]).logits) <= OUTPUTS
