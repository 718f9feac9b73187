# SPDX-License-Identifier: Apache-2.0
"""ByteFormer's image processor: images, or files, to the bytes that the model reads.

Source: the byte recipes of Horton et al., "Bytes Are All You Need", arXiv 2306.00238.

1. Images (PIL, arrays, tensors) go through the whole recipe: resize the shorter side (bicubic), centre crop, encode by
   Pillow or as raw pixels, reorder, keep a part, add noise, permute byte values, pad.
2. `bytes` and file paths are taken as they are: nothing is decoded, resized or encoded. The steps on bytes (reorder, keep,
   noise, permute) still apply, because they belong to the representation that the model was trained on.
3. Noise is drawn only when the recipe has a `noise_range`; the fixed permutations come from one seed (see FIXED_SEED).
4. `pipeline("image-classification")` decodes a file's path to an image first, so a path runs the whole recipe there; the
   exceptions are stated at the pipeline class below.

JPEG and PNG bytes are Pillow's: another Pillow or libjpeg build may encode the same image to other bytes.
"""

import io
import math
import os
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ImageProcessingMixin


FIXED_SEED = 2147483647  # every fixed permutation of the published recipes comes from this seed of torch's CPU generator
PADDING_ID = 256  # one past the largest byte: the model's padding row

PILLOW_OPTIONS = {"JPEG": {}, "PNG": {"compress_level": 0}, "TIFF": {"compression": None}}
RAW_ENCODINGS = ("fCHW", "fHWC")
FILE_ENCODINGS = (*PILLOW_OPTIONS, *RAW_ENCODINGS)
BYTE_ORDERS = ("reverse", "cyclic_half_length", "stride", "window_shuffle", "random_shuffle")
# Modes whose values Pillow would clip to 0..255 without a word when asked for RGB.
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


# --- bytes in, bytes out ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def fixed_permutation(length):
    """The seeded permutation of `range(length)`: (length,) int64, the same on every machine. Read only."""
    permutation = torch.randperm(length, generator=torch.Generator().manual_seed(FIXED_SEED)).numpy()
    permutation.setflags(write=False)
    return permutation


@lru_cache(maxsize=8)
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
        windows = data[:whole].reshape(-1, window)[:, fixed_permutation(window)]
        return np.concatenate([windows.reshape(-1), data[whole:]])
    if order == "random_shuffle":
        return data[torch.randperm(len(data), generator=generator).numpy()]
    raise ValueError(f"unknown byte_order {order!r}; accepted: None, {', '.join(BYTE_ORDERS)}")


def keep_bytes(data, fraction):
    """Keeps int(fraction * S) fixed positions of (S,) `data`, in their order."""
    positions = kept_positions(len(data), fraction)
    if len(positions) == 0:
        raise ValueError(f"keep_fraction {fraction} of {len(data)} bytes keeps none; give at least {math.ceil(1 / fraction)} bytes")
    return data[positions]


def add_noise(data, low, high, generator=None):
    """Adds an integer drawn uniformly from [low, high] to every byte of (S,) `data`, modulo 256."""
    noise = torch.randint(low, high + 1, (len(data),), generator=generator).numpy()
    return ((data + noise) % 256).astype(np.uint8)


def permute_byte_values(data):
    """new = P[old], with P the fixed permutation of the 256 byte values (it starts 239 90 81 175 9 100 40 32)."""
    return fixed_permutation(256).astype(np.uint8)[data]


def as_byte_array(content, what):
    """(S,) uint8 of a `bytes`-like object; an empty one is an error that names `what`."""
    data = np.frombuffer(content, dtype=np.uint8)
    if len(data) == 0:
        raise ValueError(f"{what} is empty: 0 bytes; at least 1 is needed")
    return data


def read_file(path):
    """(S,) uint8 of a whole file."""
    if not os.path.isfile(path):
        raise ValueError(f"no such file: {os.fspath(path)!r}; accepted: the path of a local file, or its content as bytes")
    with open(path, "rb") as file:
        return as_byte_array(file.read(), f"file {os.fspath(path)!r}")


