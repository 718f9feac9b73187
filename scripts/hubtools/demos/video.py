"""A video file, step by step: the camera pans, an object moves, and of the patches only those that tell of the object are kept.

The same clip as H.264 and as HEVC; the picture shows which patches each selection keeps. The weights of the model are
random: the point is the way from the file to the features.
"""

import time
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..assembly.recipes import load_recipe
from ..clips import unlike_object, write_video
from ..packages import package_named

RECIPE = "llava-vit-small"
SOURCE_FRAMES, SIZE, FRAMES, SHOWN = 32, 224, 16, 8
TILE, GAP, CAPTION, DIMMED = 168, 8, 20, 0.2
PAPER, INK = "white", "black"
FILES = {
    "H.264": ("clip-h264.mp4", "libx264", {"crf": "23"}),
    "HEVC": ("clip-hevc.mp4", "libx265", {"crf": "25", "preset": "veryfast", "x265-params": "log-level=0"}),
}
ROWS = (("codec", "H.264"), ("codec", "HEVC"), ("difference", "H.264"), ("difference", "HEVC"))


def run(output: Path) -> None:
    """Writes the two files and video.png to `output`, and prints what each step took."""
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = load_recipe(RECIPE).build_model().eval()
    processor = (
        package_named("llavavit")
        .load()
        .LlavaViTVideoProcessor(
            num_frames=FRAMES, size=SIZE, patch_size=model.config.patch_size, max_visible_patches=budget_of(model)
        )
    )
    clip = unlike_object(2, pan=True, frames=SOURCE_FRAMES, size=2 * SIZE)
    for codec in FILES:
        write(output, codec, clip.frames)
    kept = {row: process(processor, output, *row) for row in ROWS}
    tell(kept, clip.changed_patches(2 * model.config.patch_size).reshape(SOURCE_FRAMES, -1))
    encode(model, kept[ROWS[0]])
    draw(kept, processor).save(output / "video.png")
    print(f"wrote {output / 'video.png'}")


def budget_of(model) -> int:
    """An eighth of the patches."""
    return FRAMES * (SIZE // model.config.patch_size) ** 2 // 8


def write(output: Path, codec: str, frames: np.ndarray) -> None:
    name, encoder, options = FILES[codec]
    path = output / name
    timed(f"wrote {path}", lambda: write_video(path, frames, encoder, options=options))
    timed(f"{codec}, decoding alone", lambda: decode(path))


def timed(what: str, function):
    started = time.perf_counter()
    result = function()
    print(f"{what}: {time.perf_counter() - started:.2f} s", flush=True)
    return result


def decode(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def process(processor, output: Path, selection: str, codec: str):
    path = output / FILES[codec][0]
    what = f"{codec}, decoded, {FRAMES} frames resized, {processor.max_visible_patches} patches chosen by {selection}"
    return timed(what, lambda: processor(videos=path, selection=selection))


def tell(kept, changed: np.ndarray) -> None:
    """How much of what matters each selection keeps; `changed` is (source frames, patches of one) bool."""
    for (selection, codec), features in kept.items():
        matters = changed[features.frame_indices[0]].reshape(-1)
        share = 100 * matters[features["visible_indices"][0]].sum() / matters.sum()
        print(f"{selection}, {codec}: keeps {share:.0f} % of the {matters.sum()} patches that the object changes")
    h264, hevc = (set(kept["codec", codec]["visible_indices"][0].tolist()) for codec in FILES)
    print(f"codec keeps {100 * len(h264 & hevc) / len(h264):.0f} % the same patches of the H.264 and the HEVC file")


@torch.inference_mode()
def encode(model, features) -> None:
    inputs = {name: torch.from_numpy(values) for name, values in features.items()}
    states = timed(f"features of the patches kept, by {RECIPE}", lambda: model(**inputs).last_hidden_state)
    print(f"  {tuple(inputs['pixel_values'].shape)} -> {tuple(states.shape)}")


def draw(kept, processor) -> Image.Image:
    """Row one: every other sampled frame. Below, for each selection and file, the same with what is left out dimmed."""
    rows = [
        ("frames sampled", None),
        *((f"kept by {selection}, {codec}", kept[selection, codec]) for selection, codec in ROWS),
    ]
    high = TILE + CAPTION + GAP
    picture = Image.new("RGB", (GAP + SHOWN * (TILE + GAP), GAP + len(rows) * high), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for row, (caption, features) in enumerate(rows):
        top = GAP + row * high
        pen.text((GAP, top), caption, INK, font)
        frames = shown(processor, kept[ROWS[0]] if features is None else features, dim=features is not None)
        for column, frame in enumerate(frames[:: FRAMES // SHOWN]):
            tile = Image.fromarray(frame).resize((TILE, TILE))
            picture.paste(tile, (GAP + column * (TILE + GAP), top + CAPTION))
    return picture


def shown(processor, features, dim: bool) -> np.ndarray:
    """The model's pixels as pictures (T, S, S, 3) uint8; with `dim`, patches that are not kept are dark."""
    pixels = features["pixel_values"][0].transpose(1, 2, 3, 0)
    frames = (pixels * processor.image_std + processor.image_mean).clip(0, 1) * 255
    if dim:
        side = processor.size // processor.patch_size
        light = np.full(len(frames) * side**2, DIMMED)
        light[features["visible_indices"][0]] = 1
        light = light.reshape(-1, side, side).repeat(processor.patch_size, axis=1).repeat(processor.patch_size, axis=2)
        frames = frames * light[..., None]
    return np.rint(frames).astype(np.uint8)
