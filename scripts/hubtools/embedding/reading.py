"""From one input to what the model takes, by the folder's own processor, as the pipelines read it.

Runs where inputs are decoded: in a worker's process, with bounds to its memory and its time.
"""

import contextlib
import io
import os
import signal
import threading
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Union

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps

from ..errors import UserError, plain
from ..foreign.files import open_regular, size_of
from ..packages import PACKAGES, package_named
from .sources import PICTURES, SOUNDS, VIDEOS, Source, suffix_of
from .tars import read_member

# Bytes of a picture, or of a video that is not read from a file of its own; of videos in files there is no bound.
MAX_FILE = 1 << 29


@dataclass
class Item:
    """What the model takes of one input.

    Attributes:
        arrays: without a batch dimension, in numpy: they are cheap to hand from one process to another.
        length: patches or bytes, what a batch's budget counts.
        frame_times: of a video's frames, seconds from its start.
    """

    arrays: Dict[str, np.ndarray]
    length: int
    frame_times: Optional[List[Optional[float]]] = None


@dataclass
class Failure:
    """Why an input was not embedded, in a line."""

    reason: str


class TooSlow(Exception):
    """An input took more than its time."""


@dataclass
class PixelReader:
    """Pictures and videos for a model of pixels.

    Attributes:
        package: the model's, by name.
        config: the model's.
        images: processor of pictures.
        videos: processor of videos, or None where the folder has none.
        selection: of a video's patches; None as the processor has it.
        keep_damaged: take what can be decoded of a damaged video.
        videos_only: the model has no answer for a picture.
    """

    package: str
    config: Any
    images: Any
    videos: Any = None
    selection: Optional[str] = None
    keep_damaged: bool = False
    videos_only: bool = False

    @property
    def suffixes(self) -> frozenset:
        return VIDEOS | {".gif"} if self.videos_only else PICTURES | VIDEOS

    def __call__(self, source: Source) -> Item:
        kind = suffix_of(source.path)
        if kind in VIDEOS:
            return self._video(source)
        try:
            with opened(source, MAX_FILE) as file:
                moving = kind not in PICTURES - {".gif", ".webp"} and is_moving(file)
                if not moving:
                    return self._picture(open_picture(file))
        except UnknownPicture:
            if kind in PICTURES:
                raise
        return self._video(source)

    def _picture(self, picture: Image.Image) -> Item:
        if self.videos_only:
            raise ValueError("is a picture, and the model classifies videos")
        inputs = self.images(picture, return_tensors="pt")
        pixels = inputs["pixel_values"]
        return self._item(pixels if "grid_thw" in inputs else None, inputs, [pixels[0]])

    def _video(self, source: Source) -> Item:
        if self.videos is None:
            raise ValueError("is a video, and the model's folder has no processor of videos")
        overrides = {} if self.selection is None else {"selection": self.selection}
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            if source.container is None:
                check_regular(source)
                inputs = self.videos(videos=os.fsdecode(source.path), return_tensors="pt", **overrides)
            else:
                inputs = self.videos(videos=contents(source, MAX_FILE), return_tensors="pt", **overrides)
        damage = [str(remark.message) for remark in remarks if "is damaged or truncated" in str(remark.message)]
        if damage and not self.keep_damaged:
            raise ValueError(f"{damage[0]}; --keep-damaged embeds what there is")
        item = self._item(None, inputs, [inputs["pixel_values"][0]])
        item.frame_times = list(inputs.frame_times[0])
        return item

    def _item(self, packed: Optional[torch.Tensor], inputs: Any, samples: List[torch.Tensor]) -> Item:
        """Visible patches alone, flat: a small part of a video's pixels, and the form in which any sizes go together."""
        if packed is None:
            chosen = {
                name: [inputs[name][0]]
                for name in ("visible_indices", "patch_positions")
                if takes_selection(self.config) and name in inputs
            }
            inputs = package_named(self.package).load().modeling_llava_vit.pack(self.config, samples, **chosen)
        names = [name for name in ("pixel_values", "patch_positions", "grid_thw") if name in inputs]
        arrays = {name: inputs[name].numpy() for name in names}
        return Item(arrays, len(arrays["pixel_values"]))