def pad_batch(rows, return_tensors=None):
    """Pads byte sequences with PADDING_ID to the longest.

    Args:
        rows: list of (S_i,) uint8.
        return_tensors: "pt", "np" or None (lists of one array per row).

    Returns:
        BatchFeature with `input_ids` (B, S) int64, bytes or PADDING_ID, and `attention_mask` (B, S) int64, 1 on bytes.
    """
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"return_tensors must be None, 'pt' or 'np', got {return_tensors!r}")
    lengths = [len(row) for row in rows]
    input_ids = np.full((len(rows), max(lengths)), PADDING_ID, dtype=np.int64)
    for ids, row in zip(input_ids, rows):
        ids[: len(row)] = row
    attention_mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if return_tensors == "pt":
        batch = {name: torch.from_numpy(array) for name, array in batch.items()}
    elif return_tensors is None:
        batch = {name: list(array) for name, array in batch.items()}
    return BatchFeature(data=batch)


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
        if image.mode in WIDE_MODES:
            raise ValueError(f"image of mode {image.mode!r} has more than 8 bits a channel; scale it to 0..255 and convert it to 'L' or 'RGB' first")
        if 0 in image.size:
            raise ValueError(f"image is empty: width x height {image.width}x{image.height}")
        try:
            return image.convert("RGB")
        except (OSError, SyntaxError) as error:  # Pillow decodes here; a damaged file raises either
            raise ValueError(f"image cannot be decoded: {error}") from error
    pixels = to_channels_last(image, input_data_format)
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, axis=-1)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def to_channels_last(image, input_data_format=None):
    """An array or tensor as (H, W, C) uint8; see `to_rgb`."""
    is_tensor = isinstance(image, torch.Tensor)
    pixels = image.detach().cpu().numpy() if is_tensor else np.asarray(image)
    if pixels.ndim == 2:
        pixels, input_data_format = pixels[..., None], "channels_last"
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(f"image has shape {tuple(pixels.shape)}; accepted: (H, W), (H, W, C) or (C, H, W), none of them 0")
    if input_data_format is None:
        fits = {"channels_first": pixels.shape[0] in (1, 3, 4), "channels_last": pixels.shape[-1] in (1, 3, 4)}
        preferred = ("channels_first", "channels_last") if is_tensor else ("channels_last", "channels_first")
        input_data_format = next((layout for layout in preferred if fits[layout]), "channels_last")
    if input_data_format == "channels_first":
        pixels = pixels.transpose(1, 2, 0)
    elif input_data_format != "channels_last":
        raise ValueError(f"input_data_format must be None, 'channels_first' or 'channels_last', got {input_data_format!r}")
    if pixels.shape[-1] not in (1, 3, 4):
        raise ValueError(f"image of shape {tuple(np.shape(image))} has {pixels.shape[-1]} channels; accepted: 1, 3 or 4")
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
        raise ValueError(f"image values of dtype {pixels.dtype} must lie in [{low}, {high}], got {smallest} to {largest}")
    return pixels.astype(np.uint8) if scale == 1 else np.rint(pixels.astype(np.float64) * scale).astype(np.uint8)


def resize_image(image, size):
    """Bicubic. `size` {"shortest_edge": n} keeps the aspect ratio, {"height": h, "width": w} does not."""
    if "shortest_edge" in size:
        short, (width, height) = size["shortest_edge"], image.size
        if width <= height:
            target = (short, int(short * height / width))
        else:
            target = (int(short * width / height), short)
    else:
        target = (size["width"], size["height"])
    return image if image.size == target else image.resize(target, Image.Resampling.BICUBIC)


def center_crop(image, size):
    """The central `size` {"height", "width"}; a smaller image is padded with black on both sides."""
    left, top = (crop_offset(have, want) for have, want in zip(image.size, (size["width"], size["height"])))
    return image.crop((left, top, left + size["width"], top + size["height"]))


