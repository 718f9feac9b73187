# SPDX-License-Identifier: Apache-2.0
"""Bad input is a ValueError that says what was wrong and what is accepted."""

import pytest
import torch
from llava_vit_helpers import TINY, clip, tiny_config, tiny_model
from llavavit import LlavaViTConfig, LlavaViTForImageClassification, LlavaViTModel

CONFIGURATIONS = {
    "head dim 48": (dict(hidden_size=96), "multiple of 32.*96 / 2 = 48"),
    "head dim 16": (dict(hidden_size=64, num_attention_heads=4), "multiple of 32.*64 / 4 = 16"),
    "heads that do not divide": (dict(hidden_size=100, num_attention_heads=3), "multiple of num_attention_heads, got 100 and 3"),
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
    "frames before channels": (dict(pixel_values=torch.randn(2, 4, 3, 32, 24)), r"3 channels in dimension 1.*\(2, 4, 3, 32, 24\)"),
    "channels last": (dict(pixel_values=torch.randn(2, 32, 24, 3)), "3 channels in dimension 1"),
    "height not in whole patches": (dict(pixel_values=PIXELS[..., :30, :]), "multiples of the patch size 8, got 30 x 24"),
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
    "negative index": (dict(visible_indices=indices([0, 3], [-1, 2])), r"lie in \[0, 36\), got values from -1 to 3"),
    "residual of another size": (dict(visible_indices=torch.randn(2, 1, 3, 16, 24)), r"= \(2, 1, 3, 32, 24\) for these pixel_values"),
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
    "boolean positions": (dict(patch_positions=torch.ones(2, 36, 3).bool()), "integers or floating point, got torch.bool"),
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
    "one-hot integers": (torch.tensor([[1, 0, 0], [0, 1, 0]]), r"integers of shape \(2,\).* floating point \(2, 3\) for several.* \(2, 3\)"),
    "no such class": (torch.tensor([0, 3]), r"lie in \[0, 3\) or be -100, got 3"),
    "negative class": (torch.tensor([-1, 0]), r"lie in \[0, 3\) or be -100, got -1"),
}


@pytest.mark.parametrize("name", LABELS)
def test_bad_class_labels(model, name):
    labels, message = LABELS[name]
    with pytest.raises(ValueError, match=message):
        model(PIXELS, labels=labels)


def test_bad_float_labels():
    several = tiny_model(LlavaViTForImageClassification, num_labels=3)
    with pytest.raises(ValueError, match=r"multi_label_classification must be numbers of shape \(2, 3\), got torch.float32 of shape \(2,\)"):
        several(PIXELS, labels=torch.tensor([0.0, 1.0]))


def test_unknown_problem_type():
    model = tiny_model(LlavaViTForImageClassification, num_labels=3)
    model.config.__dict__["problem_type"] = "guessing"  # past the configuration's own check
    with pytest.raises(ValueError, match="problem_type must be one of .*, got 'guessing'"):
        model(PIXELS, labels=torch.tensor([0, 1]))
