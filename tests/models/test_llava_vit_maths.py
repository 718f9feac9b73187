# SPDX-License-Identifier: Apache-2.0
"""The pure functions, the deliberate oddities one by one, and random configurations against the plain implementation."""

import random

import pytest
import torch
from llava_vit_helpers import clip, plain_twin, tiny_model
from measure import OUTPUTS, assert_gradients_close, close, relative_error

from llavavit.modeling_llava_vit import apply_rotary, cut_patches, indices_from_residual, rotary_cos_sin, split_indices


def test_angles_are_concatenated():
    cos, _ = rotary_cos_sin(torch.tensor([[[2, 3, 5]]]), head_dim=32, theta=100.0, dtype=torch.float32)
    half = [2 * 100.0 ** (-i / 4) for i in range(4)]
    half += [3 * 100.0 ** (-i / 6) for i in range(6)] + [5 * 100.0 ** (-i / 6) for i in range(6)]
    assert close(cos.flatten(), torch.tensor(half + half).cos())


def test_angles_of_larger_heads_keep_the_4_6_6_split():
    _, sin = rotary_cos_sin(torch.tensor([[[1, 0, 0]]]), head_dim=96, theta=10000.0, dtype=torch.float32)
    assert (sin.flatten() != 0).nonzero().flatten().tolist() == [*range(12), *range(48, 60)]


def test_rotary_acts_on_adjacent_pairs():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    angles = torch.tensor([0.1, 0.2, 0.1, 0.2]).view(1, 1, 1, 4)
    cos, sin = angles.cos(), angles.sin()
    c, s = cos.flatten(), sin.flatten()
    expected = torch.stack([1 * c[0] - 2 * s[0], 2 * c[1] + 1 * s[1], 3 * c[2] - 4 * s[2], 4 * c[3] + 3 * s[3]])
    assert close(apply_rotary(x, cos, sin).flatten(), expected)
    assert x.flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    # Its members carry different angles, so a pair's length is not kept: it is no rotation.
    assert abs(apply_rotary(x, cos, sin)[..., :2].norm() - x[..., :2].norm()) > 1e-3


@torch.no_grad()
def test_head_residual_starts_at_attended_probe():
    model = tiny_model()
    tokens = torch.randn(1, 1, 64)  # a single token takes all the attention, so the probe's own value cannot matter
    before = model.head(tokens)
    model.head.probe.add_(1.0)
    assert close(model.head(tokens), before)


@torch.no_grad()
def test_head_norm_is_rms_whatever_the_other_norms_are():
    for kind in ("layer_norm", "rms_norm"):
        names = dict(tiny_model(layer_norm_type=kind).named_parameters())
        assert "head.norm.weight" in names and "head.norm.bias" not in names
        assert ("layernorm_pre.bias" in names) == (kind == "layer_norm")


def test_patches_are_ordered_by_frame_row_column():
    frames, rows, columns, p = 2, 3, 4, 2
    numbers = torch.arange(frames * rows * columns).view(1, 1, frames, rows, columns).float()
    pixels = numbers.repeat_interleave(p, -1).repeat_interleave(p, -2)
    assert cut_patches(pixels, p)[0, :, 0].tolist() == list(range(24))
    picked = torch.tensor([[23, 0, 7, 7]])
    assert cut_patches(pixels, p, picked)[0, :, -1].tolist() == [23, 0, 7, 7]
    assert [x.item() for x in split_indices(torch.tensor(23), rows, columns)] == [1, 2, 3]


def test_gathered_patches_equal_all_patches_gathered():
    pixels = clip(batch=3, frames=2)
    indices = torch.stack([torch.randperm(24)[:10] for _ in range(3)])
    everything = cut_patches(pixels, 8)
    expected = everything.gather(1, indices[:, :, None].expand(-1, -1, everything.shape[-1]))
    assert torch.equal(cut_patches(pixels, 8, indices), expected)


def test_residual_keeps_the_largest_in_ascending_order():
    residual = torch.zeros(1, 1, 2, 4, 4)  # 2 frames of 2 x 2 patches
    residual[0, 0, 1, 3, 3] = -9.0  # patch 7: the sign does not count
    residual[0, 0, 0, 0, 2] = 5.0  # patch 1
    residual[0, 0, 0, 2:, :2] = 1.0  # patch 2: a sum of 4
    assert indices_from_residual(residual, 2, 3).tolist() == [[1, 2, 7]]
    assert indices_from_residual(residual, 2, 100).tolist() == [list(range(8))]


