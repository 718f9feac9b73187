# SPDX-License-Identifier: Apache-2.0
"""Packs: images and videos of any sizes in one forward, each as if it were alone."""

import json
from functools import partial

import pytest
import torch
from llava_vit_helpers import GOLDEN, clip, golden_tensors, relative_error, tiny_config, tiny_model
from measure import assert_gradients_close
from safetensors.torch import load_file

import llavavit.modeling_llava_vit as modeling
from llavavit import (
    LlavaViTConfig,
    LlavaViTForImageClassification,
    LlavaViTForVideoClassification,
    LlavaViTModel,
    pack,
    unpack,
)

TOWERS = [
    (name, case)
    for name in ("tower_whole", "tower_windows")
    for case in json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
]


def tower(name: str, **changes) -> LlavaViTModel:
    """The recorded vision tower, its stacked q, k, v taken apart."""
    weights = {}
    for key, value in load_file(GOLDEN / f"{name}.weights.safetensors").items():
        if ".qkv." in key:
            weights.update({key.replace("qkv", f"{letter}_proj"): part for letter, part in zip("qkv", value.chunk(3))})
        else:
            weights[key.replace("self_attn.proj", "self_attn.out_proj")] = value
    config = json.loads((GOLDEN / f"{name}.json").read_text())["config"]
    model = LlavaViTModel(LlavaViTConfig(**config, **changes)).eval()
    model.load_state_dict(weights, strict=True)
    return model


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("name, case", TOWERS)
@torch.no_grad()
def test_recorded_towers(name, case, backend):
    inputs, expected = golden_tensors(name, case)
    outputs = tower(name, attn_implementation=backend)(**inputs, output_hidden_states=True)
    assert relative_error(outputs.last_hidden_state, expected["last_hidden_state"]) <= 1e-5
    assert relative_error(outputs.hidden_states[1], expected["hidden_states.1"]) <= 1e-5
    assert relative_error(outputs.merged_states, expected["merged"]) <= 1e-5


def random_sample(generator: torch.Generator, dense_only: bool):
    """An image or video of 1 to 4 x 1 to 4 patches, and its visible_indices: none, a selection in any order, a residual."""

    def number(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    frames, height, width = number(1, 7), 8 * number(1, 4), 8 * number(1, 4)
    sample = torch.randn(3, frames, height, width, generator=generator)
    if frames == 1 and number(0, 1):
        return sample[:, 0], None
    kind = 0 if dense_only else number(0, 2)
    if kind == 1:
        patches = frames * height * width // 64
        return sample, torch.randperm(patches, generator=generator)[: number(1, patches)]
    return sample, torch.randn(1, frames, height, width, generator=generator) if kind == 2 else None


def alone(model, sample, visible, **options):
    """A sample through the forms for pixels."""
    return model(sample[None], None if visible is None else visible[None], **options)


def random_pack(seed: int):
    """A tiny model, and 1 to 12 samples with their visible_indices."""
    generator = torch.Generator().manual_seed(seed)
    windows = seed % 6
    samples = [random_sample(generator, windows > 0) for _ in range(1 + seed * 7 % 12)]
    backend = "eager" if seed % 2 else "sdpa"
    settings = dict(frame_windows_size=windows, attn_implementation=backend, max_visible_patches=5)
    return tiny_model(seed=seed % 4, num_hidden_layers=1, **settings), *map(list, zip(*samples))


@pytest.mark.parametrize("first", [0, 100, 200])
@torch.no_grad()
def test_each_sample_of_300_packs_equals_itself_alone_whatever_its_place(first):
    for seed in range(first, first + 100):
        model, samples, visible = random_pack(seed)
        packed = model.pack(samples, visible)
        outputs = model(**packed)
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).tolist()
        packed_otherwise = model.pack([samples[i] for i in order], [visible[i] for i in order])
        shuffled = model(**packed_otherwise)
        tokens, moved = unpack(outputs.last_hidden_state, packed), unpack(shuffled.last_hidden_state, packed_otherwise)
        for place, i in enumerate(order):
            expected = alone(model, samples[i], visible[i])
            assert relative_error(tokens[i][None], expected.last_hidden_state) < 1e-5, (seed, i)
            assert relative_error(moved[place][None], expected.last_hidden_state) < 1e-5, (seed, i)
            assert relative_error(outputs.pooler_output[i : i + 1], expected.pooler_output) < 1e-5, (seed, i)
            assert relative_error(shuffled.pooler_output[place : place + 1], expected.pooler_output) < 1e-5, (seed, i)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_packs_are_the_sums_of_the_samples_gradients(checkpointing):
    for seed in range(0, 60, 5):
        model, samples, visible = random_pack(seed)
        sum(alone(model, *sample).pooler_output.square().sum() for sample in zip(samples, visible)).backward()
        expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        model.zero_grad()
        if checkpointing:
            model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(**model.pack(samples, visible)).pooler_output.square().sum().backward()
        scale = max(gradient.abs().max() for gradient in expected.values())
        for name, parameter in model.named_parameters():
            assert (parameter.grad - expected[name]).abs().max() <= 1e-4 * scale, (seed, name)


