# SPDX-License-Identifier: Apache-2.0
"""ByteFormer's image processor: images, or files, to the bytes that the model reads.

Source: the byte recipes of Horton et al., "Bytes Are All You Need", arXiv 2306.00238.

1. Images (PIL, arrays, tensors) go through the whole recipe: resize the shorter side, centre crop, encode by Pillow or as
   raw pixels, reorder, keep a part, add noise, permute byte values, pad.
2. `bytes` and file paths are taken as they are: nothing is decoded, resized or encoded. The steps on bytes (reorder, keep,
   noise, permute) still apply, because they belong to the representation that the model was trained on.
3. Noise is drawn only when the recipe has a `noise_range`; the fixed permutations come from one seed (see FIXED_SEED).
4. `pipeline("image-classification")` decodes a file's path to an image first, so a path runs the whole recipe there; the
   exceptions are stated at the pipeline class below.
5. Inputs may come from strangers: what they may ask for is bounded (MAX_BYTES, MAX_PIXELS) before anything is decoded.

JPEG and PNG bytes are Pillow's: another Pillow or libjpeg build may encode the same image to other bytes.
"""

import contextlib
import io
import math
import os
import reprlib
import struct
import zlib
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature, ImageProcessingMixin
from transformers.utils import logging

logger = logging.get_logger(__name__)

# --- Shared: from here to the end mark the two byte processors are equal letter for letter                          ---
# --- (tests/models/test_shared_code.py holds them so: a model's folder holds one of them, a question has one answer). ---

PADDING_ID = 256  # one past the largest byte: the model's padding row

# The released models read 0.15 MB at most; the bounds leave room for any model that can be computed, and keep memory below
# 1.5 GB.
MAX_BYTES = 2**25  # of one input, as the model reads it: it takes 16 bytes of memory for each
MAX_BATCH = 2**26  # bytes and padding of a batch in which there is more padding than bytes

PADDING_WARNING = (
    "Inputs of unequal lengths were padded to one batch. A model with mask_padding=False (as released) lets padding take part, "
    "which moves the scores: give it one input at a time (batch size 1), or use a model trained with mask_padding=True."
)

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 120


def shown(value):
    """A value as it stands in an error: `repr`, cut where it is long, without control characters."""
    return _brief.repr(value)


def as_byte_array(content, what):
    """(S,) uint8 of a `bytes`-like object; an empty or too long one is an error that names `what`."""
    try:
        data = np.frombuffer(content, dtype=np.uint8)
    except (ValueError, BufferError) as error:  # numpy's words for 0 bytes, and for a memoryview with gaps
        size = memoryview(content).nbytes
        raise ValueError(
            f"{what} is empty: 0 bytes; at least 1 is needed" if size == 0 else f"{what} cannot be read: {error}"
        ) from error
    check_length(len(data), what)
    return data


def check_length(length, what):
    if length == 0:
        raise ValueError(f"{what} is empty: 0 bytes; at least 1 is needed")
    if length > MAX_BYTES:
        raise ValueError(f"{what} has {length:,} bytes; accepted: at most {MAX_BYTES:,}")


def read_file(path, most=MAX_BYTES):
    """(S,) uint8 of a whole file, of `most` bytes or fewer."""
    if not os.path.isfile(path):
        raise ValueError(
            f"no such file: {shown(os.fspath(path))}; accepted: the path of a local file, or its content as bytes"
        )
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)  # whatever the file's size is said to be
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"file {shown(os.fspath(path))} cannot be read: {error.strerror}") from error
    if len(content) == 0:
        raise ValueError(f"file {shown(os.fspath(path))} is empty: 0 bytes; at least 1 is needed")
    if len(content) > most:
        raise ValueError(f"file {shown(os.fspath(path))} has {size:,} bytes; accepted: at most {most:,}")
    return np.frombuffer(content, dtype=np.uint8)


