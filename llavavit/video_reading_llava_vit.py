# SPDX-License-Identifier: Apache-2.0
"""Clips as users hold them, files and frames, to upright RGB arrays, one frame at a time.

1. A file is decoded from first to last and nothing is kept but the frames asked for and the one before each.
2. Containers only estimate how many frames they hold. Packets are counted first, which is nearly free; if decoding gives
   another number, that one counts, and the caller starts again (`frame_count`).
3. Decoded in several threads, a sound file gives the same frames on every machine; a damaged one might not, so it is read
   again in one thread (`frame_count` again).
4. Files are opened as files: no addresses, and no playlists that name other files or addresses.
"""

import io
import os
import re
import warnings
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
from PIL import Image

from .image_processing_llava_vit import PICTURE_ERRORS, WIDE_MODES, as_array, upright_rgb

try:
    import av
    from av.stream import Disposition  # from version 15 on
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None


# FFmpeg would draw a text file as a film of a terminal, or follow a list to other files.
FOREIGN_FORMATS = ("tty", "hls", "concat", "dash", "lavfi", "sdp", "rtsp", "subviewer", "srt")
# No other protocol than files; what is read from memory may not open files either.
FILE_OPTIONS = {"protocol_whitelist": "file"}
MEMORY_OPTIONS = {"protocol_whitelist": "none"}
AS_MANY_AS_CORES, ONE_THREAD = 0, 1
# The EXIF tag, and its values for images that are stored with their rows and columns exchanged.
EXIF_ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
# (a, b, c, d) of a display matrix, its signs -> what numpy does to the stored rows and columns
UPRIGHT = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),
    (-1, 0, 0, -1): lambda frame: np.rot90(frame, 2),
    (0, -1, 1, 0): lambda frame: np.rot90(frame, 1),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (0, 1, 1, 0): lambda frame: frame.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda frame: np.rot90(frame, 2).transpose(1, 0, 2),
}


@dataclass(frozen=True)
class SampledFrame:
    """A frame of a clip: its number in the source, its time in seconds from the clip's start (None: unknown), its pixels.

    `pixels` is (H, W, 3) uint8; `previous` likewise, of the source frame before it, None for the first.
    """

    index: int
    time: Optional[float]
    pixels: np.ndarray
    previous: Optional[np.ndarray]


def open_clip(source, fps=None, name="the clip"):
    """A clip of whatever the user gave: see `FileClip` and `FramesClip`.

    Args:
        source: A file's path, `bytes`, an open binary file; a list of frames, or frames as one array or tensor.
        fps: Frames per second where the source does not tell.
        name: What errors call a source without a name.

    Raises:
        ValueError: Not one of these, or what it names cannot be read; the message begins with the source's name.
    """
    if isinstance(source, (str, os.PathLike)):
        return FileClip(check_path(source), os.fspath(source), fps)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise ValueError(f"{name}: the bytes are empty")
        return FileClip(io.BytesIO(source), name, fps)
    if hasattr(source, "read") and hasattr(source, "seek"):
        return FileClip(check_open_file(source, name), str(getattr(source, "name", name)), fps)
    return FramesClip(source, name, fps)


def check_path(path):
    """The path as FFmpeg opens it, which would take `http:` and its like for an address.

    Raises:
        ValueError: An address, a directory, a file that is missing, empty or not readable.
    """
    text = os.fspath(path)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(f"{text}: is an address; download the file first and give its path")
    if os.path.isdir(text):
        raise ValueError(f"{text}: is a directory; give the path of a video file, or a list of paths")
    if not os.path.exists(text):
        raise ValueError(f"{text}: no such file")
    try:
        with open(text, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise ValueError(f"{text}: cannot be read: {error.strerror}") from error
    if empty:
        raise ValueError(f"{text}: the file is empty")
    return text


def check_open_file(file, name):
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"{getattr(file, 'name', name)}: is open as text; open it with mode 'rb'")
    if getattr(file, "closed", False):
        raise ValueError(f"{getattr(file, 'name', name)}: the file is closed")
    return file


# --- files ------------------------------------------------------------------------------------------------------------