def takes_selection(config: Any) -> bool:
    """Whether a model takes a part of a video's patches: in windows, and in blocks for a merger, it needs them all."""
    return config.frame_windows_size == 0 and config.out_hidden_size is None


@dataclass
class ByteReader:
    """Files for a model of bytes.

    Attributes:
        config: the model's.
        processor: image processor or feature extractor.
        form: "pictures" and "sounds" are decoded and written anew by the processor's recipe, "bytes" are a file's own.
    """

    config: Any
    processor: Any
    form: str

    @property
    def suffixes(self) -> Optional[frozenset]:
        return {"pictures": PICTURES, "sounds": SOUNDS, "bytes": None}[self.form]

    def __call__(self, source: Source) -> Item:
        package = PACKAGES["byteformer"].load()
        recipes = package.image_processing_byteformer, package.feature_extraction_byteformer
        # Recipes with noise draw it from a seed: else a vector would be another in each run.
        options = {"return_tensors": "np"}
        if self.form == "sounds":
            data = self.processor.open_recording(contents(source, recipes[1].MAX_SOUND_FILE))
        elif self.form == "pictures":
            with opened(source, recipes[0].MAX_PICTURE_FILE) as file:
                data = open_picture(file)
        else:
            data = contents(source, recipes[0].MAX_BYTES)
        if hasattr(self.processor, "noise_range"):
            options["seed"] = 0
        ids = self.processor(data, **options)["input_ids"][0]
        package.modeling_byteformer.check_length(max(len(ids), self.config.conv_kernel_size), self.config)
        return Item({"input_ids": ids.astype(np.int16)}, len(ids))


Reader = Union[PixelReader, ByteReader]


# --- bytes ------------------------------------------------------------------------------------------------------------


def check_regular(source: Source) -> None:
    """Refuses what is no file, without waiting for it."""
    with open_regular(Path(os.fsdecode(source.path))) as file:
        if size_of(file) == 0:
            raise ValueError("the file is empty")


@contextlib.contextmanager
def opened(source: Source, limit: int) -> Iterator[Any]:
    """The input as an open file."""
    if source.container is not None:
        yield io.BytesIO(contents(source, limit))
        return
    with open_regular(Path(os.fsdecode(source.path))) as file:
        if size_of(file) == 0:
            raise ValueError("the file is empty")
        if size_of(file) > limit:
            raise ValueError(f"has {size_of(file):,} bytes; accepted: up to {limit:,}")
        yield io.BufferedReader(file)


def contents(source: Source, limit: int) -> bytes:
    """The input's bytes.

    Raises:
        UserError, ValueError: it cannot be read, is empty, has more than `limit`, or lies in a file that has changed.
    """
    if source.in_parquet:
        data = row_of(source)
    elif source.container is not None:
        with open_regular(Path(os.fsdecode(source.container))) as file:
            need_unchanged(os.fstat(file.fileno()), source)
            data = read_member(file, source, limit)
            need_unchanged(os.fstat(file.fileno()), source)
    else:
        with opened(source, limit) as file:
            data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"has {len(data):,} bytes; accepted: up to {limit:,}")
    if not data:
        raise ValueError("the file is empty" if source.container is None else "is empty: 0 bytes")
    return data


def need_unchanged(container: os.stat_result, source: Source) -> None:
    """Refuses a file in which another input may lie by now where this one was listed."""
    if container.st_mtime_ns != source.mtime:
        raise ValueError("the file that holds it has changed since it was listed; the next run lists it anew")


class ParquetColumn:
    """The column of bytes of a Parquet file, with the row group that was asked for last."""

    def __init__(self, path: str, column: str):
        self.file, self.column = pq.ParquetFile(path), column
        rows = [self.file.metadata.row_group(number).num_rows for number in range(self.file.num_row_groups)]
        self.starts = np.cumsum([0, *rows])
        self.group, self.values = -1, None

    def __getitem__(self, row: int) -> Optional[bytes]:
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        if group != self.group:
            values = self.file.read_row_group(group, columns=[self.column]).column(0).combine_chunks()
            self.group, self.values = group, values.field("bytes") if pa.types.is_struct(values.type) else values
        return self.values[row - int(self.starts[group])].as_py()


