"""Clips made for the tests: pictures of known motion, and files of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import List

import av
import numpy as np
from PIL import Image, ImageFilter

ENCODERS = {  # name of the file -> encoder, pixel format, options
    "h264.mp4": ("libx264", "yuv420p", {"crf": "20"}),
    "hevc.mp4": ("libx265", "yuv420p", {"crf": "20", "x265-params": "log-level=0"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"qscale": "2", "b": "4000000"}),
    "gif.gif": ("gif", "rgb8", {}),
}


def texture(generator, height, width, blur, contrast=40):
    """(height, width, 3) uint8 noise, smoothed so that motion can be seen."""
    noise = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    smooth = np.asarray(noise.filter(ImageFilter.GaussianBlur(blur))).astype(np.float64)
    return ((smooth - smooth.mean()) / smooth.std() * contrast + 128).clip(0, 255).astype(np.uint8)


@dataclass
class MadeClip:
    """Frames (T, S, S, 3), where the object is (T, S, S), and where the camera looks, (T, 2) of row and column."""

    frames: np.ndarray
    masks: np.ndarray
    camera: np.ndarray

    def changed_patches(self, patch_size: int, share: float = 0.05) -> np.ndarray:
        """(T * h * w,) bool: patches of which the object covers or uncovers some part, against the background's own motion."""
        frames, size = self.masks.shape[:2]
        side = size // patch_size
        changed = np.zeros((frames, side, side), dtype=bool)
        for number in range(1, frames):
            before = shifted(self.masks[number - 1], self.camera[number] - self.camera[number - 1])
            pixels = (before ^ self.masks[number]).reshape(side, patch_size, side, patch_size).sum(axis=(1, 3))
            changed[number] = pixels >= share * patch_size**2
        return changed.reshape(-1)


def shifted(mask, camera):
    """The mask as it would lie if the camera had moved and nothing else."""
    moved = np.zeros_like(mask)
    size = mask.shape[0]
    to = tuple(slice(max(0, -step), min(size, size - step)) for step in camera)
    source = tuple(slice(max(0, step), size + min(0, step)) for step in camera)
    moved[to] = mask[source]
    return moved


def moving_object(seed: int, pan: bool = False, frames: int = 64, size: int = 224) -> MadeClip:
    """An object that moves over a textured background; its texture, shape, size and speed come from the seed.

    With `pan`, the camera moves too, 2 to 6 pixels a frame.
    """
    generator = np.random.default_rng(seed)
    extent = int(generator.uniform(0.11, 0.28) * size)
    velocity = direction(generator) * generator.uniform(2, 5)
    camera_velocity = direction(generator) * generator.uniform(2, 6) * pan
    reach = int(6 * frames) + 1 if pan else 0
    background = texture(generator, size + 2 * reach, size + 2 * reach, generator.uniform(1, 4))
    surface = texture(generator, extent, extent, generator.uniform(0.8, 3))
    rows, columns = np.mgrid[:extent, :extent] - (extent - 1) / 2
    shape = np.hypot(rows, columns) < extent / 2 if seed % 2 else np.ones((extent, extent), dtype=bool)
    place = generator.uniform(0, size - extent, 2)
    clip = MadeClip(
        np.empty((frames, size, size, 3), np.uint8), np.zeros((frames, size, size), bool), np.empty((frames, 2), int)
    )
    for number in range(frames):
        clip.camera[number] = np.rint(reach + camera_velocity * (number - frames / 2))
        top, left = clip.camera[number]
        clip.frames[number] = background[top : top + size, left : left + size]
        y, x = np.rint(place).astype(int)
        clip.frames[number, y : y + extent, x : x + extent][shape] = surface[shape]
        clip.masks[number, y : y + extent, x : x + extent] = shape
        place += velocity
        velocity = np.where((place < 0) | (place > size - extent), -velocity, velocity)
        place = place.clip(0, size - extent)
    return clip


def direction(generator):
    angle = generator.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def write_video(
    path: Path, frames, codec="libx264", pixel_format="yuv420p", options=None, rate=25, container=None
) -> Path:
    """Writes frames (H, W, 3) uint8 as a video file; `container` are options of the format."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_all(folder: Path, frames) -> List[Path]:
    """The same frames in every container and codec of ENCODERS."""
    return [write_video(folder / name, frames, *settings) for name, settings in ENCODERS.items()]