def test_residual_ties_keep_the_earlier_patch():
    assert indices_from_residual(torch.zeros(1, 1, 4, 8, 8), 2, 5).tolist() == [[0, 1, 2, 3, 4]]


@torch.no_grad()
def test_residual_equals_the_indices_it_stands_for():
    model = tiny_model(max_visible_patches=7)
    residual = torch.randn(2, 1, 3, 32, 24)
    indices = indices_from_residual(residual, 8, 7)
    got = model(clip(), visible_indices=residual).last_hidden_state
    assert got.shape == (2, 7, 64)
    assert close(got, model(clip(), visible_indices=indices).last_hidden_state)


def random_case(seed: int):
    """A random configuration, with inputs of a random form."""
    pick = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    heads = pick.choice([1, 2, 3])
    config = dict(
        hidden_size=heads * pick.choice([32, 64, 96]),
        intermediate_size=pick.choice([40, 96]),
        num_hidden_layers=pick.choice([1, 2, 3]),
        num_attention_heads=heads,
        num_channels=pick.choice([1, 3]),
        patch_size=pick.choice([2, 5, 7]),
        hidden_act=pick.choice(["gelu", "gelu_pytorch_tanh", "silu"]),
        layer_norm_type=pick.choice(["layer_norm", "rms_norm"]),
        layer_norm_eps=pick.choice([1e-6, 1e-3]),
        rope_theta=pick.choice([100.0, 10000.0]),
        use_head=pick.choice([True, True, False]),
        max_visible_patches=pick.choice([3, 2048]),
    )
    batch, frames, p = pick.choice([1, 3]), pick.choice([1, 4]), config["patch_size"]
    rows, columns = pick.choice([1, 3]), pick.choice([2, 5])
    inputs = dict(
        pixel_values=torch.randn(batch, config["num_channels"], frames, rows * p, columns * p, generator=generator)
    )
    visible = patches = frames * rows * columns
    form = pick.choice(["all", "indices", "residual"])
    if form == "indices":
        visible = pick.randint(1, patches)
        rows_of = [torch.randperm(patches, generator=generator)[:visible] for _ in range(batch)]
        inputs["visible_indices"] = torch.stack(rows_of)
    if form == "residual":
        visible = min(patches, config["max_visible_patches"])
        inputs["visible_indices"] = torch.randn(batch, 1, frames, rows * p, columns * p, generator=generator)
    if pick.random() < 0.4:
        inputs["patch_positions"] = torch.randint(0, 64, (batch, visible, 3), generator=generator)
    if frames == 1 and form != "residual" and pick.random() < 0.5:
        inputs["pixel_values"] = inputs["pixel_values"][:, :, 0]
    return config, inputs


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("seed", range(40))
@torch.no_grad()
def test_random_configurations_equal_the_plain_implementation(seed, backend):
    config, inputs = random_case(seed)
    model = tiny_model(seed=seed, attn_implementation=backend, **config)
    expected = plain_twin(model)(**inputs)
    got = model(**inputs, output_hidden_states=True)
    assert relative_error(got.last_hidden_state, expected["last_hidden_state"]) <= OUTPUTS
    for ours, theirs in zip(got.hidden_states, expected["hidden_states"], strict=True):
        assert relative_error(ours, theirs) <= OUTPUTS
    if config["use_head"]:
        assert relative_error(got.pooler_output, expected["pooler_output"]) <= OUTPUTS
    else:
        assert got.pooler_output is None


def test_gradients_equal_the_plain_implementation():
    for seed in range(6):
        config, inputs = random_case(seed)
        model = tiny_model(seed=seed, **config).train()
        plain = plain_twin(model).train()
        key = "pooler_output" if config["use_head"] else "last_hidden_state"
        model(**inputs)[key].square().mean().backward()
        plain(**inputs)[key].square().mean().backward()
        theirs = dict(plain.named_parameters())
        ours = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert_gradients_close(ours, {name: theirs[name].grad for name in ours})