@torch.no_grad()
def test_windows_are_runs_of_frames_that_do_not_see_each_other():
    """Six frames in windows of four: the same as four frames and two, each a sample of its own."""
    for backend in ("eager", "sdpa"):
        windowed = tiny_model(use_head=False, frame_windows_size=4, attn_implementation=backend)
        whole = tiny_model(use_head=False, attn_implementation=backend)
        video = clip(batch=1, frames=6)
        parts = whole.pack([video[0, :, :4], video[0, :, 4:]])
        parts["patch_positions"][48:, 0] += 4
        expected = whole(**parts).last_hidden_state
        assert relative_error(windowed(**windowed.pack(video)).last_hidden_state, expected) < 1e-5
        assert relative_error(windowed(video).last_hidden_state[0], expected) < 1e-5
        assert relative_error(whole(video).last_hidden_state[0], expected) > 1e-3
        short = clip(batch=1, frames=4)
        assert relative_error(windowed(short).last_hidden_state, whole(short).last_hidden_state) < 1e-5


@torch.no_grad()
def test_attention_works_on_the_sum_of_squares_and_pads_nothing(monkeypatch):
    shapes = []

    def counted(module, query, key, value, attention_mask=None, **kwargs):
        assert attention_mask is None and key.shape == query.shape
        shapes.append(tuple(query.shape))
        return modeling.sdpa_attention(module, query, key, value, **kwargs)

    monkeypatch.setitem(modeling.OWN_BACKENDS, "eager", counted)
    model = tiny_model(num_hidden_layers=1, frame_windows_size=2, attn_implementation="eager")
    model(**model.pack([clip(frames=5)[0], clip(frames=1)[0], clip(frames=1)[1], clip(height=8, frames=1)[0, :, 0]]))
    assert shapes == [(2, 2, 24, 32), (3, 2, 12, 32), (1, 2, 3, 32)]  # neighbours of one length in one call


@torch.no_grad()
def test_flash_attention_takes_the_whole_pack_in_one_call(monkeypatch):
    calls = []

    def varlen(query, key, value, cu_q, cu_k, max_q, max_k, dropout_p, softmax_scale, causal):
        assert query.dim() == 3 and cu_q.dtype == torch.int32 and torch.equal(cu_q, cu_k) and not causal
        calls.append(cu_q.tolist())
        mask = torch.block_diag(*[torch.ones(n, n) for n in cu_q.diff().tolist()]).bool()
        heads = (x.transpose(0, 1) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*heads, mask, scale=softmax_scale).transpose(0, 1)

    model = tiny_model()
    packed = model.pack([clip()[0], clip(height=8)[0], clip(width=8)[0]])
    expected = model(**packed).last_hidden_state
    monkeypatch.setattr(modeling, "flash_attn_varlen_func", varlen)
    monkeypatch.setattr(modeling, "flash_attention_obstacle", lambda *args: None)
    model.config._attn_implementation = "flash_attention_2"
    assert relative_error(model(**packed).last_hidden_state, expected) < 1e-5
    assert calls == [[0, 36, 45, 57]] * 2