def crop_offset(have, want):
    # 5 of 10: round(2.5) = 2 (to even, as in the published preprocessing); 10 of 5: -2, two black before and three after
    return int(round((have - want) / 2)) if have >= want else -((want - have) // 2)


def encode_image(image, file_encoding, quality):
    """(S,) uint8: the image as a file of that encoding, or its raw RGB pixels channels first (fCHW) or last (fHWC)."""
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


def check_positive(name, value):
    if not is_integer(value) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_flag(name, value):
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_choice(name, value, accepted):
    if value is not None and value not in accepted:
        raise ValueError(f"unknown {name} {value!r}; accepted: None, {', '.join(accepted)}")


def check_keep_fraction(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value <= 1):
        raise ValueError(f"keep_fraction must be None or a number in (0, 1], got {value!r}")


def normalise_noise_range(value):
    """[low, high] or None."""
    if value is None:
        return None
    well_formed = isinstance(value, (list, tuple)) and len(value) == 2 and all(is_integer(bound) for bound in value)
    if not well_formed or value[0] > value[1]:
        raise ValueError(f"noise_range must be None or two integers [low, high] with low <= high, got {value!r}")
    return [int(bound) for bound in value]


def normalise_size(name, value, accepts_shortest_edge):
    """An integer, a pair or a dictionary as {"shortest_edge": n} or {"height": h, "width": w}."""
    if is_integer(value):
        value = {"shortest_edge": value} if accepts_shortest_edge else {"height": value, "width": value}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    accepted = [{"height", "width"}] + [{"shortest_edge"}] * accepts_shortest_edge
    if not isinstance(value, dict) or set(value) not in accepted:
        shortest = "{'shortest_edge': n}, " if accepts_shortest_edge else ""
        raise ValueError(f"{name} must be an integer, {shortest}{{'height': h, 'width': w}} or [h, w], got {value!r}")
    for key, length in value.items():
        check_positive(f"{name}[{key!r}]", length)
    return {key: int(length) for key, length in value.items()}


# --- the processor ----------------------------------------------------------------------------------------------------

ARGUMENTS = (
    "do_resize",
    "size",
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
        raise ValueError(f"{owner} does not know {', '.join(unknown)}; known: {', '.join(accepted)}")


class ByteFormerImageProcessor(ImageProcessingMixin):
    r"""Turns images or files into the bytes that a ByteFormer was trained on.

    Args:
        do_resize (`bool`): Resize the image, bicubic.
        size (`int`, `dict` or pair): Pixels. An integer or {"shortest_edge": n} sets the shorter side;
            {"height": h, "width": w} sets both.
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
            raise ValueError(f"quality must be an integer from 1 to 100, got {quality!r}")
        self.do_resize = do_resize
        self.size = normalise_size("size", size, accepts_shortest_edge=True)
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
            generator = torch.Generator().manual_seed(seed)
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
            raise ValueError(f"cannot read an image from {type(image).__name__}; accepted: PIL image, array, tensor, bytes or a file's path")
        if self.file_encoding is None:
            raise ValueError("file_encoding is None: this model reads files as they are; give a file's path or its bytes, or set file_encoding")
        image = to_rgb(image, input_data_format)
        if self.do_resize:
            image = resize_image(image, self.size)
        if self.do_center_crop:
            image = center_crop(image, self.crop_size)
        return encode_image(image, self.file_encoding, self.quality)

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


@lru_cache(maxsize=1)
def image_classification_pipeline():
    # Made on demand: importing the library's pipelines takes seconds, and only pipeline() needs them.
    from transformers import ImageClassificationPipeline

    class ByteFormerImageClassificationPipeline(ImageClassificationPipeline):
        """`pipeline("image-classification", model=folder, trust_remote_code=True)`.

        A path, address or PIL image is decoded to RGB as in every image pipeline and goes through the recipe. `bytes`
        are classified as they are, and so is a path when the processor's `file_encoding` is None.
        """

        def __init__(self, model, *args, image_processor=None, **kwargs):
            if image_processor is None:  # older releases of pipeline() find only the processors that the library ships
                revision = getattr(model.config, "_commit_hash", None) or "main"
                image_processor = ByteFormerImageProcessor.from_pretrained(model.config.name_or_path, revision=revision)
            super().__init__(model, *args, image_processor=image_processor, **kwargs)

        def check_model_type(self, supported_models):
            """Nothing to check: the library's list knows its own models only, and would log an error for this one."""

        def preprocess(self, image, timeout=None):
            as_it_is = isinstance(image, str) and self.image_processor.file_encoding is None
            if as_it_is or isinstance(image, bytes):
                return self.image_processor(image, return_tensors="pt")
            return super().preprocess(image, timeout=timeout)

    return ByteFormerImageClassificationPipeline


def __getattr__(name):
    if name == "ByteFormerImageClassificationPipeline":
        return image_classification_pipeline()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ByteFormerImageProcessor"]

ByteFormerImageProcessor.register_for_auto_class("AutoImageProcessor")
