# SPDX-License-Identifier: Apache-2.0
"""What a caller gets: shapes, optional outputs, tuples, dtypes, and independence of the batch."""

import pytest
import torch
from llava_vit_helpers import clip, tiny_model
from measure import OUTPUTS, close, relative_error

from llavavit import LlavaViTForImageClassification, LlavaViTForVideoClassification

CLASSIFIERS = [LlavaViTForImageClassification, LlavaViTForVideoClassification]


@torch.no_grad()
def test_last_hidden_state_entry_is_before_post_norm():
    model = tiny_model()
    outputs = model(clip(), output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    assert not close(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert close(model.layernorm_post(outputs.hidden_states[-1]), outputs.last_hidden_state)


@torch.no_grad()
def test_without_a_head_nothing_is_post_normed_or_pooled():
    model = tiny_model(use_head=False)
    outputs = model(clip(), output_hidden_states=True)
    assert close(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert outputs.pooler_output is None
    assert not [name for name in model.state_dict() if name.startswith(("head", "layernorm_post"))]


@torch.no_grad()
def test_optional_outputs_are_absent_unless_asked():
    outputs = tiny_model()(clip())
    assert set(outputs.keys()) == {"last_hidden_state", "pooler_output"}


@torch.no_grad()
def test_the_configuration_can_ask_for_outputs():
    model = tiny_model(output_hidden_states=True)
    assert len(model(clip()).hidden_states) == 3
    assert model(clip(), output_hidden_states=False).hidden_states is None


@torch.no_grad()
def test_chosen_hidden_states_are_returned_alone():
    for model in (tiny_model(), tiny_model(LlavaViTForImageClassification)):
        every = model(clip(), output_hidden_states=True).hidden_states
        for asked, kept in (([2], {2}), ([0, -1], {0, 2}), ((1,), {1}), (-2, {1})):
            states = model(clip(), output_hidden_states=asked).hidden_states
            assert {i for i, state in enumerate(states) if state is not None} == kept
            assert all(torch.equal(states[i], every[i]) for i in kept) and len(states) == 3
        assert model(clip(), output_hidden_states=[]).hidden_states is None


@torch.no_grad()
def test_places_beyond_the_pixels_move_the_patches_of_their_row_alone():
    """As many indices as patches, some beyond them: all patches in their own order, at those places."""
    model = tiny_model(rope_temporal_size=16)
    places = torch.stack([torch.arange(36) + 12 * 5, torch.randperm(36)])
    got = model(clip(), visible_indices=places).last_hidden_state
    positions = torch.stack([places // 12, places // 3 % 4, places % 3], -1)
    assert relative_error(got[:1], model(clip()[:1], patch_positions=positions[:1]).last_hidden_state) < 1e-5
    assert relative_error(got[1:], model(clip()[1:], places[1:]).last_hidden_state) < 1e-5  # a permutation as before


@torch.no_grad()
def test_attentions_are_probabilities_whatever_the_backend():
    pixels = clip()
    outputs = {name: tiny_model(attn_implementation=name)(pixels, output_attentions=True) for name in ("eager", "sdpa")}
    for output in outputs.values():
        assert [tuple(a.shape) for a in output.attentions] == [(2, 2, 36, 36)] * 2
        assert close(output.attentions[0].sum(-1), torch.ones(2, 2, 36))
    assert close(outputs["eager"].attentions[1], outputs["sdpa"].attentions[1])
    assert relative_error(outputs["sdpa"].last_hidden_state, tiny_model()(pixels).last_hidden_state) <= OUTPUTS


@torch.no_grad()
def test_return_dict_false_gives_the_same_values_as_a_tuple():
    model, pixels = tiny_model(), clip()
    named = model(pixels, output_hidden_states=True, output_attentions=True)
    plain = model(pixels, output_hidden_states=True, output_attentions=True, return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == 4
    assert close(plain[0], named.last_hidden_state) and close(plain[1], named.pooler_output)
    assert close(plain[2][1], named.hidden_states[1]) and close(plain[3][0], named.attentions[0])


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@torch.no_grad()
def test_classifiers_return_all_logits(model_class):
    model = tiny_model(model_class, num_labels=5)
    outputs = model(clip(), output_hidden_states=True, output_attentions=True)
    assert outputs.logits.shape == (2, 5) and outputs.loss is None
    assert len(outputs.hidden_states) == 3 and len(outputs.attentions) == 2
    expected = model.classifier(model.llava_vit(clip()).pooler_output)
    assert close(outputs.logits, expected)
    assert close(model(clip(), return_dict=False)[0], model(clip()).logits)


@torch.no_grad()
def test_a_classifier_without_a_head_averages_the_tokens():
    model = tiny_model(LlavaViTForImageClassification, use_head=False, num_labels=5)
    expected = model.classifier(model.llava_vit(clip()).last_hidden_state.mean(1))
    assert close(model(clip()).logits, expected)


@torch.no_grad()
def test_a_classifier_takes_sparse_input_and_positions():
    model = tiny_model(LlavaViTForVideoClassification, num_labels=5)
    indices, positions = torch.tensor([[3, 30], [0, 1]]), torch.randint(0, 9, (2, 2, 3))
    pooled = model.llava_vit(clip(), visible_indices=indices, patch_positions=positions).pooler_output
    got = model(clip(), visible_indices=indices, patch_positions=positions).logits
    assert close(got, model.classifier(pooled))


@torch.no_grad()
def test_an_image_is_a_video_of_one_frame():
    model, pixels = tiny_model(), clip(frames=1)
    assert close(model(pixels[:, :, 0]).last_hidden_state, model(pixels).last_hidden_state)


@torch.no_grad()
def test_explicit_positions_of_the_grid_change_nothing():
    model = tiny_model()
    index = torch.arange(36)
    positions = torch.stack([index // 12, index // 3 % 4, index % 3], -1).expand(2, -1, -1)
    expected = model(clip()).last_hidden_state
    for dtype in (torch.int32, torch.int64, torch.float32, torch.float16):
        assert close(model(clip(), patch_positions=positions.to(dtype)).last_hidden_state, expected)


@torch.no_grad()
def test_a_permutation_of_all_patches_permutes_the_tokens():
    model, order = tiny_model(), torch.stack([torch.randperm(36), torch.randperm(36)])
    everything = model(clip()).last_hidden_state
    got = model(clip(), visible_indices=order).last_hidden_state
    expected = everything.gather(1, order[:, :, None].expand(-1, -1, 64))
    assert relative_error(got, expected) <= OUTPUTS
    narrow = model(clip(), visible_indices=order.to(torch.uint8)).last_hidden_state
    assert close(narrow, got)


@torch.no_grad()
def test_patches_that_are_not_visible_do_not_matter():
    model, pixels = tiny_model(), clip()
    indices = torch.tensor([[0, 5], [7, 2]])
    expected = model(pixels, visible_indices=indices).last_hidden_state
    changed = pixels.clone()
    changed[:, :, 1:] = float("nan")  # patches 12 to 35
    assert close(model(changed, visible_indices=indices).last_hidden_state, expected)


@pytest.mark.parametrize("sparse", [False, True])
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch(sparse):
    model, pixels = tiny_model(), clip(batch=5)
    indices = torch.stack([torch.randperm(36)[:9] for _ in range(5)]) if sparse else None
    together = model(pixels, visible_indices=indices)
    for i in range(5):
        alone = model(pixels[i : i + 1], visible_indices=indices[i : i + 1] if sparse else None)
        assert relative_error(alone.last_hidden_state, together.last_hidden_state[i : i + 1]) <= OUTPUTS
        assert relative_error(alone.pooler_output, together.pooler_output[i : i + 1]) <= OUTPUTS


@pytest.mark.parametrize("frames, height, width", [(1, 8, 8), (1, 8, 80), (5, 40, 16)])
@torch.no_grad()
def test_any_size_in_whole_patches(frames, height, width):
    outputs = tiny_model()(clip(frames=frames, height=height, width=width))
    assert outputs.last_hidden_state.shape == (2, frames * (height // 8) * (width // 8), 64)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 5e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@torch.no_grad()
def test_half_precision(dtype, tolerance, backend, norm):
    settings = dict(attn_implementation=backend, layer_norm_type=norm)
    expected = tiny_model(**settings)(clip())
    outputs = tiny_model(**settings).to(dtype)(clip())  # pixels stay float32: the model casts them
    assert outputs.last_hidden_state.dtype == outputs.pooler_output.dtype == dtype
    assert relative_error(outputs.last_hidden_state, expected.last_hidden_state) < tolerance
    assert relative_error(outputs.pooler_output, expected.pooler_output) < tolerance


@torch.no_grad()
def test_the_mean_of_many_tokens_does_not_overflow_in_float16():
    model = tiny_model(LlavaViTForImageClassification, use_head=False, num_labels=3)
    model.llava_vit.encoder.layers[-1].mlp.fc2.bias.fill_(3000.0)  # of 36 tokens the sum is beyond float16
    inputs = {"pixels": {"pixel_values": clip(batch=1)}, "a pack": model.pack([clip(batch=1)[0]])}
    for name, keywords in inputs.items():
        expected = model.float()(**keywords).logits
        assert relative_error(model.half()(**keywords).logits, expected) < 0.01, name


@torch.no_grad()
def test_half_precision_keeps_far_positions_apart():
    """Angles are made in float32: in bfloat16, frames 1000 and 1001 would stand in the same place."""
    model = tiny_model().to(torch.bfloat16)
    positions = torch.zeros(1, 36, 3, dtype=torch.long)
    positions[:, ::2, 0] = 1000
    near = model(clip(batch=1), patch_positions=positions).last_hidden_state
    positions[:, ::2, 0] = 1001
    assert not close(model(clip(batch=1), patch_positions=positions).last_hidden_state, near)


@torch.no_grad()
def test_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = tiny_model()(clip())
    assert relative_error(outputs.last_hidden_state, tiny_model()(clip()).last_hidden_state) < 5e-2


@torch.no_grad()
def test_the_callers_tensors_are_left_alone():
    pixels, indices, positions = clip(), torch.tensor([[5, 1], [0, 2]]), torch.randint(0, 9, (2, 2, 3))
    copies = [x.clone() for x in (pixels, indices, positions)]
    tiny_model()(pixels, indices, positions)
    for tensor, copy in zip((pixels, indices, positions), copies):
        assert torch.equal(tensor, copy)


@torch.no_grad()
def test_pixels_need_not_be_contiguous():
    model, pixels = tiny_model(), clip()
    strided = pixels.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not strided.is_contiguous()
    assert close(model(strided).last_hidden_state, model(pixels).last_hidden_state)
    indices = torch.tensor([[5, 1], [0, 2]])
    assert close(model(strided, indices).last_hidden_state, model(pixels, indices).last_hidden_state)