@torch.no_grad()
def test_other_outputs_of_a_pack():
    model = tiny_model(frame_windows_size=2)
    packed = model.pack([clip()[0], clip(frames=1)[0]])
    outputs = model(**packed, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(48, 64)] * 3
    assert [tuple(run.shape) for run in outputs.attentions[0]] == [(2, 24, 24), (2, 12, 12), (2, 12, 12)]
    for run in outputs.attentions[1]:
        torch.testing.assert_close(run.sum(-1), torch.ones(run.shape[:2]))
    plain = model(**packed, return_dict=False)
    assert torch.equal(plain[0], model(**packed).last_hidden_state) and len(plain) == 2


def test_a_pack_without_gradients_is_computed_in_turns_and_comes_out_whole(monkeypatch):
    """Its memory is that of its largest sample: no more patches than that one's are ever in a block at a time."""
    for settings in ({}, {"use_head": False, "out_hidden_size": 48}, {"frame_windows_size": 1}):
        model = tiny_model(**settings)
        shapes = ((1, 16, 32), (2, 16, 16), (4, 32, 16), (1, 16, 16), (1, 16, 16), (3, 16, 32))
        packed = model.pack([torch.randn(3, *shape) for shape in shapes])  # of 8, 8, 32, 4, 4 and 24 patches
        sizes, asked = [], dict(output_hidden_states=[0, -1], output_attentions=True)
        count = partial(lambda seen, module, args, out: seen.append(len(out)), sizes)
        hook = model.encoder.layers[0].mlp.register_forward_hook(count)
        whole = model(**packed, **asked)
        monkeypatch.setattr(modeling, "PACK_SIZE", 16)
        with torch.no_grad():
            turns = model(**packed, **asked)
        model(**packed)
        hook.remove()
        assert sizes == [80, 16, 32, 32, 80]
        for name, expected in whole.items():
            found = turns[name] if isinstance(expected, tuple) else (turns[name],)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for entry, wanted in zip(found, expected, strict=True):
                pairs = zip(entry, wanted, strict=True) if isinstance(wanted, tuple) else [(entry, wanted)]
                assert all(a is b is None or relative_error(a, b) < 1e-5 for a, b in pairs), name


@torch.no_grad()
def test_packs_in_half_precision_and_autocast():
    model = tiny_model()
    packed = model.pack([clip()[0], clip(height=8)[0]])
    expected = model(**packed).pooler_output
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative_error(model(**packed).pooler_output, expected) < 5e-2
    got = model.to(torch.bfloat16)(**packed).pooler_output
    assert got.dtype == torch.bfloat16 and relative_error(got, expected) < 5e-2


@torch.no_grad()
def test_compile_of_a_pack_whose_sizes_are_numbers():
    torch._dynamo.reset()
    model = tiny_model(num_hidden_layers=1, frame_windows_size=2)
    packed = model.pack([clip()[0], clip(height=8)[0]])
    packed["grid_thw"] = packed["grid_thw"].tolist()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(**packed).pooler_output, model(**packed).pooler_output) < 1e-5