class FileClip:
    """A video file. `frame_count` is an estimate until `settled`: see `frames`."""

    def __init__(self, file, name, fps=None):
        if av is None:
            raise ValueError(
                f"{name}: reading a video file needs PyAV 15 or newer: pip install av; frames can be given as arrays without it"
            )
        self.file, self.name, self.fps = file, name, fps
        self.threads = AS_MANY_AS_CORES
        self.settled, self.claimed, self.damage, self.shortfall = False, 0, 0, ""
        self.start = file.tell() if hasattr(file, "tell") else 0
        self.frame_count = self._count_packets()
        if not self.frame_count:
            raise ValueError(f"{self.name}: holds no frames")

    def frames(self, indices, with_previous=True):
        """Decodes the whole clip and yields a `SampledFrame` for each of the ascending source frame numbers.

        Afterwards `frame_count` is the number of frames that were decoded, and `settled` says whether what was yielded
        counts. If not, sample again by `frame_count` and read again.

        Raises:
            ValueError: The file cannot be opened, or no frame of it can be decoded.
        """
        wanted, before = set(indices.tolist()), set((indices - 1).tolist()) if with_previous else set()
        number, first_time, previous, reformatter = 0, None, None, VideoReformatter()
        for frame in self._decode():
            time = self._time_of(frame, number)
            first_time = time if number == 0 else first_time
            keep = pixels = None
            if number in wanted or number in before:
                pixels = upright_pixels(frame, reformatter)
                keep = pixels if number in before else None
            if number in wanted:
                seconds = None if time is None or first_time is None else time - first_time
                yield SampledFrame(number, seconds, pixels, previous if with_previous else None)
            number, previous = number + 1, keep
        if not isinstance(self.file, str):
            self.file.seek(self.start)  # for whoever reads it next
        if not number:
            raise ValueError(f"{self.name}: no frame can be decoded{self.shortfall and f' ({self.shortfall})'}")
        self.settled = number == self.frame_count and not (self.damage and self.threads != ONE_THREAD)
        self.frame_count = number
        if self.damage:
            self.threads = ONE_THREAD

    def warn_of_damage(self):
        """One warning that says how much of a damaged or truncated file was used."""
        lost = max(self.claimed - self.frame_count, 0)
        if self.damage or self.shortfall or lost:
            reasons = [f"{self.damage} could not be decoded cleanly" if self.damage else "", self.shortfall]
            frames = (
                f"{self.frame_count} of {self.claimed} frames"
                if lost
                else f"{self.frame_count} frame{'s' * (self.frame_count > 1)}"
            )
            reason = "; ".join(reason for reason in reasons if reason) or "the rest is missing"
            warnings.warn(f"{self.name}: is damaged or truncated, used {frames} ({reason})", stacklevel=2)

    def _count_packets(self):
        """How many frames the file should hold, without decoding. Notes what the container claims and what is missing."""
        packets, discarded, end = 0, 0, 0.0
        with self._open() as container:
            stream = self._video_stream(container)
            self.claimed, self.time_base = stream.frames or 0, stream.time_base
            gif = GifCheck() if container.format.name == "gif" else None
            for packet in filter(None, self._packets(container)):
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index == stream.index:
                    packets, discarded = packets + 1, discarded + bool(packet.is_discard)
                    if gif is not None:
                        gif.add(bytes(packet))
            start, rate = float((container.start_time or 0) / av.time_base), stream.average_rate
            total = float((container.duration or 0) / av.time_base)
        self.claimed = max(self.claimed - discarded, 0)
        # Not every container tells how long its last frames last.
        if total and end - start + 2 / float(rate or 25) < total * 0.95:
            self.shortfall = f"the file ends after {max(end - start, 0):.1f} of {total:.1f} seconds"
        if gif is not None:
            self.shortfall = self.shortfall or gif.fault()
        return packets - discarded

    def _decode(self):
        self.damage = 0
        with self._open() as container:
            stream = self._video_stream(container)
            stream.codec_context.thread_count = self.threads
            stream.thread_type = "AUTO"
            for packet in self._packets(container, stream):
                self.damage += packet is not None and packet.is_corrupt
                try:
                    frames = stream.codec_context.decode(packet)  # None at the end: what the decoder holds back
                except av.FFmpegError:
                    self.damage += 1
                    continue
                for frame in frames:
                    self.damage += bool(frame.is_corrupt)
                    yield frame

    def _packets(self, container, *streams):
        """The packets of the file, as far as they can be read, and None at the end."""
        try:
            yield from (packet for packet in container.demux(*streams) if packet.size)
        except av.FFmpegError as error:
            self.shortfall = reason_of(error)
        yield None

    def _open(self):
        if not isinstance(self.file, str):
            self.file.seek(self.start)
        try:
            if isinstance(self.file, str):
                return self._check_format(av.open("file:" + self.file, options=FILE_OPTIONS))
            return self._check_format(av.open(self.file, options=MEMORY_OPTIONS))
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.name}: is not a video that FFmpeg can read ({reason_of(error)})") from error

    def _check_format(self, container):
        names = container.format.name.split(",")
        problem = None
        if any(name in FOREIGN_FORMATS for name in names):
            problem = f"is not a video file (FFmpeg takes it for {container.format.long_name})"
        elif "image2" in names or any(name.endswith("_pipe") for name in names):
            problem = "is a still image; give it as images=, or as one frame of a list"
        if problem:
            container.close()
            raise ValueError(f"{self.name}: {problem}")
        return container

    def _video_stream(self, container):
        streams = [stream for stream in container.streams.video if not is_cover(stream)]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            raise ValueError(f"{self.name}: has no video, only {', '.join(kinds) or 'an empty container'}")
        stream = streams[0]
        if stream.codec_context is None:
            raise ValueError(f"{self.name}: FFmpeg knows no decoder for its video")
        return stream

    def _time_of(self, frame, number):
        if frame.pts is not None:
            return float(frame.pts * self.time_base)
        return None if self.fps is None else number / self.fps