def pad_batch(rows, return_tensors=None):
    """Pads byte sequences with PADDING_ID to the longest; warns once where lengths differ.

    Args:
        rows: list of (S_i,) uint8.
        return_tensors: "pt", "np" or None (lists of one array per row).

    Returns:
        BatchFeature with `input_ids` (B, S) int64, bytes or PADDING_ID, and `attention_mask` (B, S) int64, 1 on bytes.
    """
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"return_tensors must be None, 'pt' or 'np', got {shown(return_tensors)}")
    lengths = [len(row) for row in rows]
    padded = len(rows) * max(lengths)
    if padded > max(MAX_BATCH, 2 * sum(lengths)):
        raise ValueError(
            f"{len(rows)} inputs of {min(lengths):,} to {max(lengths):,} bytes make a batch of {padded:,}, mostly padding; split it"
        )
    if min(lengths) < max(lengths):
        logger.warning_once(PADDING_WARNING)
    input_ids = np.full((len(rows), max(lengths)), PADDING_ID, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for ids, mask, row in zip(input_ids, attention_mask, rows):
        ids[: len(row)], mask[: len(row)] = row, 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if return_tensors == "pt":
        batch = {name: torch.from_numpy(array) for name, array in batch.items()}
    elif return_tensors is None:
        batch = {name: list(array) for name, array in batch.items()}
    return BatchFeature(data=batch)


def warn_of_padding(model, inputs):
    """Warns once where a pipeline's batch is padded for a model in which padding takes part."""
    mask = inputs.get("attention_mask")
    if mask is not None and not model.config.mask_padding and bool((mask == 0).any()):
        logger.warning_once(PADDING_WARNING)


def tensor_to_array(tensor):
    """A dense tensor of any device as a numpy array; bfloat16, which numpy does not have, as float32."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        kind = (
            "a meta"
            if tensor.is_meta
            else "a nested"
            if tensor.is_nested
            else f"a {tensor.layout}"
            if tensor.layout != torch.strided
            else "a quantised"
        )
        raise ValueError(f"got {kind} tensor; accepted: dense tensors that hold their values")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


# --- End of what the two files share ---

FIXED_SEED = (
    2147483647  # every fixed permutation of the published recipes comes from this seed of torch's CPU generator
)

MAX_PIXELS = 2**27  # of an image, before and after resizing
MAX_PICTURE_FILE = 2**29  # bytes of a file that the pipeline decodes
MAX_CACHED = 2**20  # longer permutations are made anew for each input

PILLOW_OPTIONS = {"JPEG": {}, "PNG": {"compress_level": 0}, "TIFF": {"compression": None}}
RAW_ENCODINGS = ("fCHW", "fHWC")
FILE_ENCODINGS = (*PILLOW_OPTIONS, *RAW_ENCODINGS)
MAX_NOISE = 2**31 - 1
BYTE_ORDERS = ("reverse", "cyclic_half_length", "stride", "window_shuffle", "random_shuffle")
# Modes whose values Pillow would clip to 0..255 without a word when asked for RGB.
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's decoders raise at damaged files, beside their own errors (which are OSErrors and SyntaxErrors).
PICTURE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
EXIF_ORIENTATION = 0x0112


# --- bytes in, bytes out ----------------------------------------------------------------------------------------------


def cached(make):
    """Remembers a few results of `make(length, ...)`, as long as they are short. They are read only."""
    remembered = lru_cache(maxsize=8)(make)
    return lambda length, *rest: (remembered if length <= MAX_CACHED else make)(length, *rest)


@cached
def fixed_permutation(length):
    """The seeded permutation of `range(length)`: (length,) int64, the same on every machine. Read only."""
    permutation = torch.randperm(length, generator=torch.Generator().manual_seed(FIXED_SEED)).numpy()
    permutation.setflags(write=False)
    return permutation


@cached
def kept_positions(length, fraction):
    """The first int(fraction * length) entries of the fixed permutation, as a set: ascending (kept,) int64. Read only."""
    positions = np.sort(fixed_permutation(length)[: int(fraction * length)])
    positions.setflags(write=False)
    return positions


def reorder_bytes(data, order, stride=1024, window=1024, generator=None):
    """Changes the order of `data` and nothing else.

    Args:
        data: (S,) uint8.
        order: None or one of BYTE_ORDERS.
        stride: for "stride": offsets 0, stride, 2 * stride, ..., then 1, stride + 1, ...
        window: for "window_shuffle": every whole window gets the same fixed permutation, the tail stays.
        generator: torch.Generator for "random_shuffle"; None draws from torch's global one.

    Returns:
        (S,) uint8, a new array or a view.
    """
    if order is None:
        return data
    if order == "reverse":
        return data[::-1]
    if order == "cyclic_half_length":
        return np.roll(data, len(data) // 2)
    if order == "stride":
        return data[np.argsort(np.arange(len(data)) % stride, kind="stable")]
    if order == "window_shuffle":
        whole = len(data) // window * window
        if whole == 0:
            return data
        windows = data[:whole].reshape(-1, window)[:, fixed_permutation(window)]
        return np.concatenate([windows.reshape(-1), data[whole:]])
    if order == "random_shuffle":
        return data[torch.randperm(len(data), generator=generator).numpy()]
    raise ValueError(f"unknown byte_order {shown(order)}; accepted: None, {', '.join(BYTE_ORDERS)}")


def keep_bytes(data, fraction):
    """Keeps int(fraction * S) fixed positions of (S,) `data`, in their order."""
    positions = kept_positions(len(data), fraction)
    if len(positions) == 0:
        least = f"at least {math.ceil(1 / fraction)} bytes" if fraction * MAX_BYTES >= 1 else "a larger fraction"
        raise ValueError(f"keep_fraction {fraction} of {len(data)} bytes keeps none; give {least}")
    return data[positions]


def add_noise(data, low, high, generator=None):
    """Adds an integer drawn uniformly from [low, high] to every byte of (S,) `data`, modulo 256."""
    noise = torch.randint(low, high + 1, (len(data),), generator=generator).numpy()
    return ((data + noise) % 256).astype(np.uint8)


def permute_byte_values(data):
    """new = P[old], with P the fixed permutation of the 256 byte values (it starts 239 90 81 175 9 100 40 32)."""
    return fixed_permutation(256).astype(np.uint8)[data]


# --- images in, encoded bytes out -------------------------------------------------------------------------------------


def to_rgb(image, input_data_format=None):
    """A PIL image, array or tensor as an RGB PIL image.

    Args:
        image: PIL image of 8 bits a channel; or (H, W), (H, W, C) or (C, H, W) with C 1, 3 or 4, integers in 0..255 or
            floats in [0, 1].
        input_data_format: "channels_first" or "channels_last". None guesses from the shape; when both fit, tensors count
            as channels first and arrays as channels last.
    """
    if isinstance(image, Image.Image):
        check_picture(image)
        with picture_errors("image"):
            if image.mode != "RGB":
                return image.convert("RGB")
            image.load()
            return image
    pixels = to_channels_last(image, input_data_format)
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, axis=-1)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def check_picture(image):
    """Refuses a PIL image by what its header says, before its pixels are decoded."""
    if image.mode in WIDE_MODES:
        raise ValueError(
            f"image of mode {image.mode!r} has more than 8 bits a channel; scale it to 0..255 and convert it to 'L' or 'RGB' first"
        )
    if 0 in image.size:
        raise ValueError(f"image is empty: width x height {image.width}x{image.height}")
    check_pixels(image.width, image.height, "image")


def check_pixels(width, height, what):
    if width * height > MAX_PIXELS:
        raise ValueError(f"{what} has {width} x {height} pixels; accepted: at most {MAX_PIXELS:,}")


@contextlib.contextmanager
def picture_errors(what):
    """Whatever Pillow raises inside the block becomes a ValueError of one line."""
    try:
        yield
    except PICTURE_ERRORS as error:
        raise ValueError(
            f"{what} cannot be decoded: {' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from error


def open_picture(path):
    """The picture in a file as every image pipeline opens it: upright by its EXIF orientation, RGB."""
    name = f"file {shown(os.fspath(path))}"
    size = os.stat(path).st_size if os.path.isfile(path) else None
    if size is None:
        raise ValueError(f"no such {name}; accepted: the path of a local picture")
    if size > MAX_PICTURE_FILE:
        raise ValueError(f"{name} has {size:,} bytes; accepted: at most {MAX_PICTURE_FILE:,}")
    with picture_errors(name), Image.open(path) as image:
        check_picture(image)
        turned = image.getexif().get(EXIF_ORIENTATION, 1) != 1
        return to_rgb(ImageOps.exif_transpose(image) if turned else image)


def to_channels_last(image, input_data_format=None):
    """An array or tensor as (H, W, C) uint8; see `to_rgb`."""
    is_tensor = isinstance(image, torch.Tensor)
    pixels = tensor_to_array(image) if is_tensor else np.asarray(image)
    if pixels.ndim == 2:
        pixels, input_data_format = pixels[..., None], "channels_last"
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(
            f"image has shape {tuple(pixels.shape)}; accepted: (H, W), (H, W, C) or (C, H, W), none of them 0"
        )
    if input_data_format is None:
        fits = {"channels_first": pixels.shape[0] in (1, 3, 4), "channels_last": pixels.shape[-1] in (1, 3, 4)}
        preferred = ("channels_first", "channels_last") if is_tensor else ("channels_last", "channels_first")
        input_data_format = next((layout for layout in preferred if fits[layout]), "channels_last")
    if input_data_format == "channels_first":
        pixels = pixels.transpose(1, 2, 0)
    elif input_data_format != "channels_last":
        raise ValueError(
            f"input_data_format must be None, 'channels_first' or 'channels_last', got {shown(input_data_format)}"
        )
    if pixels.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"image of shape {tuple(np.shape(image))} has {pixels.shape[-1]} channels; accepted: 1, 3 or 4"
        )
    check_pixels(pixels.shape[1], pixels.shape[0], "image")
    return to_uint8(pixels)


def to_uint8(pixels):
    """Integers in 0..255, or floats in [0, 1] scaled to them, as uint8."""
    if np.issubdtype(pixels.dtype, np.integer):
        low, high, scale = 0, 255, 1
    elif np.issubdtype(pixels.dtype, np.floating):
        low, high, scale = 0, 1, 255
    else:
        raise ValueError(f"image has dtype {pixels.dtype}; accepted: integers in 0..255 or floats in [0, 1]")
    smallest, largest = pixels.min(), pixels.max()
    if not (smallest >= low and largest <= high):  # written so that NaN fails too
        raise ValueError(
            f"image values of dtype {pixels.dtype} must lie in [{low}, {high}], got {smallest} to {largest}"
        )
    return pixels.astype(np.uint8) if scale == 1 else np.rint(pixels.astype(np.float64) * scale).astype(np.uint8)


def resize_image(image, size, resample=Image.Resampling.BICUBIC):
    """`size` {"shortest_edge": n} keeps the aspect ratio, {"height": h, "width": w} does not."""
    if "shortest_edge" in size:
        short, (width, height) = size["shortest_edge"], image.size
        if width <= height:
            target = (short, int(short * height / width))
        else:
            target = (int(short * width / height), short)
    else:
        target = (size["width"], size["height"])
    check_pixels(*target, f"image of {image.width} x {image.height}, resized,")
    check_pixels(
        target[0], image.height, f"image of {image.width} x {image.height}, resized in its width,"
    )  # Pillow's first step
    return image if image.size == target else image.resize(target, resample)


def center_crop(image, size):
    """The central `size` {"height", "width"}; a smaller image is padded with black on both sides."""
    left, top = (crop_offset(have, want) for have, want in zip(image.size, (size["width"], size["height"])))
    return image.crop((left, top, left + size["width"], top + size["height"]))


def crop_offset(have, want):
    # 383 - 224 = 159: 79, rounded down as in the published preprocessing; 5 - 10: -2, two black before and three after
    return (have - want) // 2 if have >= want else -((want - have) // 2)


def encode_image(image, file_encoding, quality):
    """(S,) uint8: the image as a file of that encoding, or its raw RGB pixels channels first (fCHW) or last (fHWC)."""
    if image.width * image.height > MAX_BYTES:
        raise ValueError(
            f"image to encode has {image.width} x {image.height} pixels; accepted: at most {MAX_BYTES:,}; resize or crop it"
        )
    if file_encoding in RAW_ENCODINGS:
        pixels = np.asarray(image)  # (H, W, 3)
        return (pixels.transpose(2, 0, 1) if file_encoding == "fCHW" else pixels).reshape(-1)
    options = {"quality": quality} if file_encoding == "JPEG" else PILLOW_OPTIONS[file_encoding]
    # A fresh image drops what the file said of itself (profiles, comments, resolution): Pillow would write it again.
    clean = Image.frombytes("RGB", image.size, image.tobytes())
    buffer = io.BytesIO()
    clean.save(buffer, format=file_encoding, **options)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


# --- checks of the arguments ------------------------------------------------------------------------------------------


def is_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_positive(name, value, most=MAX_BYTES):
    if not is_integer(value) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {shown(value)}")


def check_flag(name, value):
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def check_choice(name, value, accepted):
    if value is not None and value not in accepted:
        raise ValueError(f"unknown {name} {shown(value)}; accepted: None, {', '.join(accepted)}")


def check_keep_fraction(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value <= 1):
        raise ValueError(f"keep_fraction must be None or a number in (0, 1], got {shown(value)}")


def normalise_noise_range(value):
    """[low, high] or None."""
    if value is None:
        return None
    well_formed = isinstance(value, (list, tuple)) and len(value) == 2 and all(is_integer(bound) for bound in value)
    if not well_formed or value[0] > value[1]:
        raise ValueError(f"noise_range must be None or two integers [low, high] with low <= high, got {shown(value)}")
    if max(map(abs, value)) > MAX_NOISE:
        raise ValueError(
            f"noise_range must lie in [-{MAX_NOISE}, {MAX_NOISE}] (it is added modulo 256), got {shown(value)}"
        )
    return [int(bound) for bound in value]


def normalise_resample(value):
    """A filter of Pillow by number or name as its number, which JSON can hold."""
    if isinstance(value, str) and value.upper() in Image.Resampling.__members__:
        return int(Image.Resampling[value.upper()])
    if is_integer(value) and value in list(Image.Resampling):
        return int(value)
    accepted = ", ".join(f"{filter.name.lower()} ({int(filter)})" for filter in Image.Resampling)
    raise ValueError(f"resample must be a filter of Pillow, {accepted}, got {shown(value)}")


def normalise_size(name, value, accepts_shortest_edge):
    """An integer, a pair or a dictionary as {"shortest_edge": n} or {"height": h, "width": w}."""
    if is_integer(value):
        value = {"shortest_edge": value} if accepts_shortest_edge else {"height": value, "width": value}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    accepted = [{"height", "width"}] + [{"shortest_edge"}] * accepts_shortest_edge
    if not isinstance(value, dict) or set(value) not in accepted:
        shortest = "{'shortest_edge': n}, " if accepts_shortest_edge else ""
        raise ValueError(
            f"{name} must be an integer, {shortest}{{'height': h, 'width': w}} or [h, w], got {shown(value)}"
        )
    for key, length in value.items():
        check_positive(f"{name}[{key!r}]", length)
    sides = [*value.values(), *value.values()][:2]  # the shortest edge is at least the side of a square
    check_pixels(*sides, name)
    return {key: int(length) for key, length in value.items()}


# --- the processor ----------------------------------------------------------------------------------------------------

ARGUMENTS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "file_encoding",
    "quality",
    "byte_order",
    "byte_order_stride",
    "byte_order_window",
    "keep_fraction",
    "noise_range",
    "permute_bytes",
)
# What transformers writes into, or passes on from, preprocessor_config.json beside the arguments.
METADATA = ("auto_map", "processor_class", "image_processor_type", "feature_extractor_type")


def refuse_unknown(owner, arguments, accepted):
    unknown = sorted(set(arguments) - set(accepted))
    if unknown:
        raise ValueError(
            f"{owner} does not know {', '.join(name[:40] for name in unknown[:3])}; known: {', '.join(accepted)}"
        )


class ByteFormerImageProcessor(ImageProcessingMixin):
    r"""Turns images or files into the bytes that a ByteFormer was trained on.

    Args:
        do_resize (`bool`): Resize the image.
        size (`int`, `dict` or pair): Pixels. An integer or {"shortest_edge": n} sets the shorter side;
            {"height": h, "width": w} sets both.
        resample (`int` or `str`): Pillow's filter for resizing, by number or name: 3, "bicubic" (as released), 2, "bilinear", ...
        do_center_crop (`bool`): Cut out the centre; smaller images are padded with black.
        crop_size (`int`, `dict` or pair): Pixels, {"height": h, "width": w}.
        file_encoding (`str`, *optional*): "JPEG", "PNG" (uncompressed), "TIFF" (uncompressed), or raw RGB pixels: "fCHW",
            "fHWC". None: the model reads files as they are, and images are refused.
        quality (`int`): JPEG quality, 1 to 100. Other encodings ignore it.
        byte_order (`str`, *optional*): None, "reverse", "cyclic_half_length" (rolled by half), "stride" (all offsets 0, then
            1, ...), "window_shuffle" (one fixed permutation in each whole window, the tail kept), "random_shuffle" (drawn
            anew for each input).
        byte_order_stride (`int`): Bytes, for "stride".
        byte_order_window (`int`): Bytes, for "window_shuffle".
        keep_fraction (`float`, *optional*): Keep this part, in (0, 1], of the positions: a fixed choice for each length.
        noise_range (pair of `int`, *optional*): [low, high]; noise drawn from it, both ends included, is added modulo 256.
        permute_bytes (`bool`): Map byte values through the fixed permutation.

    Example:

    ```python
    >>> processor = ByteFormerImageProcessor(file_encoding="JPEG", quality=60)
    >>> inputs = processor(image, return_tensors="pt")          # the recipe
    >>> inputs = processor("photo.jpg", return_tensors="pt")    # the file's own bytes
    >>> logits = model(**inputs).logits
    ```
    """

    model_input_names = ["input_ids", "attention_mask"]
    # Read by transformers' pipelines to batch results (`batch_size=...`).
    padding_value = PADDING_ID
    padding_side = "right"

    def __init__(
        self,
        do_resize=True,
        size=256,
        resample=3,
        do_center_crop=True,
        crop_size=224,
        file_encoding="TIFF",
        quality=100,
        byte_order=None,
        byte_order_stride=1024,
        byte_order_window=1024,
        keep_fraction=None,
        noise_range=None,
        permute_bytes=False,
        **kwargs,
    ):
        refuse_unknown(type(self).__name__, [key for key in kwargs if key not in METADATA], ARGUMENTS)
        super().__init__()
        check_flag("do_resize", do_resize)
        check_flag("do_center_crop", do_center_crop)
        check_flag("permute_bytes", permute_bytes)
        check_choice("file_encoding", file_encoding, FILE_ENCODINGS)
        check_choice("byte_order", byte_order, BYTE_ORDERS)
        check_positive("byte_order_stride", byte_order_stride)
        check_positive("byte_order_window", byte_order_window)
        check_keep_fraction(keep_fraction)
        if not is_integer(quality) or not 1 <= quality <= 100:
            raise ValueError(f"quality must be an integer from 1 to 100, got {shown(quality)}")
        self.do_resize = do_resize
        self.size = normalise_size("size", size, accepts_shortest_edge=True)
        self.resample = normalise_resample(resample)
        self.do_center_crop = do_center_crop
        self.crop_size = normalise_size("crop_size", crop_size, accepts_shortest_edge=False)
        self.file_encoding = file_encoding
        self.quality = int(quality)
        self.byte_order = byte_order
        self.byte_order_stride = int(byte_order_stride)
        self.byte_order_window = int(byte_order_window)
        self.keep_fraction = keep_fraction
        self.noise_range = normalise_noise_range(noise_range)
        self.permute_bytes = permute_bytes

    @classmethod
    def from_dict(cls, image_processor_dict, **kwargs):
        """As the base class has it, on every release: arguments in `kwargs` win, keys that are no arguments are left out."""
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        arguments = {key: value for key, value in image_processor_dict.items() if key in ARGUMENTS}
        arguments.update({key: kwargs.pop(key) for key in ARGUMENTS if key in kwargs})
        processor = cls(**arguments)
        return (processor, kwargs) if return_unused_kwargs else processor

    def __call__(self, images, return_tensors=None, input_data_format=None, seed=None, generator=None, **overrides):
        """Makes a padded batch of byte sequences.

        Args:
            images: One of these, or a list of them: a PIL image; an array or tensor (H, W), (H, W, C) or (C, H, W) of
                integers in 0..255 or floats in [0, 1]; `bytes`; a file's path (`str` or `Path`). An array or tensor of
                four dimensions is a batch.
            return_tensors: "pt", "np" or None (lists of arrays).
            input_data_format: "channels_first" or "channels_last", for arrays and tensors whose shape does not tell.
            seed: Makes noise and "random_shuffle" reproducible; drawn in the order of the batch.
            generator: torch.Generator on the CPU, in place of `seed`. With neither, torch's global one.
            overrides: Arguments of the constructor, for this call only.

        Returns:
            BatchFeature with `input_ids` (B, S) int64, bytes or 256 as padding, and `attention_mask` (B, S) int64.

        Raises:
            ValueError: an empty, damaged or unreadable input, or an argument out of its range.
        """
        if overrides:
            refuse_unknown(type(self).__name__, overrides, ARGUMENTS)
            changed = type(self)(**{**{key: getattr(self, key) for key in ARGUMENTS}, **overrides})
            return changed(images, return_tensors, input_data_format, seed, generator)
        if seed is not None:
            if generator is not None:
                raise ValueError("give seed or generator, not both")
            if not is_integer(seed) or not -(2**63) <= seed < 2**64:
                raise ValueError(f"seed must be an integer of 64 bits, got {shown(seed)}")
            generator = torch.Generator().manual_seed(int(seed))
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ValueError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        rows = [self.transform_bytes(self.source_bytes(one, input_data_format), generator) for one in as_list(images)]
        return pad_batch(rows, return_tensors)

    def preprocess(self, images, **kwargs):
        """The library's other name for calling the processor."""
        return self(images, **kwargs)

    def source_bytes(self, image, input_data_format=None):
        """(S,) uint8 of one input: a file's own bytes, or an image resized, cropped and encoded."""
        if isinstance(image, (bytes, bytearray, memoryview)):
            return as_byte_array(image, "the bytes object")
        if isinstance(image, (str, os.PathLike)):
            return read_file(image)
        if not isinstance(image, (Image.Image, np.ndarray, torch.Tensor)):
            raise ValueError(
                f"cannot read an image from {type(image).__name__}; accepted: PIL image, array, tensor, bytes or a file's path"
            )
        if self.file_encoding is None:
            raise ValueError(
                "file_encoding is None: this model reads files as they are; give a file's path or its bytes, or set file_encoding"
            )
        image = to_rgb(image, input_data_format)
        if self.do_resize:
            image = resize_image(image, self.size, self.resample)
        if self.do_center_crop:
            image = center_crop(image, self.crop_size)
        data = encode_image(image, self.file_encoding, self.quality)
        check_length(len(data), f"image as {self.file_encoding}")
        return data

    def transform_bytes(self, data, generator=None):
        """The steps on bytes, in their order: reorder, keep, noise, permute. (S,) uint8 -> (S or fewer,) uint8."""
        data = reorder_bytes(data, self.byte_order, self.byte_order_stride, self.byte_order_window, generator)
        if self.keep_fraction is not None:
            data = keep_bytes(data, self.keep_fraction)
        if self.noise_range is not None:
            data = add_noise(data, *self.noise_range, generator=generator)
        return permute_byte_values(data) if self.permute_bytes else data


def as_list(inputs):
    """A batch as a list: lists, tuples, and arrays or tensors of four dimensions; anything else is a batch of one."""
    if isinstance(inputs, (np.ndarray, torch.Tensor)) and inputs.ndim == 4:
        inputs = list(inputs)
    if not isinstance(inputs, (list, tuple)):
        return [inputs]
    if not inputs:
        raise ValueError("got an empty list; at least one input is needed")
    return list(inputs)


# --- the pipeline -----------------------------------------------------------------------------------------------------


def fetched_picture(address, timeout=None):
    """The picture at an address, or in base64 text, as the library fetches it."""
    from transformers.image_utils import load_image

    with picture_errors(f"{shown(address)}, which is neither a local file nor an address or base64 text of a picture,"):
        return load_image(address, timeout=timeout)


@lru_cache(maxsize=1)
def image_classification_pipeline():
    # Made on demand: importing the library's pipelines takes seconds, and only pipeline() needs them.
    from transformers import ImageClassificationPipeline

    class ByteFormerImageClassificationPipeline(ImageClassificationPipeline):
        """`pipeline("image-classification", model=folder, trust_remote_code=True)`.

        A path, address or PIL image is decoded to RGB as in every image pipeline and goes through the recipe. `bytes`
        are classified as they are, and so is a path when the processor's `file_encoding` is None. Files of unequal lengths
        in one batch are padded, which moves the scores of a model with `mask_padding=False`: a warning says so.
        """

        def __init__(self, model, *args, image_processor=None, **kwargs):
            if image_processor is None:  # older releases of pipeline() find only the processors that the library ships
                revision = getattr(model.config, "_commit_hash", None) or "main"
                image_processor = ByteFormerImageProcessor.from_pretrained(model.config.name_or_path, revision=revision)
            super().__init__(model, *args, image_processor=image_processor, **kwargs)

        def check_model_type(self, supported_models):
            """Nothing to check: the library's list knows its own models only, and would log an error for this one."""

        def preprocess(self, image, timeout=None):
            undecoded = isinstance(image, (str, os.PathLike)) and self.image_processor.file_encoding is None
            if not undecoded and isinstance(image, (str, os.PathLike)):
                image = open_picture(image) if os.path.isfile(image) else fetched_picture(os.fspath(image), timeout)
            return self.image_processor(image, return_tensors="pt")

        def _forward(self, model_inputs):
            warn_of_padding(self.model, model_inputs)
            return super()._forward(model_inputs)

    return ByteFormerImageClassificationPipeline


def __getattr__(name):
    if name == "ByteFormerImageClassificationPipeline":
        return image_classification_pipeline()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ByteFormerImageProcessor"]

ByteFormerImageProcessor.register_for_auto_class("AutoImageProcessor")
