"""Made clips: an object of which it is known where it is, before a background that stands or pans; and video files of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, List, Tuple

import numpy as np
from PIL import Image, ImageFilter

from .errors import UserError

try:
    import av
except ImportError:
    av = None


ENCODERS = {  # name of the file -> encoder, pixel format, options
    "h264.mp4": ("libx264", "yuv420p", {"crf": "20"}),
    "hevc.mp4": ("libx265", "yuv420p", {"crf": "20", "x265-params": "log-level=0"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"qscale": "2", "b": "4000000"}),
    "gif.gif": ("gif", "rgb8", {}),
}


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


@dataclass
class Scene:
    """What is filmed. Places and velocities are (row, column), pixels and pixels a frame.

    `background` is (H, W, 3) uint8, the object's `surface` (E, E, 3) uint8 and its `shape` (E, E) bool; `place` is where
    the object starts in the picture.
    """

    background: np.ndarray
    surface: np.ndarray
    shape: np.ndarray
    place: np.ndarray
    velocity: np.ndarray
    camera_velocity: np.ndarray

    def shots(self, frames: int, height: int, width: int) -> Iterator[Tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Each frame (H, W, 3) with where the object is (H, W) and where the camera looks (2,).

        The object moves on and is thrown back by the picture's edges; the camera begins before the background's middle
        and ends behind it.
        """
        middle = (np.array(self.background.shape[:2]) - (height, width)) // 2
        extent, place, velocity = len(self.surface), self.place.copy(), self.velocity
        free = np.array((height, width)) - extent
        for number in range(frames):
            camera = np.rint(middle + self.camera_velocity * (number - frames / 2)).astype(int)
            frame = self.background[camera[0] : camera[0] + height, camera[1] : camera[1] + width].copy()
            y, x = np.rint(place).astype(int)
            frame[y : y + extent, x : x + extent][self.shape] = self.surface[self.shape]
            mask = np.zeros((height, width), bool)
            mask[y : y + extent, x : x + extent] = self.shape
            yield frame, mask, camera
            place = place + velocity
            velocity = np.where((place < 0) | (place > free), -velocity, velocity)
            place = place.clip(0, free)

    def film(self, frames: int, height: int, width: int) -> MadeClip:
        """The same all at once."""
        return MadeClip(*(np.stack(parts) for parts in zip(*self.shots(frames, height, width))))


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
    shape = disc(extent) if seed % 2 else np.ones((extent, extent), dtype=bool)
    place = generator.uniform(0, size - extent, 2)
    return Scene(background, surface, shape, place, velocity, camera_velocity).film(frames, size, size)


def unlike_object(seed: int, pan: bool = False, frames: int = 64, size: int = 448) -> MadeClip:
    """As `moving_object`, and unlike it in all that the seed decides: to measure on what nothing was tuned on.

    Clouds in place of smoothed noise, a checked or striped object with a hole or a slant edge, other sizes and speeds, and
    twice the pixels, so that at the size which the model sees motion is no whole number of pixels.
    """
    generator = np.random.default_rng((seed, 71))
    scale = size / 224
    extent = int(generator.uniform(0.08, 0.36) * size)
    velocity = direction(generator) * generator.uniform(1.5, 7) * scale
    camera_velocity = direction(generator) * generator.uniform(2, 6) * scale * pan
    reach = int(np.abs(camera_velocity).max() * frames / 2) + 2
    background = clouds(generator, size + 2 * reach, generator.uniform(0.8, 1.4))
    surface = checks(generator, extent, int(generator.uniform(3, 12) * scale))
    shape = disc(extent) & ~np.pad(disc(extent // 3), (extent - extent // 3) // 2 + 1)[:extent, :extent]
    if seed % 2:
        shape = np.add(*np.mgrid[:extent, :extent]) < extent * 1.3
    place = generator.uniform(0, size - extent, 2)
    return Scene(background, surface, shape, place, velocity, camera_velocity).film(frames, size, size)


def direction(generator):
    angle = generator.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def disc(extent):
    """(E, E) bool."""
    rows, columns = np.mgrid[:extent, :extent] - (extent - 1) / 2
    return np.hypot(rows, columns) < extent / 2


def texture(generator, height, width, blur, contrast=40):
    """(height, width, 3) uint8 noise, smoothed so that motion can be seen."""
    noise = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return grey_around(np.asarray(noise.filter(ImageFilter.GaussianBlur(blur))), contrast)


def clouds(generator, side, roughness, contrast=45):
    """(side, side, 3) uint8 noise of all scales, the larger the stronger, as photographs have it."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    strength = 1 / np.maximum(np.hypot(rows, columns), 1 / side) ** roughness
    noise = np.fft.rfft2(generator.standard_normal((side, side))) * strength
    grey = grey_around(np.fft.irfft2(noise, (side, side)), contrast)
    return np.repeat(grey[..., None], 3, axis=2)


def checks(generator, extent, period):
    """(extent, extent, 3) uint8: checks or stripes in two colours, with a little noise."""
    rows, columns = np.mgrid[:extent, :extent] // max(period, 1)
    pattern = (rows + columns * generator.integers(0, 2)) % 2
    colours = generator.integers(30, 226, (2, 3))
    return np.clip(colours[pattern] + generator.normal(0, 6, (extent, extent, 3)), 0, 255).astype(np.uint8)


def grey_around(values, contrast):
    values = values.astype(np.float64)
    return ((values - values.mean()) / values.std() * contrast + 128).clip(0, 255).astype(np.uint8)


def need_av(what: str) -> None:
    if av is None:
        raise UserError(f"{what} needs PyAV, which is not installed; run: pip install av")


def write_video(
    path: Path, frames: Iterable, codec="libx264", pixel_format="yuv420p", options=None, rate=25, container=None
) -> Path:
    """Writes frames (H, W, 3) uint8 as a video file; `container` are options of the format."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = None
        for frame in frames:
            if stream is None:
                stream = file.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], pixel_format
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())
    return path


def write_all(folder: Path, frames) -> List[Path]:
    """The same frames in every container and codec of ENCODERS."""
    return [write_video(folder / name, frames, *settings) for name, settings in ENCODERS.items()]


def write_repeated(source: Path, times: int, path: Path) -> Path:
    """The same video so many times in a row, without encoding it anew."""
    with av.open(str(source)) as file, av.open(str(path), "w") as longer:
        stream = file.streams.video[0]
        copy = longer.add_stream_from_template(stream)
        for turn in range(times):
            file.seek(0)
            for packet in file.demux(stream):
                if packet.dts is not None:
                    packet.pts, packet.dts = (time + turn * stream.duration for time in (packet.pts, packet.dts))
                    packet.stream = copy
                    longer.mux(packet)
    return path