class GifCheck:
    """Whether a GIF is whole. It says neither how long nor how large it is, and FFmpeg passes over what it cannot read:
    only its blocks, one leading to the next, tell.
    """

    TRAILER, PICTURE, EXTENSION = b";,!"

    def __init__(self):
        self.packets, self.broken, self.ended = 0, 0, False

    def add(self, data):
        """The next packet, which ought to be one picture with the extensions before it."""
        self.packets += 1
        try:
            self.broken += self._pictures(data) != 1
        except IndexError:  # a block leads beyond the data
            self.broken += 1

    def fault(self):
        """In words, empty where nothing is wrong."""
        if self.broken > 1 or self.broken and self.ended:
            return f"{self.broken} of {self.packets} parts are no whole picture"
        return "" if self.ended else "the file ends before its last picture does"

    def _pictures(self, data):
        place, pictures = 13 + palette_size(data[10]) if data[:3] == b"GIF" else 0, 0
        while place < len(data):
            kind = data[place]
            if kind == self.TRAILER:
                self.ended = True
                break
            if kind == self.PICTURE:
                pictures, place = pictures + 1, place + 11 + palette_size(data[place + 9])
            elif kind == self.EXTENSION:
                place += 2
            else:
                return None
            while data[place]:
                place += data[place] + 1
            place += 1
        return pictures


def palette_size(flags):
    """Bytes of the palette that the flags of a GIF's screen or picture announce."""
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def is_cover(stream):
    """Whether a stream is the cover picture of a piece of music."""
    return bool(stream.disposition & Disposition.attached_pic)


def reason_of(error):
    return str(getattr(error, "strerror", None) or error)


def upright_pixels(frame, reformatter):
    """(H, W, 3) uint8 RGB of a decoded frame, turned as its metadata says.

    `reformatter` is kept from frame to frame: what it sets up costs more than what it then does.
    """
    pixels = reformatter.reformat(frame, format="rgb24").to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    values = np.frombuffer(matrix, dtype=np.int32)[[0, 1, 3, 4]]
    signs = tuple(int(sign) for sign in np.where(np.abs(values) * 2 > np.abs(values).max(), np.sign(values), 0))
    return np.ascontiguousarray(UPRIGHT.get(signs, UPRIGHT[1, 0, 0, 1])(pixels))


# --- frames -----------------------------------------------------------------------------------------------------------