def test_classifiers_take_packs():
    for model_class in (LlavaViTForImageClassification, LlavaViTForVideoClassification):
        for use_head in (True, False):
            model = tiny_model(model_class, num_labels=3, use_head=use_head)
            samples = [clip()[0], clip(height=8)[0], clip(frames=1)[0]]
            outputs = model(**model.pack(samples), labels=torch.tensor([0, 2, 1]))
            assert outputs.logits.shape == (3, 3) and torch.isfinite(outputs.loss)
            for sample, logits in zip(samples, outputs.logits):
                assert relative_error(logits, model(sample[None]).logits[0]) < 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_loss_of_a_pack_is_that_of_its_samples(checkpointing):
    """The mean of them, or their sum over what Trainer counts; and so are the gradients."""
    model = tiny_model(LlavaViTForImageClassification, num_labels=3).train()
    samples, labels = [clip(frames=1)[0], clip(height=8, frames=1)[0], clip(frames=1)[1]], torch.tensor([0, 2, 1])
    losses = [model(sample[None], labels=label[None]).loss for sample, label in zip(samples, labels)]
    (sum(losses) / 7).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed = model.pack(samples)
    mean = model(**packed, labels=labels).loss
    assert relative_error(mean, sum(losses) / 3) < 1e-5
    counted = model(**packed, labels=labels, num_items_in_batch=7).loss
    assert relative_error(counted, sum(losses) / 7) < 1e-5
    counted.backward()
    assert_gradients_close({name: parameter.grad for name, parameter in model.named_parameters()}, expected)


def test_only_selected_patches_are_carried():
    pixels, indices = clip(batch=1)[0], torch.tensor([30, 2, 7])
    packed = pack(tiny_config(), [pixels, pixels], [indices, None])
    assert (
        packed["pixel_values"].shape == (39, 192)
        and packed["cu_seqlens"].tolist() == [0, 3, 39]
        and "grid_thw" not in packed
    )
    assert packed["patch_positions"][:3].tolist() == [[2, 2, 0], [0, 0, 2], [0, 2, 1]]
    assert torch.equal(packed["pixel_values"][0], pixels[:, 2, 16:24, :8].flatten())
    whole = pack(tiny_config(), [pixels])
    assert whole["grid_thw"].tolist() == [[3, 4, 3]] and "cu_seqlens" not in whole


@torch.no_grad()
def test_batches_of_a_processor_fit_in():
    """pixel_values (B, C, T, H, W), visible_indices (B, N) and patch_positions (B, N, 3)."""
    model = tiny_model()
    pixels, indices, positions = clip(), torch.tensor([[0, 9, 4], [35, 2, 1]]), torch.randint(0, 9, (2, 3, 3))
    packed = model.pack(pixels, indices, positions)
    expected = model(pixels, indices, positions).last_hidden_state
    assert relative_error(torch.stack(model.unpack(model(**packed).last_hidden_state, packed)), expected) < 1e-5
    images = model.pack(pixels[:, :, 0])
    assert relative_error(model(**images).pooler_output, model(pixels[:, :, 0]).pooler_output) < 1e-5


@torch.no_grad()
def test_pixels_and_packs_are_merged_alike():
    model = tiny_model(out_hidden_size=48, spatial_merge_size=2)
    pixels = clip(batch=2, frames=2, height=32, width=48)
    packed = model.pack(pixels)
    merged = unpack(model(**packed).merged_states, packed)
    assert relative_error(torch.stack(merged), model(pixels).merged_states) < 1e-5
    assert model(pixels).merged_states.shape == (2, 12, 48)
    assert tiny_model()(clip()).merged_states is None
    blocks = torch.tensor([[24, 25, 30, 31], [2, 3, 8, 9]])  # whole blocks are a selection that can be merged
    assert relative_error(model(pixels, blocks).merged_states[1, 0], merged[1][1]) > 1e-3  # they see fewer patches
    assert model(pixels, blocks).merged_states.shape == (2, 1, 48)


def good(**changes):
    inputs = pack(tiny_config(), [clip()[0], clip(height=8)[0]])
    return {name: value for name, value in {**inputs, **changes}.items() if value is not None}


