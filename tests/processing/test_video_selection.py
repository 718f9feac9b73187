"""Which patches of a clip are kept: recall on clips of known motion, agreement between codecs, the rules of the selection."""

import numpy as np
import pytest
from video_clips import moving_object, write_all

from llavavit import LlavaViTVideoProcessor
from llavavit.video_selection_llava_vit import (
    CodecEnergy,
    patch_positions,
    predict,
    sample_indices,
    select_patches,
    vector_field,
)

PATCH = 14


def kept(scores, budget, **kwargs):
    return select_patches(np.asarray(scores, dtype=np.float64), PATCH, budget, **kwargs).tolist()


def moving(shape):
    """Scores high enough everywhere that the clip counts as moving."""
    return np.random.default_rng(0).uniform(20, 190, shape)


@pytest.mark.parametrize("pan", [False, True])
def test_recall_of_what_the_object_covers_or_uncovers(pan):
    recalls = {"codec": [], "difference": [], "random": []}
    for seed in range(3):
        clip = moving_object(seed, pan, frames=24)
        changed = clip.changed_patches(PATCH)
        budget = 2 * int(changed.sum())
        for selection in ("codec", "difference"):
            processor = LlavaViTVideoProcessor(selection=selection, max_visible_patches=budget)
            chosen = processor(videos=clip.frames)["visible_indices"][0]
            recalls[selection].append(changed[chosen].sum() / changed.sum())
        recalls["random"].append(budget / changed.size)
    means = {selection: float(np.mean(values)) for selection, values in recalls.items()}
    assert means["codec"] >= (0.90 if pan else 0.95), means
    assert means["codec"] > means["difference"] + 0.2 if pan else means["difference"] >= 0.95, means
    assert means["codec"] > means["random"] + 0.5, means


@pytest.mark.parametrize("selection", ["codec", "difference"])
def test_every_codec_selects_the_same_patches(selection, tmp_path):
    clip = moving_object(3, frames=24)
    processor = LlavaViTVideoProcessor(max_visible_patches=400, selection=selection)
    expected = set(processor(videos=list(clip.frames))["visible_indices"][0].tolist())
    for path in write_all(tmp_path, clip.frames):
        if (
            selection == "difference" and path.suffix == ".gif"
        ):  # the dither of 256 colours is a difference, and not a small one
            continue
        chosen = set(processor(videos=path)["visible_indices"][0].tolist())
        assert len(chosen & expected) >= 0.9 * len(expected), (path.name, len(chosen & expected) / len(expected))


def test_motion_vectors_predict_to_the_bit():
    """A picture that only moves is predicted without a remainder wherever the codec coded none."""
    big = moving_object(1, frames=1, size=252).frames[0, ..., 0]
    codec = CodecEnergy(224)
    pairs = []
    codec._energy = lambda reference, current, vectors: pairs.append((reference, current, vectors))
    codec.add(big[8:232, 8:232], big[11:235, 13:237])
    codec.finish()
    ((reference, current, vectors),) = pairs
    motion, known = vector_field(vectors, 224)
    assert np.median(motion[known], axis=0).tolist() == [20, 12]  # quarter pixels: 5 to the right, 3 down
    exact = (predict(reference, motion) == current).reshape(28, 8, 28, 8).all(axis=(1, 3))
    assert exact[known].mean() > 0.9


def test_half_pixel_prediction_is_what_the_decoder_makes():
    """Every quarter position: nearly all blocks of a scaled-down pan are decoded without a residual, so must equal the prediction."""
    wide = moving_object(2, frames=1, size=560).frames[0, ..., 0].astype(np.uint16)
    small = (wide[0::2, 0::2] + wide[1::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 1::2] + 2 >> 2).astype(np.uint8)
    moved = (wide[1:-1:2, 1:-1:2] + wide[2::2, 1:-1:2] + wide[1:-1:2, 2::2] + wide[2::2, 2::2] + 2 >> 2).astype(
        np.uint8
    )
    codec, pairs = CodecEnergy(224), []
    codec._energy = lambda reference, current, vectors: pairs.append((reference, current, vectors))
    codec.add(small[8:232, 8:232], moved[8:232, 8:232])
    codec.finish()
    reference, current, vectors = pairs[0]
    motion, known = vector_field(vectors, 224)
    fractional = known & ((motion & 3).any(axis=-1))
    exact = (predict(reference, motion) == current).reshape(28, 8, 28, 8).all(axis=(1, 3))
    assert fractional.sum() > 300
    assert exact[fractional].mean() > 0.5