class FramesClip:
    """A list of frames, or frames as one array or tensor, as a clip: PIL images, (H, W), (H, W, C) or (C, H, W)."""

    def __init__(self, frames, name, fps=None):
        if isinstance(frames, (np.ndarray, torch.Tensor)):
            if frames.ndim != 4:
                raise ValueError(
                    f"{name}: frames as one array must have four dimensions, (T, H, W, C) or (T, C, H, W), got {tuple(frames.shape)}"
                )
        elif not isinstance(frames, (list, tuple)):
            accepted = "a file's path, bytes, an open file, a list of frames, or an array of frames"
            raise ValueError(f"{name}: cannot read a clip from {type(frames).__name__}; accepted: {accepted}")
        if not len(frames):
            raise ValueError(f"{name}: has no frames")
        self.name, self.fps, self.source = name, fps, frames
        self.frame_count, self.settled = len(frames), True
        sizes = {frame_size(frame) for frame in frames}
        if len(sizes) > 1:
            listed = ", ".join(" x ".join(map(str, size)) for size in sorted(sizes, key=str)[:3])
            raise ValueError(f"{name}: the frames of a clip must have one size, got {listed}")

    def frames(self, indices, with_previous=True):
        """Yields a `SampledFrame` for each of the ascending frame numbers."""
        for index in indices.tolist():
            previous = self._pixels(index - 1) if with_previous and index else None
            yield SampledFrame(index, None if self.fps is None else index / self.fps, self._pixels(index), previous)

    def warn_of_damage(self):
        """Frames in memory are never damaged."""

    def _pixels(self, index):
        return frame_pixels(self.source[index], f"{self.name}, frame {index}")


def frame_size(frame):
    """What must agree between the frames of a clip: the upright size of a PIL image, the shape of others."""
    if not isinstance(frame, Image.Image):
        return tuple(getattr(frame, "shape", ()))
    # Asked without EXIF data, PNG files would be decoded to look for some at their end.
    try:
        orientation = frame.getexif().get(EXIF_ORIENTATION) if "exif" in frame.info else None
    except PICTURE_ERRORS:
        return frame.size  # what cannot be read says nothing of it
    return frame.size[::-1] if orientation in SIDEWAYS else frame.size


def frame_pixels(frame, name):
    """(H, W, 3) uint8 of one frame.

    Raises:
        ValueError: Not an image, one that cannot be decoded, or values whose range is not known; 16-bit and other wide
            values are never clipped.
    """
    if isinstance(frame, Image.Image):
        if frame.mode in WIDE_MODES:
            raise ValueError(
                f"{name}: mode {frame.mode} has more than 8 bits; scale it to 0..255 and convert it to mode L or RGB"
            )
        return np.asarray(upright_rgb(frame, name))
    if not isinstance(frame, (np.ndarray, torch.Tensor)):
        raise ValueError(f"{name}: must be a PIL image, an array or a tensor, got {type(frame).__name__}")
    pixels = channels_last(as_array(frame), name, isinstance(frame, torch.Tensor))
    if 0 in pixels.shape:
        raise ValueError(f"{name}: is empty, shape {pixels.shape}")
    pixels = as_bytes(pixels, name)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def channels_last(pixels, name, tensor):
    """(H, W), (H, W, C) or (C, H, W) -> (H, W, C) with C 1 or 3; where both fit, tensors have their channels first."""
    if pixels.ndim == 2:
        return pixels[..., None]
    fits = pixels.ndim == 3 and [axis for axis in ((0, 2) if tensor else (2, 0)) if pixels.shape[axis] in (1, 3, 4)]
    if not fits:
        raise ValueError(
            f"{name}: must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got shape {pixels.shape}"
        )
    return np.moveaxis(pixels, fits[0], 2)[..., :3]


def as_bytes(pixels, name):
    """Integers in 0..255, or floats in [0, 1], as uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(pixels.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(pixels * 255.0).astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.signedinteger) and low >= 0 and high <= 255:
        return pixels.astype(np.uint8)
    raise ValueError(
        f"{name}: must hold uint8, integers in 0..255 or floats in [0, 1], got {pixels.dtype} from {low} to {high}"
    )