SUMS = torch.tensor([0, 36, 45])
BAD = {
    "neither grid nor sums": (good(grid_thw=None), "needs grid_thw or cu_seqlens.*got neither"),
    "both": (good(cu_seqlens=SUMS), "exclude each other, got both"),
    "too few patches": (good(pixel_values=torch.randn(44, 192), patch_positions=None), "45 patches, pixel_values 44"),
    "too many patches": (good(pixel_values=torch.randn(46, 192), patch_positions=None), "45 patches, pixel_values 46"),
    "wrong width": (good(pixel_values=torch.randn(45, 191)), r"\(P, 192\), got torch.float32 of shape \(45, 191\)"),
    "integer patches": (good(pixel_values=torch.ones(45, 192).long()), "floating point.*got torch.int64"),
    "no patches": (good(pixel_values=None) | dict(pixel_values=None), "must be a torch.Tensor, got NoneType"),
    "batched patches": (good(pixel_values=torch.randn(1, 45, 192)), r"got torch.float32 of shape \(1, 45, 192\)"),
    "video with a grid": (good(pixel_values=clip()), "pixel_values of a pack"),
    "flat grid": (
        good(grid_thw=torch.tensor([3, 4, 3])),
        r"grid_thw must be integers of shape \(n, 3\), got torch.int64 of shape \(3,\)",
    ),
    "grid of two sizes": (
        good(grid_thw=torch.tensor([[3, 4], [3, 1]])),
        r"shape \(n, 3\), got torch.int64 of shape \(2, 2\)",
    ),
    "float grid": (
        good(grid_thw=torch.tensor([[3.0, 4, 3], [3, 1, 3]])),
        "grid_thw must be integers.*got torch.float32",
    ),
    "boolean grid": (good(grid_thw=torch.ones(2, 3).bool()), "grid_thw must be integers.*got torch.bool"),
    "empty grid": (good(grid_thw=torch.zeros(0, 3).long()), r"grid_thw must be integers.*\(0, 3\)"),
    "grid as text": (good(grid_thw="3x4x3"), "grid_thw must be integers.*got 3x4x3"),
    "sample without patches": (
        good(grid_thw=torch.tensor([[3, 4, 3], [0, 1, 3]])),
        r"positive numbers, got \(0, 1, 3\) for sample 1",
    ),
    "negative grid": (good(grid_thw=torch.tensor([[3, 4, 3], [-3, -1, 3]])), "positive numbers.* for sample 1"),
    "sums that do not start at 0": (
        good(grid_thw=None, cu_seqlens=torch.tensor([1, 36, 45])),
        r"start with 0.*got \[1, 36, 45\]",
    ),
    "sums without a sample": (good(grid_thw=None, cu_seqlens=torch.tensor([0])), r"S \+ 1 prefix sums, got \[0\]"),
    "sums that fall": (good(grid_thw=None, cu_seqlens=torch.tensor([0, 46, 45])), r"must rise.*got \[0, 46, 45\]"),
    "empty sample": (
        good(grid_thw=None, cu_seqlens=torch.tensor([0, 36, 36, 45])),
        "must rise, every sample has a patch",
    ),
    "sums that end early": (good(grid_thw=None, cu_seqlens=torch.tensor([0, 36])), "36 patches, pixel_values 45"),
    "sums that end late": (good(grid_thw=None, cu_seqlens=torch.tensor([0, 36, 46])), "46 patches, pixel_values 45"),
    "float sums": (good(grid_thw=None, cu_seqlens=SUMS.float()), "cu_seqlens must be integers.*got torch.float32"),
    "sums of two dimensions": (
        good(grid_thw=None, cu_seqlens=SUMS[None]),
        r"integers of shape \(n,\), got torch.int64 of shape \(1, 3\)",
    ),
    "sums without positions": (good(grid_thw=None, cu_seqlens=SUMS, patch_positions=None), "needs patch_positions"),
    "too few positions": (good(patch_positions=torch.zeros(44, 3)), r"= \(45, 3\), got shape \(44, 3\)"),
    "batched positions": (good(patch_positions=torch.zeros(1, 45, 3)), r"= \(45, 3\), got shape \(1, 45, 3\)"),
    "complex positions": (good(patch_positions=torch.zeros(45, 3, dtype=torch.complex64)), "got torch.complex64"),
    "selection beside the pack": (good(visible_indices=torch.tensor([[1]])), r"pass visible_indices to pack\(\)"),
    "flat patches alone": (dict(pixel_values=torch.randn(45, 192)), "needs grid_thw or cu_seqlens"),
    "grid on the meta device": (good(grid_thw=torch.ones(2, 3, device="meta").long()), "grid_thw must hold values"),
}


