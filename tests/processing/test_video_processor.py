"""The video processor on what users hold: files of many kinds, frames, damaged and foreign files; and what it gives."""

import io
import pickle
import struct
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from video_clips import ENCODERS, moving_object, write_all, write_sound, write_video

from llavavit import (
    LlavaViTConfig,
    LlavaViTModel,
    LlavaViTVideoProcessor,
    video_processing_llava_vit,
    video_reading_llava_vit,
)

CLIP_SETTINGS = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 56},
    "crop_size": {"height": 56, "width": 56},
}


def processor(**kwargs):
    return LlavaViTVideoProcessor(**{"num_frames": 8, "size": 56, "max_visible_patches": 40, **kwargs})


@pytest.fixture(scope="module")
def frames():
    return moving_object(0, frames=20, size=98).frames[:, :, :70]  # upright: 98 x 70


@pytest.fixture(scope="module")
def files(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp("clips")
    write_all(folder, frames)
    write_video(folder / "lossless.mkv", frames, "ffv1", "bgr0")
    return folder


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in ("pixel_values", "visible_indices", "patch_positions"))


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_the_model_takes_what_comes_out(files):
    inputs = processor()(videos=files / "h264.mp4", return_tensors="pt")
    assert {key: tuple(value.shape) for key, value in inputs.items()} == {
        "pixel_values": (1, 3, 8, 56, 56), "visible_indices": (1, 40), "patch_positions": (1, 40, 3),
    }  # fmt: skip
    assert inputs.frame_indices == [[0, 2, 5, 8, 10, 13, 16, 19]]
    assert inputs.frame_times[0] == pytest.approx([number / 25 for number in inputs.frame_indices[0]])
    config = LlavaViTConfig(
        hidden_size=32, num_attention_heads=1, intermediate_size=32, num_hidden_layers=1, patch_size=14
    )
    assert LlavaViTModel(config)(**inputs).last_hidden_state.shape == (1, 40, 32)
    again = pickle.loads(pickle.dumps(inputs))
    assert again.frame_times == inputs.frame_times and torch.equal(again["pixel_values"], inputs["pixel_values"])


