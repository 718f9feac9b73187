"""The benchmark's cases of their own, on clips so small that they measure nothing but themselves."""

import json
import sys

import av
import benchmark
import numpy as np
import pytest
from hubtools.benchmarks import OWN_CASES, video_digits, video_file, video_recall
from hubtools.clips import moving_object, unlike_object, write_repeated, write_video
from small import call

TINY = video_file.Sizes(frames=6, height=48, width=64, longer=3, clips=2, workers=(0, 1))


@pytest.mark.parametrize("case", OWN_CASES)
def test_a_case_without_models_takes_no_reference(case):
    result = call(benchmark.main, "--case", case, "--reference", "mine.py:Mine")
    assert result.code == 2 and "--reference" in result.err and result.err.count("\n") == 1, result.err


def test_without_pyav_the_case_is_refused(monkeypatch):
    monkeypatch.setattr("hubtools.clips.av", None)
    result = call(benchmark.main, "--case", "tiff", "--case", "video-file")
    assert result.code == 2 and "pip install av" in result.err and not result.out, result.err


def test_video_file_from_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(video_file.measure, "__defaults__", (TINY,))
    monkeypatch.setattr(video_file, "in_a_process", in_this_process)
    result = call(benchmark.main, "--case", "video-file", "--repeats", "1", "--json", tmp_path / "result.json")
    assert result.code == 0, result.err
    measured = json.loads(result.out.splitlines()[-1])["results"][0]
    assert measured == json.loads((tmp_path / "result.json").read_text())["results"][0]
    ratios = measured["times_decoding_alone"]
    assert ratios["decoding"]["clock"] == 1 and ratios["processing, codec"]["clock"] > 0
    assert list(measured["peak_bytes"]) == ["6", "18"] and all(size > 0 for size in measured["peak_bytes"].values())
    assert set(measured["clips_per_second"]) == {"0", "1"}


def in_this_process(part, *arguments):
    *given, threads = map(str, arguments)
    return getattr(video_file, part)(*given)


def test_a_part_that_fails_is_told(tmp_path, warm, monkeypatch):
    monkeypatch.setattr(sys, "executable", warm.command)
    with pytest.raises(video_file.UserError, match="video-file, times: .*none.mp4"):
        video_file.in_a_process("times", tmp_path / "none.mp4", 1, 1)


def test_the_clip_is_the_same_every_time_and_the_long_one_holds_it_so_many_times(tmp_path):
    clips = [video_file.make_clip(tmp_path / name, TINY) for name in ("one.mp4", "other.mp4")]
    assert clips[0].read_bytes() == clips[1].read_bytes()
    longer = write_repeated(clips[0], 3, tmp_path / "longer.mp4")
    frames = [pictures(path) for path in (clips[0], longer)]
    assert len(frames[0]) == 6 and np.array_equal(np.tile(frames[0], (3, 1, 1, 1)), frames[1])


def pictures(path):
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_recall_is_measured_for_every_selection_and_camera():
    rows = video_recall.measure(1, 1, clips=1, frames=8)["recalls"]
    assert [(row["kind"], row["camera"]) for row in rows] == [
        (kind, camera) for kind in ("familiar", "unlike") for camera in ("still", "panning")
    ]
    for row in rows:
        recall = {name: value["mean"] for name, value in row["recall"].items()}
        assert set(recall) == set(video_recall.SELECTIONS) and recall["codec"] > recall["random"] + 0.3, row
        assert min(row["agreement"].values()) > 0.8, row


def test_codec_keeps_what_moves_in_clips_that_nothing_was_tuned_on():
    """The constants of the selection were chosen on `moving_object`."""
    recalls = {True: [], False: []}
    for seed in (0, 2):  # in so short a clip of seed 1 the object soon moves along with the background
        for pan in recalls:
            recalls[pan].append(video_recall.recalls_of(unlike_object(seed, pan, frames=20))["codec"])
    assert np.mean(recalls[False]) >= 0.95 and np.mean(recalls[True]) >= 0.90, recalls


def test_the_streams_own_vectors_follow_what_moves(tmp_path):
    """What they are compared with must be done right: a moving object before a still camera has most of their energy."""
    clip = moving_object(3, frames=12)
    path = write_video(tmp_path / "clip.mp4", clip.frames, options={"bf": "0"})
    scores, changed = video_recall.stream_scores(path, 14), clip.changed_patches(14)
    assert scores[changed].mean() > 5 * scores[~changed].mean()


def test_digits_before_a_panning_texture():
    result = video_digits.measure(1, 1, clips=16, steps=1, held_out=16)
    assert result["patches"] == 27 and set(result["accuracy"]) == {"codec", "difference", "random"}
    items = [video_digits.moving_digits.TrainingClips(0, 12)[number] for number in range(12)]
    clips, _ = video_digits.panned(items, seed=1)
    ink = np.stack([item["clip"] for item in items]).reshape(12, 6, 6, 8, 6, 8).sum(axis=(3, 5)).reshape(12, -1)
    seen = {}
    for selection in video_digits.SELECTIONS:
        chosen = video_digits.chosen_patches(clips, selection, 27)["visible_indices"].numpy()
        assert chosen.shape == (12, 27) and (np.diff(chosen) > 0).all()
        seen[selection] = np.take_along_axis(ink, chosen, axis=1).sum() / ink.sum()
    assert seen["codec"] > seen["difference"] > seen["random"], seen