@lru_cache(maxsize=1)
def parquet_column(path: str, column: str, mtime: int) -> ParquetColumn:
    with open_regular(Path(path)):  # a pipe would be waited for
        return ParquetColumn(path, column)


def row_of(source: Source) -> bytes:
    try:
        need_unchanged(os.stat(source.container), source)
        data = parquet_column(os.fsdecode(source.container), source.column, source.mtime)[int(source.key)]
        need_unchanged(os.stat(source.container), source)
    except (pa.ArrowException, IndexError, KeyError, OSError) as error:
        raise ValueError(f"its row cannot be read: {plain(error, 200)}") from error
    if data is None:
        raise ValueError("the row holds no bytes")
    return data


# --- pictures ---------------------------------------------------------------------------------------------------------


class UnknownPicture(ValueError):
    """No decoder of pictures takes the file for its own."""


def recipes_of_pictures() -> Any:
    """ByteFormer's processor, whose bounds and words for pictures serve every model here."""
    return PACKAGES["byteformer"].load().image_processing_byteformer


def open_picture(file: Any) -> Image.Image:
    """The picture in an open file as every image pipeline opens it: upright by its EXIF orientation, RGB.

    Raises:
        ValueError: not a picture, a damaged one, one of more pixels than are decoded, or of more than 8 bits a channel.
    """
    recipes = recipes_of_pictures()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound here is another
        try:
            image = Image.open(file)
        except Image.UnidentifiedImageError:
            raise UnknownPicture("is no picture that Pillow knows") from None
        except recipes.PICTURE_ERRORS as error:
            raise ValueError(f"the picture cannot be decoded: {plain(error, 200)}") from error
        with image:
            recipes.check_picture(image)
            with recipes.picture_errors("the picture"):
                return ImageOps.exif_transpose(image).convert("RGB")


def is_moving(file: Any) -> bool:
    """Whether a picture's file holds several frames, such as a GIF: then it is a video."""
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1) > 1 and image.format in ("GIF", "WEBP", "PNG")
    except Image.UnidentifiedImageError:
        return False
    except recipes_of_pictures().PICTURE_ERRORS:
        return False  # opening it will tell
    finally:
        file.seek(0)


# --- one input, whatever happens --------------------------------------------------------------------------------------

# What processors raise at inputs, beside what recipes.PICTURE_ERRORS names. Anything else is a defect of ours.
READING_ERRORS = (
    UserError,
    ValueError,
    OSError,
    MemoryError,
    TooSlow,
    RuntimeError,
    TypeError,
    LookupError,
    ArithmeticError,
)


@dataclass
class Careful:
    """A reader that gives a Failure for what cannot be read, and takes no more than its time.

    Attributes:
        reader: what reads.
        seconds: for one input.
    """

    reader: Reader
    seconds: float

    def __call__(self, source: Source) -> Union[Item, Failure]:
        if source.problem is not None:
            return Failure(source.problem)
        try:
            with time_limit(self.seconds):
                return self.reader(source)
        except TooSlow:
            return Failure(f"takes more than {self.seconds:g} s to read; --timeout gives it more")
        except MemoryError:
            return Failure("needs more memory than a worker is given")
        except READING_ERRORS as error:
            return Failure(reason_of(error, source))


def reason_of(error: BaseException, source: Source) -> str:
    """The error in a line; the input's name is known where it is read."""
    text = plain(error) or type(error).__name__
    path = plain(os.fsdecode(source.path))
    for beginning in (f"file {path!r} ", f"{path}: ", f"{path} ", "the clip: "):
        if text.startswith(beginning):
            text = text[len(beginning) :]
    return text


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TooSlow in the block after so many seconds; only where signals can be had, which is the main thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