def test_positions_are_those_of_the_kept_patches_on_a_grid_of_64(files):
    inputs = processor()(videos=files / "h264.mp4", return_tensors="np")
    indices, positions = inputs["visible_indices"][0], inputs["patch_positions"][0]
    assert np.array_equal(indices, np.sort(indices)) and len(np.unique(indices)) == 40
    on_grid = np.linspace(0, 63, 8).astype(int)
    assert np.array_equal(positions, np.stack((on_grid[indices // 16], indices % 16 // 4, indices % 4), axis=-1))


def test_pixels_are_those_of_the_clip_image_processor(frames):
    transformers = pytest.importorskip("transformers")
    clip = transformers.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    expected = clip([Image.fromarray(frame) for frame in frames[:3]], return_tensors="np")["pixel_values"]
    given = processor(selection=None)(videos=frames[:3])["pixel_values"][0]
    level = 1 / 255 / 0.26130258
    assert np.abs(given.transpose(1, 0, 2, 3) - expected).max() < 1.01 * level
    assert np.abs(given.transpose(1, 0, 2, 3) - expected).mean() < 0.02 * level


def test_a_file_is_its_frames_in_every_form(files, frames):
    expected = processor()(videos=files / "lossless.mkv")
    data = (files / "lossless.mkv").read_bytes()
    forms = [
        str(files / "lossless.mkv"), data, bytearray(data), io.BytesIO(data), [files / "lossless.mkv"], frames, list(frames),
        [Image.fromarray(frame) for frame in frames], torch.from_numpy(frames.copy()), frames.transpose(0, 3, 1, 2), frames[None],
        [torch.from_numpy(frame.copy()).permute(2, 0, 1) for frame in frames], frames.astype(np.int64), frames / 255,
    ]  # fmt: skip
    for number, form in enumerate(forms):
        assert same(processor()(videos=form), expected), number
    with (files / "lossless.mkv").open("rb") as file:
        assert same(processor()(videos=file), expected)
        assert same(processor()(videos=file), expected)  # read from where it stood


def test_dense_and_difference_and_overrides(frames):
    dense = processor()(videos=frames, selection=None, num_frames=4)
    assert dense["visible_indices"].tolist() == [list(range(64))] and dense["pixel_values"].shape[2] == 4
    first = processor(keep_first_frame=True)(videos=frames, selection="difference")
    assert first["visible_indices"][0, :16].tolist() == list(range(16))
    assert processor()(videos=frames, do_sample_frames=False)["pixel_values"].shape[2] == 20
    assert processor()(videos=frames, fps=10).frame_times[0][1] == pytest.approx(0.2)
    assert processor()(videos=frames).frame_times[0][1] is None


def test_clips_shorter_than_the_frames_wanted_use_each_frame_once(tmp_path, frames):
    path = write_video(tmp_path / "short.mp4", frames[:5])
    inputs = processor()(videos=path)
    assert inputs.frame_indices == [[0, 1, 2, 3, 4]] and inputs["pixel_values"].shape[2] == 5
    batch = processor()(videos=[path, frames])  # the shorter one gets empty frames behind
    assert batch["pixel_values"].shape[2] == 8 and not batch["pixel_values"][0, :, 5:].any()
    assert (
        np.array_equal(batch["visible_indices"][0], inputs["visible_indices"][0])
        and batch["visible_indices"][0].max() < 80
    )
    single = processor()(videos=write_video(tmp_path / "one.mp4", frames[:1]))
    assert single["visible_indices"].tolist() == [list(range(16))]


def test_rotation_metadata_is_applied(tmp_path, files, frames):
    """A telephone's clip: stored lying, and a matrix in the header that says how to hold it."""
    lying = np.ascontiguousarray(np.rot90(frames, 1, axes=(1, 2)))
    data = bytearray(write_video(tmp_path / "lying.mov", lying, "png", "rgb24").read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[place : place + 36])[0] == 1 << 16
    for matrix, turned in (
        ((0, 1, -1, 0), frames),
        ((-1, 0, 0, -1), lying[:, ::-1, ::-1]),
        ((0, -1, 1, 0), frames[:, ::-1, ::-1]),
    ):
        a, b, c, d = (value << 16 for value in matrix)
        data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        assert same(processor()(videos=bytes(data)), processor()(videos=turned))


def test_images_go_to_the_clip_processor(frames):
    images = processor(image_settings=CLIP_SETTINGS)(images=Image.fromarray(frames[0]), return_tensors="pt")
    assert images["pixel_values"].shape == (1, 3, 56, 56)
    with pytest.raises(ValueError, match="preprocessor_config.json"):
        processor()(images=Image.fromarray(frames[0]))


# --- the same every time ----------------------------------------------------------------------------------------------


class Files(Dataset):
    def __init__(self, paths):
        self.paths, self.processor = paths, processor()

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        return dict(self.processor(videos=self.paths[number], return_tensors="pt"))


def test_runs_threads_and_workers_give_the_same(files, monkeypatch):
    paths = [files / name for name in ENCODERS]
    alone = [processor()(videos=path, return_tensors="pt") for path in paths]
    for workers in (0, 1, 2):
        loaded = list(DataLoader(Files(paths), batch_size=None, num_workers=workers))
        assert all(torch.equal(one[key], other[key]) for one, other in zip(alone, loaded) for key in one)
    monkeypatch.setattr(video_reading_llava_vit, "AS_MANY_AS_CORES", 1)
    assert all(same(processor()(videos=path, return_tensors="pt"), expected) for path, expected in zip(paths, alone))


# --- without PyAV -----------------------------------------------------------------------------------------------------


def test_without_pyav_files_are_refused_and_frames_work(files, frames, monkeypatch):
    for module in (
        video_reading_llava_vit,
        video_processing_llava_vit,
        video_processing_llava_vit.sys.modules["llavavit.video_selection_llava_vit"],
    ):
        monkeypatch.setattr(module, "av", None)
    with pytest.raises(ValueError, match="h264.mp4.*pip install av"):
        processor()(videos=files / "h264.mp4")
    with pytest.warns(UserWarning, match="pip install av.*difference"):
        fallen_back = processor()(videos=frames)
    assert same(fallen_back, processor()(videos=frames, selection="difference"))
    with pytest.raises(ValueError, match="pip install av"):
        processor()(videos=frames, selection="codec")


# --- damaged files: what decodes is used, with a warning --------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cut.mkv", "cut.webm", "cut.gif", "cut.avi", "corrupt.mp4", "corrupt.ts", "corrupt.gif"]
)
def test_damaged_files_are_used_as_far_as_they_go(name, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)  # noise: pictures of equal size
    codec, pixel_format, options = ENCODERS[
        {"webm": "vp9.webm", "gif": "gif.gif", "avi": "mpeg4.avi"}.get(name[-4:].strip("."), "h264.mp4")
    ]
    whole = write_video(tmp_path / f"whole{Path(name).suffix}", frames, codec, pixel_format, options).read_bytes()
    damaged = bytearray(whole[: len(whole) * 7 // 10])
    if name.startswith("corrupt"):
        damaged = bytearray(whole)
        damaged[len(whole) // 2 : len(whole) // 2 + 3000] = np.random.default_rng(1).bytes(3000)
    (tmp_path / name).write_bytes(damaged)
    with pytest.warns(UserWarning, match=rf"{name}: is damaged or truncated, used \d+") as caught:
        inputs = processor()(videos=tmp_path / name)
    assert len(caught) == 1
    assert 1 <= inputs["pixel_values"].shape[2] <= 8 and np.isfinite(inputs["pixel_values"]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(processor()(videos=tmp_path / name), inputs)


def test_an_honest_file_gives_no_warning(files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(files.iterdir()):
            processor()(videos=path)


def test_pil_frames_are_turned_as_their_exif_says(tmp_path, frames):
    exif, upright, lying = Image.Exif(), [Image.fromarray(frame) for frame in frames[:4]], []
    exif[0x0112] = 6
    for number, frame in enumerate(upright):
        frame.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"{number}.png", exif=exif)
        lying.append(Image.open(tmp_path / f"{number}.png"))
    expected = processor(selection="difference")(videos=upright)
    assert same(processor(selection="difference")(videos=lying), expected)
    assert same(processor(selection="difference")(videos=upright[:2] + lying[2:]), expected)  # of one upright size
    for number, frame in enumerate(upright):
        frame.save(tmp_path / f"{number}.png", exif=b"Exif\0\0nothing")
    broken = [Image.open(tmp_path / f"{number}.png") for number in range(4)]
    assert same(processor(selection="difference")(videos=broken), expected)


def test_tensors_of_any_dtype_are_frames(frames):
    levels = torch.from_numpy(frames // 64 * 64)  # exact in bfloat16
    expected = processor(selection="none")(videos=levels)["pixel_values"]
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        scaled = (levels / 255).to(dtype).requires_grad_()
        found = processor(selection="none")(videos=scaled)["pixel_values"]
        assert np.abs(found - expected).max() < 0.05, dtype  # a level or two of 255
        assert np.array_equal(processor(selection="none")(videos=list(scaled))["pixel_values"], found)


# --- refused, in one line that names the file and the reason ----------------------------------------------------------


def refused_files(folder, frames):
    """name -> (what the user gives, what the message must say)."""
    image = Image.fromarray(frames[0])
    image.save(folder / "photo.jpg")
    image.save(folder / "photo.png")
    write_sound(folder / "sound.m4a")
    whole = write_video(folder / "whole.mp4", frames).read_bytes()
    (folder / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # the index stands at the end
    contents = {
        "text.mp4": b"hello\n" * 99, "text.txt": b"hello\n" * 99, "empty.mp4": b"", "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "concat.txt": b"ffconcat version 1.0\nfile whole.mp4\n",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    reasons = {
        "missing.mp4": "no such file", "photo.jpg": "still image", "photo.png": "still image", "sound.m4a": "no video, only audio", "headless.mp4": "not a video",
        "text.mp4": "not a video", "text.txt": "not a video", "empty.mp4": "empty", "list.m3u8": "not a video", "concat.txt": "not a video",
    }  # fmt: skip
    return {name: (folder / name, f"{name}: .*{reason}") for name, reason in reasons.items()}


def halved(path):
    """The picture as Pillow opens it, without the second half of its file."""
    return Image.open(io.BytesIO(path.read_bytes()[: path.stat().st_size // 2]))


def refused_values(folder, frames):
    wide = Image.fromarray(frames[0, ..., 0].astype(np.uint16) * 200)
    closed = io.BytesIO(b"x")
    closed.close()
    return {
        "directory": (folder, f"{folder.name}: is a directory"), "address": ("https://example.org/clip.mp4", "example.org/clip.mp4: is an address; download"),
        "no clips": ([], "empty"), "no frames": ([[]], "no frames"), "no bytes": (b"", "empty"), "other bytes": (b"<html>" * 99, "not a video"),
        "text file": (io.StringIO("text"), "mode 'rb'"), "closed file": (closed, "closed"), "number": (5, "from int"), "dictionary": ({}, "from dict"),
        "one image": (Image.fromarray(frames[0]), "images="), "mixture": ([frames[0], "clip.mp4"], "frames and clips"), "two sizes": ([frames[0], frames[1, :50]], "one size"),
        "16-bit frames": (frames.astype(np.uint16) * 200, "uint16"), "16-bit images": ([wide] * 3, "I;16"), "out of range": (frames * 1.0, "0..255"),
        "half a picture": ([halved(folder / "photo.jpg")] * 3, "the clip, frame 0: cannot be decoded"),
        "not a number": ([np.full((9, 9, 3), np.nan)], "nan"), "five channels": (np.zeros((3, 9, 9, 5), np.uint8), "channels"), "one picture": (frames[0, ..., 0], "four dimensions"),
        "names in a list": ([["clip.mp4"]], "got str"), "unlike lengths": ([frames, frames[:1]], "number of patches"),
    }  # fmt: skip


def test_bad_inputs_are_refused_in_one_line(tmp_path, frames):
    cases = {**refused_files(tmp_path, frames), **refused_values(tmp_path, frames)}
    assert len(cases) >= 25
    for name, (given, reason) in cases.items():
        with pytest.raises(ValueError, match=reason) as caught:
            processor()(videos=given)
        assert "\n" not in str(caught.value), name


@pytest.mark.parametrize(
    "setting",
    [
        {"max_visible_patches": 0}, {"num_frames": 0}, {"num_frames": 2.5}, {"num_places": 0}, {"num_places": 2**63}, {"size": 60}, {"size": {"height": 56, "width": 70}}, {"patch_size": -1}, {"selection": "residual"},
        {"keep_first_frame": "yes"}, {"image_std": [1, 0, 1]}, {"image_mean": [0.5]}, {"frames": 8},
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(setting, frames):
    for use in (lambda: processor(**setting), lambda: processor()(videos=frames, **setting)):
        with pytest.raises(ValueError, match=next(iter(setting))) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_odd_files_that_are_fine(tmp_path, files, frames):
    (tmp_path / "clip.jpg").write_bytes((files / "h264.mp4").read_bytes())  # the content counts, not the name
    assert same(processor()(videos=tmp_path / "clip.jpg"), processor()(videos=files / "h264.mp4"))
    for height, width in ((1, 1), (5000, 7), (7, 5000)):
        picture = np.full((height, width, 3), 200, np.uint8)
        inputs = processor()(videos=write_video(tmp_path / f"{height}x{width}.mkv", [picture] * 3, "ffv1", "bgr0"))
        assert inputs["pixel_values"].shape == (1, 3, 3, 56, 56) and np.ptp(inputs["pixel_values"][0, 0]) == 0
    # 16 bits, scaled by FFmpeg. Compared with what the file holds: writing it, FFmpeg does not round alike every time.
    grey = write_video(tmp_path / "grey.mkv", frames, "ffv1", "gray16le")
    with av.open(str(grey)) as file:
        stored = [np.rint(frame.to_ndarray() / 257).astype(np.uint8) for frame in file.decode(video=0)]
    assert len(stored) == len(frames) and np.ptp(stored[0]) > 100
    assert np.abs(processor()(videos=grey)["pixel_values"] - processor()(videos=stored)["pixel_values"]).max() < 0.1
    address_like = tmp_path / "http:clip.mp4"
    address_like.write_bytes((files / "h264.mp4").read_bytes())
    assert processor()(videos=address_like)["pixel_values"].shape[2] == 8
