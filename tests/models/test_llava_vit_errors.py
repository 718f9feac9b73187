# SPDX-License-Identifier: Apache-2.0
"""Bad input is a ValueError that says what was wrong and what is accepted."""

import pytest
import torch
from llava_vit_helpers import TINY, clip, tiny_config, tiny_model

from llavavit import LlavaViTConfig, LlavaViTForImageClassification, LlavaViTForVideoClassification, LlavaViTModel

CONFIGURATIONS = {
    "head dim 48": (dict(hidden_size=96), "multiple of 32.*96 / 2 = 48"),
    "head dim 16": (dict(hidden_size=64, num_attention_heads=4), "multiple of 32.*64 / 4 = 16"),
    "heads that do not divide": (
        dict(hidden_size=100, num_attention_heads=3),
        "multiple of num_attention_heads, got 100 and 3",
    ),
    "no width": (dict(hidden_size=0), "hidden_size must be a positive integer, got 0"),
    "negative layers": (dict(num_hidden_layers=-1), "num_hidden_layers must be a positive integer, got -1"),
    "no heads": (dict(num_attention_heads=0), "num_attention_heads must be a positive integer, got 0"),
    "fractional patch": (dict(patch_size=7.5), "patch_size must be a positive integer, got 7.5"),
    "patch as pair": (dict(patch_size=(8, 8)), r"patch_size must be a positive integer, got \(8, 8\)"),
    "channels as text": (dict(num_channels="3"), "num_channels must be a positive integer, got '3'"),
    "no intermediate": (dict(intermediate_size=None), "intermediate_size must be a positive integer, got None"),
    "no visible patches": (dict(max_visible_patches=0), "max_visible_patches must be a positive integer, got 0"),
    "image size true": (dict(image_size=True), "image_size must be a positive integer, got True"),
    "unknown norm": (dict(layer_norm_type="batch_norm"), "layer_norm_type .*rms_norm.* got 'batch_norm'"),
    "infinite eps": (dict(layer_norm_eps=float("inf")), "layer_norm_eps must be a positive number.* got inf"),
    "no grid of places": (dict(rope_temporal_size=0), "rope_temporal_size must be a positive integer, got 0"),
    "negative windows": (
        dict(frame_windows_size=-1),
        "frame_windows_size must be an integer, 0 for no windows, got -1",
    ),
    "merger without width": (dict(out_hidden_size=0), "out_hidden_size must be a positive integer or None, got 0"),
    "blocks of no patch": (dict(spatial_merge_size=0), "spatial_merge_size must be a positive integer, got 0"),
    "unknown stage": (dict(out_features=["stage3"]), "out_features must be of stem, stage1, stage2, got 'stage3'"),
    "stage beyond": (dict(out_indices=[3]), "numbers of stages from -3 to 2, got"),
    "stage twice": (dict(out_indices=[2, -1]), "once and in order"),
    "stages out of order": (dict(out_features=["stage2", "stem"]), "once and in order"),
    "stages that disagree": (dict(out_features=["stem"], out_indices=[1]), "must name the same stages"),
    "negative eps": (dict(layer_norm_eps=-1e-6), "layer_norm_eps must be .* got -1e-06"),
    "dropout of 1": (dict(attention_dropout=1.0), r"attention_dropout must be a probability in \[0, 1\), got 1.0"),
    "theta of 0": (dict(rope_theta=0.0), "rope_theta must be a positive number, got 0.0"),
    "negative std": (dict(initializer_range=-0.1), "initializer_range must be .* got -0.1"),
    "nan std": (dict(initializer_range=float("nan")), "initializer_range must be .* got nan"),
    "head as text": (dict(use_head="yes"), "use_head must be True or False, got 'yes'"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_bad_configuration(name):
    changes, message = CONFIGURATIONS[name]
    with pytest.raises(ValueError, match=message):
        LlavaViTConfig(**{**TINY, **changes})


def test_a_configuration_that_was_changed_later_is_checked_by_the_model():
    config = tiny_config()
    config.hidden_size = 96
    for model_class in (LlavaViTModel, LlavaViTForImageClassification):
        with pytest.raises(ValueError, match="multiple of 32"):
            model_class(config)


def test_unknown_activation():
    with pytest.raises(ValueError, match="hidden_act must be a transformers activation, got 'swoosh'; known: .*gelu"):
        LlavaViTModel(tiny_config(hidden_act="swoosh"))


def indices(*rows, dtype=torch.long):
    return torch.tensor(rows, dtype=dtype)


PIXELS = clip()  # (2, 3, 3, 32, 24): 36 patches
FORWARD = {
    "no pixels": (dict(pixel_values=None), "pixel_values must be a torch.Tensor, got NoneType"),
    "pixels as a list": (dict(pixel_values=[[1.0]]), "pixel_values must be a torch.Tensor, got list"),
    "3D pixels": (dict(pixel_values=PIXELS[0, :, 0]), r"\(B, C, T, H, W\) for video, got shape \(3, 32, 24\)"),
    "6D pixels": (dict(pixel_values=PIXELS[None]), "got shape"),
    "uint8 pixels": (dict(pixel_values=PIXELS.byte()), "floating point.*got torch.uint8"),
    "integer pixels": (dict(pixel_values=PIXELS.long()), "floating point.*got torch.int64"),
    "complex pixels": (dict(pixel_values=PIXELS.to(torch.complex64)), "floating point.*got torch.complex64"),
    "one channel": (dict(pixel_values=PIXELS[:, :1]), "3 channels"),
    "frames before channels": (
        dict(pixel_values=torch.randn(2, 4, 3, 32, 24)),
        r"3 channels in dimension 1.*\(2, 4, 3, 32, 24\)",
    ),
    "channels last": (dict(pixel_values=torch.randn(2, 32, 24, 3)), "3 channels in dimension 1"),
    "height not in whole patches": (
        dict(pixel_values=PIXELS[..., :30, :]),
        "multiples of the patch size 8, got 30 x 24",
    ),
    "width not in whole patches": (dict(pixel_values=PIXELS[..., :23]), "multiples of the patch size 8, got 32 x 23"),
    "smaller than a patch": (dict(pixel_values=PIXELS[..., :4, :4]), "multiples of the patch size 8, got 4 x 4"),
    "empty batch": (dict(pixel_values=PIXELS[:0]), "must not be empty"),
    "no frames": (dict(pixel_values=PIXELS[:, :, :0]), "must not be empty"),
    "no height": (dict(pixel_values=PIXELS[..., :0, :]), "must not be empty"),
    "indices as a list": (dict(visible_indices=[[0], [1]]), "visible_indices must be a torch.Tensor, got list"),
    "1D indices": (dict(visible_indices=torch.arange(4)), r"\(B, N\).*got shape \(4,\)"),
    "3D indices": (dict(visible_indices=torch.zeros(2, 4, 1).long()), r"got shape \(2, 4, 1\)"),
    "4D residual": (dict(visible_indices=PIXELS[:, :1, 0]), r"\(B, 1, T, H, W\) residual, got shape \(2, 1, 32, 24\)"),
    "empty selection": (dict(visible_indices=torch.zeros(2, 0).long()), r"N >= 1.*got shape \(2, 0\)"),
    "indices of another batch size": (dict(visible_indices=indices([0], [1], [2])), r"B = 2.*got shape \(3, 1\)"),
    "indices of one sample for two": (dict(visible_indices=indices([0, 1])), r"B = 2.*got shape \(1, 2\)"),
    "float indices": (dict(visible_indices=torch.zeros(2, 4)), "must be integers, got torch.float32"),
    "boolean mask": (dict(visible_indices=torch.ones(2, 36).bool()), "must be integers, got torch.bool"),
    "index too large": (dict(visible_indices=indices([0, 36], [1, 2])), r"lie in \[0, 36\), got values from 0 to 36"),
    "place beyond the grid": (
        dict(visible_indices=torch.arange(72).view(2, 36) * 16),
        r"\[0, 768\) .*rope_temporal_size.* from 0 to 1136",
    ),
    "negative place": (dict(visible_indices=torch.arange(72).view(2, 36) - 1), r"\[0, 768\) .* from -1 to 70"),
    "negative index": (dict(visible_indices=indices([0, 3], [-1, 2])), r"lie in \[0, 36\), got values from -1 to 3"),
    "residual of another size": (
        dict(visible_indices=torch.randn(2, 1, 3, 16, 24)),
        r"= \(2, 1, 3, 32, 24\), got shape \(2, 1, 3, 16, 24\)",
    ),
    "residual of other frames": (dict(visible_indices=torch.randn(2, 1, 2, 32, 24)), r"got shape \(2, 1, 2, 32, 24\)"),
    "residual of three channels": (dict(visible_indices=PIXELS), r"got shape \(2, 3, 3, 32, 24\)"),
    "residual of another batch size": (dict(visible_indices=PIXELS[:1, :1]), r"got shape \(1, 1, 3, 32, 24\)"),
    "boolean residual": (dict(visible_indices=PIXELS[:, :1] > 0), "real numbers, got torch.bool"),
    "complex residual": (dict(visible_indices=PIXELS[:, :1].to(torch.complex64)), "real numbers, got torch.complex64"),
    "positions as a list": (dict(patch_positions=[[[0, 0, 0]]]), "patch_positions must be a torch.Tensor, got list"),
    "too few positions": (dict(patch_positions=torch.zeros(2, 35, 3)), r"= \(2, 36, 3\), got shape \(2, 35, 3\)"),
    "positions of all patches for a selection": (
        dict(patch_positions=torch.zeros(2, 36, 3), visible_indices=indices([0, 1], [2, 3])),
        r"= \(2, 2, 3\), got shape \(2, 36, 3\)",
    ),
    "positions of two axes": (dict(patch_positions=torch.zeros(2, 36, 2)), r"got shape \(2, 36, 2\)"),
    "flat positions": (dict(patch_positions=torch.zeros(36, 3)), r"got shape \(36, 3\)"),
    "positions of another batch size": (dict(patch_positions=torch.zeros(1, 36, 3)), r"got shape \(1, 36, 3\)"),
    "boolean positions": (dict(patch_positions=torch.ones(2, 36, 3).bool()), "real numbers, got torch.bool"),
    "complex positions": (dict(patch_positions=torch.ones(2, 36, 3, dtype=torch.complex64)), "got torch.complex64"),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model(LlavaViTForImageClassification, num_labels=3)


@pytest.mark.parametrize("name", FORWARD)
def test_bad_input(model, name):
    inputs, message = FORWARD[name]
    for called in (model, model.llava_vit):
        with pytest.raises(ValueError, match=message):
            called(**{"pixel_values": PIXELS, **inputs})


LABELS = {
    "too many": (torch.tensor([0, 1, 2]), r"must be integers of shape \(2,\).* got torch.int64 of shape \(3,\)"),
    "one-hot integers": (
        torch.tensor([[1, 0, 0], [0, 1, 0]]),
        r"integers of shape \(2,\).* floating point \(2, 3\) for several.* \(2, 3\)",
    ),
    "no such class": (torch.tensor([0, 3]), r"lie in \[0, 3\) or be -100, got 3"),
    "classes as a list": ([0, 1], "labels must be a torch.Tensor, got list"),
    "no numbers": (torch.zeros(2, 3, dtype=torch.complex64), "must be numbers|must be integers"),
    "negative class": (torch.tensor([-1, 0]), r"lie in \[0, 3\) or be -100, got -1"),
}


@pytest.mark.parametrize("name", LABELS)
def test_bad_class_labels(model, name):
    labels, message = LABELS[name]
    with pytest.raises(ValueError, match=message):
        model(PIXELS, labels=labels)


KEYWORDS = {
    "misspelt": (dict(visible_indexes=torch.tensor([[0], [1]])), "'visible_indexes'; did you mean 'visible_indices'"),
    "misspelt and empty": (dict(patch_position=None), "'patch_position'; did you mean 'patch_positions'"),
    "of another model": (dict(attention_mask=torch.ones(2, 36)), "'attention_mask'; known: pixel_values, .*cu_seqlens"),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_unknown_keywords(model, name):
    inputs, message = KEYWORDS[name]
    for called in (model, model.llava_vit):
        with pytest.raises(TypeError, match=message):
            called(PIXELS, **inputs)


@torch.no_grad()
def test_keywords_that_transformers_passes_to_every_model(model):
    extra = dict(
        num_items_in_batch=2,
        use_cache=False,
        return_loss=True,
        output_router_logits=False,
        interpolate_pos_encoding=True,
    )
    assert torch.equal(model(PIXELS, **extra).logits, model(PIXELS).logits)
    assert torch.equal(model.llava_vit(PIXELS, **extra).pooler_output, model.llava_vit(PIXELS).pooler_output)
    with pytest.raises(TypeError, match="'labels'"):
        model.llava_vit(PIXELS, labels=torch.tensor([0, 1]))


@torch.no_grad()
def test_frames_are_no_clip():
    """What a pipeline without a video processor hands over, (T, C, H, W), would be T images."""
    model = tiny_model(LlavaViTForVideoClassification, num_labels=3)
    with pytest.raises(
        ValueError, match=r"takes clips.*\(B, C, T, H, W\), got shape \(2, 3, 32, 24\).*transpose\(0, 1\)\[None\]"
    ):
        model(PIXELS[:, :, 0])
    assert model(PIXELS[:, :, :1]).logits.shape == (2, 3)


def test_hidden_states_that_do_not_exist(model):
    for asked in ([3], [-4], ["2"], [0.5]):
        with pytest.raises(ValueError, match="output_hidden_states must be True, False or numbers from -3 to 2, got"):
            model(PIXELS, output_hidden_states=asked)


def test_bad_float_labels():
    several = tiny_model(LlavaViTForImageClassification, num_labels=3)
    with pytest.raises(
        ValueError,
        match=r"multi_label_classification must be numbers of shape \(2, 3\), got torch.float32 of shape \(2,\)",
    ):
        several(PIXELS, labels=torch.tensor([0.0, 1.0]))
    for wrong in (2.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"multi_label_classification must lie in \[0, 1\], got"):
            several(PIXELS, labels=torch.full((2, 3), wrong))
    assert several.config.problem_type is None  # labels that were refused decide nothing


def test_unknown_problem_type():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3)
    model.config.__dict__["problem_type"] = "guessing"  # past the configuration's own check
    with pytest.raises(ValueError, match="problem_type must be one of .*, got 'guessing'"):
        model(PIXELS, labels=torch.tensor([0, 1]))