@torch.no_grad()
def test_bad_packs():
    for model_class in (LlavaViTModel, LlavaViTForVideoClassification):
        model = tiny_model(model_class)
        assert model(**good(patch_positions=None))[0] is not None
        for name, (inputs, message) in BAD.items():
            with pytest.raises(ValueError, match=message):
                pytest.fail(f"{name}: {model(**inputs)[0].shape}")


@torch.no_grad()
def test_windows_need_whole_samples():
    model = tiny_model(frame_windows_size=2)
    with pytest.raises(ValueError, match="frame_windows_size = 2 needs grid_thw"):
        model(**good(grid_thw=None, cu_seqlens=SUMS))
    with pytest.raises(ValueError, match="select from 3 frames.*frame_windows_size = 2"):
        model(clip(), torch.tensor([[0], [1]]))
    assert model(clip(frames=2), torch.tensor([[0], [1]])).last_hidden_state.shape == (2, 1, 64)


BAD_SAMPLES = {
    "no samples": (([],), "at least one sample"),
    "a path": ((["photo.jpg"],), "sample 0: a sample must be an image .* got photo.jpg"),
    "frames first": (([clip()[0], clip()[0].transpose(0, 1)[:2]],), "sample 1: pixel_values must have 3 channels"),
    "broken patches": (
        ([clip(height=30)[0]],),
        "sample 0: height and width must be multiples of the patch size 8, got 30 x 24",
    ),
    "two entries for one sample": (
        ([clip()[0]], [None, None]),
        "visible_indices must have an entry for each of 1 samples, got 2",
    ),
    "a selection that is a list": (
        ([clip()[0]], [[0, 5, 9]]),
        "sample 0: visible_indices must be a torch.Tensor, got list",
    ),
    "one position too few": (
        ([clip()[0]], None, [torch.zeros(35, 3)]),
        r"sample 0: patch_positions .*\(36, 3\), got shape \(35, 3\)",
    ),
    "index beyond": (([clip()[0]], [torch.tensor([36])]), r"sample 0: visible_indices must lie in \[0, 36\)"),
    "place beyond the grid": (
        ([clip()[0]], [torch.arange(36) + 64 * 12]),
        r"lie in \[0, 768\) .*rope_temporal_size.* 768 to 803",
    ),
    "residual of another size": (
        ([clip()[0]], [torch.zeros(1, 3, 8, 8)]),
        "sample 0: a residual given as visible_indices",
    ),
}


def test_bad_samples():
    for name, (arguments, message) in BAD_SAMPLES.items():
        with pytest.raises(ValueError, match=message):
            pytest.fail(f"{name}: {pack(tiny_config(), *arguments)}")
    with pytest.raises(ValueError, match="merged_states join 2 x 2 patches, into which 4 x 3 do not divide"):
        pack(tiny_config(out_hidden_size=8), [clip()[0]])
    with pytest.raises(ValueError, match="states must have the 36 patches"):
        unpack(torch.zeros(35, 4), pack(tiny_config(), [clip()[0]]))


@torch.no_grad()
def test_what_cannot_be_merged_is_refused():
    model = tiny_model(out_hidden_size=8)
    with pytest.raises(ValueError, match="join 2 x 2 patches, into which 4 x 3 do not divide"):
        model(clip())
    with pytest.raises(ValueError, match="neighbours, which these patches are not"):
        model(torch.randn(16, 192), grid_thw=[[1, 4, 4]])  # row by row
    with pytest.raises(ValueError, match="none left over"):
        model(clip(width=32), torch.tensor([[0, 1, 4], [0, 1, 4]]))