@pytest.mark.parametrize("size", [14, 56, 70, 98])
def test_sizes_that_are_no_whole_macroblocks(size):
    clip = moving_object(0, frames=6, size=98)
    features = LlavaViTVideoProcessor(size=size, max_visible_patches=20)(videos=clip.frames)
    assert features["pixel_values"].shape == (1, 3, 6, size, size)
    assert len(features["visible_indices"][0]) == min(20, 6 * (size // PATCH) ** 2)


def test_highest_scores_are_kept_in_order_and_ties_go_to_the_earlier():
    scores = np.full((2, 2, 2), 100.0)
    scores[1, 0, 1], scores[0, 1, 1] = 150, 140
    assert kept(scores, 2) == [3, 5]
    assert kept(scores, 4) == [0, 1, 3, 5]
    assert kept(scores, 99) == list(range(8))


def test_the_first_frame_is_kept_whole():
    scores = moving((4, 2, 2))
    scores[0] = 0
    assert kept(scores, 6, keep_first_frame=True)[:4] == [0, 1, 2, 3]
    assert kept(scores, 2, keep_first_frame=True) == [0, 3]  # evenly thinned where the budget is smaller
    assert 0 not in kept(scores, 6)


def test_a_still_clip_keeps_four_frames_whole():
    scores = np.zeros((64, 16, 16))
    whole = [frame * 256 + place for frame in (0, 21, 42, 63) for place in range(256)]
    chosen = kept(scores, 2048)
    assert len(chosen) == 2048 and set(whole) <= set(chosen)
    assert set(kept(scores, 100)) < set(whole)
    assert len(set(index // 256 for index in kept(scores, 100))) == 4
    flat = np.full((64, 16, 16), 3.5 / 255 * PATCH**2)  # little, and the same everywhere
    assert set(whole) <= set(kept(flat, 2048))
    assert not set(whole) <= set(
        kept(np.linspace(0, 3.9, 64 * 256).reshape(64, 16, 16) / 255 * PATCH**2, 2048)
    )  # little, but uneven


def test_the_still_rule_is_the_plain_one_wherever_the_budget_holds_both():
    """Moving patches first, then whole frames, then the rest: the same set as whole frames first."""
    scores = np.zeros((64, 16, 16))
    scores[5:30, 4:8, 4:9] = np.random.default_rng(1).uniform(5, 190, (25, 4, 5))
    plain = np.zeros(scores.size, dtype=bool)
    plain[[frame * 256 + place for frame in (0, 21, 42, 63) for place in range(256)]] = True
    for index in np.argsort(-scores.reshape(-1), kind="stable"):
        plain[index] |= plain.sum() < 2048
    assert kept(scores, 2048) == np.flatnonzero(plain).tolist()
    assert set(kept(scores, 600)) >= set(
        np.flatnonzero(scores.reshape(-1)).tolist()
    )  # a small budget goes to what moves


def test_sampling_and_positions():
    assert sample_indices(300, 64).tolist() == [int(place) for place in np.linspace(0, 299, 64)]
    assert sample_indices(5, 64).tolist() == [0, 1, 2, 3, 4]
    assert patch_positions(np.array([0, 17, 300]), 64, 16, 64).tolist() == [[0, 0, 0], [0, 1, 1], [1, 2, 12]]
    assert patch_positions(np.array([0, 4, 8, 12]), 4, 2, 64)[:, 0].tolist() == [0, 21, 42, 63]
    assert patch_positions(np.array([0, 4, 8, 12]), 4, 2, 4)[:, 0].tolist() == [0, 1, 2, 3]
    assert patch_positions(np.array([0, 4, 8, 12]), 4, 2, 2)[:, 0].tolist() == [0, 0, 0, 1]  # frames share a place


def test_a_panning_camera_alone_moves_nothing():
    """Of a pure pan nothing is left to follow, so that four frames are kept whole as in a still clip."""
    wide = moving_object(4, frames=1, size=350).frames[0]
    pan = np.stack([wide[2 * step : 224 + 2 * step, 5 * step : 224 + 5 * step] for step in range(16)])
    whole = [frame * 256 + place for frame in (0, 5, 10, 15) for place in range(256)]
    chosen = LlavaViTVideoProcessor(max_visible_patches=1200)(videos=pan)["visible_indices"][0]
    assert len(set(whole) & set(chosen.tolist())) >= 0.95 * len(whole)
