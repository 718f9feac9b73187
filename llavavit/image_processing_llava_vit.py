# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT's processor of images at their own size and aspect, packed: for models trained with native resolution.

1. A folder names it as `image_processor_type`; in other folders transformers' CLIPImageProcessor resizes to a square.
2. Sides are rounded to whole patches, and an image of more than `max_num_patches` is made smaller, its aspect kept.
3. The images of a call stand in one pack, as `pack` of the model makes it: nothing is padded, each attends to itself alone.
4. `pipeline("image-classification")` of older transformers finds only the library's own processors; a folder with this one
   gets the pipeline at the end of this file, which opens a file as training did.
"""

import itertools
import math
import os
import struct
import zlib
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature, ImageProcessingMixin

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Pillow would clip the values of these modes to 0..255 without a word.
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's decoders raise at damaged files, beside their own errors (which are OSErrors and SyntaxErrors).
PICTURE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


# --- checks of the arguments ------------------------------------------------------------------------------------------


def check_positive(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def check_triple(name, value, accepts):
    numbers = list(value) if isinstance(value, (list, tuple, np.ndarray)) else []
    if len(numbers) != 3 or not all(
        isinstance(number, (int, float, np.number)) and accepts(number) for number in numbers
    ):
        raise ValueError(
            f"{name} must be three numbers, one for each channel{'' if accepts(-1) else ', above 0'}, got {value!r}"
        )
    return [float(number) for number in numbers]


def refuse_unknown(owner, arguments, accepted):
    unknown = sorted(set(arguments) - set(accepted))
    if unknown:
        raise ValueError(f"{owner} does not know {', '.join(unknown)}; known: {', '.join(accepted)}")


# --- images in, pixels out --------------------------------------------------------------------------------------------


def open_image(path):
    """The image in a file: upright by its EXIF orientation, RGB.

    Raises:
        ValueError: No such file, or not an image that can be decoded; the message begins with the path.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(check_image(image)).convert("RGB")
    except PICTURE_ERRORS as error:
        raise ValueError(f"{os.fspath(path)}: cannot be read as an image: {error}") from error


def to_rgb(image):
    """A PIL image, a file's path, or uint8 pixels (H, W), (H, W, 3) or (3, H, W), as an upright RGB image."""
    if isinstance(image, (str, os.PathLike)):
        return open_image(image)
    if isinstance(image, (np.ndarray, torch.Tensor)):
        image = Image.fromarray(to_channels_last(as_array(image)))
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"an image must be a PIL image, a file's path, an array or a tensor, got {type(image).__name__}"
        )
    return upright_rgb(check_image(image), getattr(image, "filename", "") or "an image")


def check_image(image):
    """The PIL image, undecoded; ValueError if it is empty or its values are wider than 8 bits."""
    if image.mode in WIDE_MODES:
        raise ValueError(f"an image of mode {image.mode!r} has more than 8 bits a channel; scale it to 'L' or 'RGB'")
    if 0 in image.size:
        raise ValueError(f"an image must not be empty, got {image.width} x {image.height} pixels")
    return image


def upright_rgb(image, name):
    """A PIL image, decoded where it has not been yet: upright by its EXIF orientation, RGB.

    Raises:
        ValueError: It cannot be decoded; the message begins with the name.
    """
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except PICTURE_ERRORS as error:
        raise ValueError(f"{name}: cannot be decoded: {error}") from error


def as_array(pixels):
    """An array, or a tensor of any device and dtype as one: NumPy has no bfloat16, which becomes float32."""
    if not isinstance(pixels, torch.Tensor):
        return pixels
    pixels = pixels.detach().cpu()
    narrow = pixels.is_floating_point() and pixels.element_size() < 4
    return (pixels.float() if narrow else pixels).numpy()


def to_channels_last(pixels):
    """(H, W), (H, W, 3) or (3, H, W) uint8 -> (H, W) or (H, W, 3)."""
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or (len(shape) == 3 and 3 not in (shape[0], shape[-1])):
        raise ValueError(
            f"pixels must be uint8 (H, W), (H, W, 3) or (3, H, W), got {pixels.dtype} of shape {tuple(shape)}"
        )
    return np.ascontiguousarray(pixels if len(shape) == 2 or shape[-1] == 3 else pixels.transpose(1, 2, 0))


def fitting_grid(height, width, side, most):
    """Rows and columns of blocks that stand for an image, at most `most` of them: the nearest to its size and aspect.

    Args:
        height, width: Pixels of the image.
        side: Pixels of a block's side.
        most: Of blocks; an image of more is scaled down.
    """
    scale = min(1.0, side * math.sqrt(most / (height * width)))
    exact = [min(max(extent * scale / side, 1.0), float(most)) for extent in (height, width)]
    nearby = itertools.product(*((math.floor(extent), math.ceil(extent)) for extent in exact))
    fitting = [grid for grid in nearby if grid[0] * grid[1] <= most]
    return min(fitting, key=lambda grid: sum((blocks - extent) ** 2 for blocks, extent in zip(grid, exact)))


def as_list(images):
    """A batch as a list: lists, tuples, and arrays or tensors of four dimensions; anything else is a batch of one."""
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        images = list(images)
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if not images:
        raise ValueError("images: the list is empty; give at least one image")
    return images


# --- the processor ----------------------------------------------------------------------------------------------------

ARGUMENTS = ("patch_size", "max_num_patches", "merge_size", "image_mean", "image_std")
METADATA = ("auto_map", "image_processor_type", "processor_class")


class LlavaViTImageProcessor(ImageProcessingMixin):
    r"""Turns images of any sizes into one pack, as a LLaVA-ViT that was trained with native resolution reads it.

    Args:
        patch_size (`int`): Side p of the model's patches, pixels.
        max_num_patches (`int`): Of one image; one of more is made smaller.
        merge_size (`int`): Side of the blocks of a model's merger, in patches: sides are whole blocks, patches come block
            by block. 1 without a merger.
        image_mean, image_std (three `float`): Of the channels' values in [0, 1].

    Example:

    ```python
    >>> processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    >>> inputs = processor([Image.open("wide.jpg"), Image.open("tall.jpg")], return_tensors="pt")
    >>> model(**inputs).logits.shape  # one row for each image
    torch.Size([2, 10])
    ```
    """

    model_input_names = ["pixel_values", "patch_positions", "grid_thw"]

    def __init__(
        self, patch_size=16, max_num_patches=1024, merge_size=1, image_mean=CLIP_MEAN, image_std=CLIP_STD, **kwargs
    ):
        refuse_unknown(type(self).__name__, [key for key in kwargs if key not in METADATA], ARGUMENTS)
        super().__init__()
        self.patch_size = check_positive("patch_size", patch_size)
        self.max_num_patches = check_positive("max_num_patches", max_num_patches)
        self.merge_size = check_positive("merge_size", merge_size)
        if self.max_num_patches < self.merge_size**2:
            raise ValueError(
                f"max_num_patches must be at least a block of merge_size {self.merge_size}, {self.merge_size**2}, "
                f"got {self.max_num_patches}"
            )
        self.image_mean = check_triple("image_mean", image_mean, lambda number: True)
        self.image_std = check_triple("image_std", image_std, lambda number: number > 0)

    @classmethod
    def from_dict(cls, image_processor_dict, **kwargs):
        """From the content of preprocessor_config.json; arguments in `kwargs` win.

        Raises:
            ValueError: The content is another processor's, which would read images otherwise.
        """
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        kind = image_processor_dict.get("image_processor_type") or cls.__name__
        if kind != cls.__name__:
            raise ValueError(
                f"preprocessor_config.json is of {kind}, which reads images otherwise; AutoProcessor gives what the folder "
                f"was made for, {cls.__name__}(patch_size=..., max_num_patches=...) this one"
            )
        arguments = {key: value for key, value in image_processor_dict.items() if key in ARGUMENTS}
        arguments.update({key: kwargs.pop(key) for key in ARGUMENTS if key in kwargs})
        processor = cls(**arguments)
        return (processor, kwargs) if return_unused_kwargs else processor

    def __call__(self, images, return_tensors=None, **overrides):
        """Makes one pack of images.

        Args:
            images: One of these, or a list of them: a PIL image, a file's path, or an array or tensor of uint8 (H, W),
                (H, W, 3) or (3, H, W). One of four dimensions is a batch.
            return_tensors: "pt", "np" or None (arrays).
            overrides: Arguments of the constructor, for this call only.

        Returns:
            BatchFeature with `pixel_values` (P, 3*p*p) float32, the patches of all images one after the other,
            `patch_positions` (P, 3) int64, and `grid_thw` (S, 3) int64, each image's 1, rows and columns of patches.

        Raises:
            ValueError: An image cannot be read, or an argument is out of its range.
        """
        if overrides:
            refuse_unknown(type(self).__name__, overrides, ARGUMENTS)
            changed = type(self)(**{**{key: getattr(self, key) for key in ARGUMENTS}, **overrides})
            return changed(images, return_tensors)
        patches, positions, grids = zip(*(self.patches_of(to_rgb(image)) for image in as_list(images)))
        data = {
            "pixel_values": np.concatenate(patches),
            "patch_positions": np.concatenate(positions),
            "grid_thw": np.array(grids),
        }
        return BatchFeature(data, tensor_type=return_tensors)

    def preprocess(self, images, **kwargs):
        """The library's other name for calling the processor."""
        return self(images, **kwargs)

    def patches_of(self, image):
        """An RGB image -> its patches (N, 3*p*p), their positions (N, 3), and its grid (1, rows, columns)."""
        merge, side = self.merge_size, self.patch_size
        rows, columns = fitting_grid(image.height, image.width, merge * side, self.max_num_patches // merge**2)
        extent = (columns * merge * side, rows * merge * side)
        if extent != image.size:
            image = image.resize(extent, Image.Resampling.BICUBIC)
        pixels = (np.asarray(image, dtype=np.float32) / 255 - np.float32(self.image_mean)) / np.float32(self.image_std)
        blocks = pixels.reshape(rows, merge, side, columns, merge, side, 3)
        patches = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3 * side**2)  # channel, row, column in a patch
        places = np.indices((1, rows * merge, columns * merge)).reshape(3, rows, merge, columns, merge)
        positions = places.transpose(1, 3, 2, 4, 0).reshape(-1, 3)
        return patches, positions, (1, rows * merge, columns * merge)


# --- the pipeline -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def image_classification_pipeline():
    # Made on demand: importing the library's pipelines takes seconds, and only pipeline() needs them.
    from transformers import ImageClassificationPipeline
    from transformers.image_utils import load_image

    class LlavaViTImageClassificationPipeline(ImageClassificationPipeline):
        """`pipeline("image-classification", model=folder, trust_remote_code=True)` of a native-resolution folder."""

        def __init__(self, model, *args, image_processor=None, **kwargs):
            if image_processor is None:  # older releases of pipeline() find only the processors that the library ships
                revision = getattr(model.config, "_commit_hash", None) or "main"
                image_processor = LlavaViTImageProcessor.from_pretrained(model.config.name_or_path, revision=revision)
            if type(image_processor).__name__ != LlavaViTImageProcessor.__name__:  # or of another copy of this file
                raise ValueError(
                    "this model was trained on images at native resolution, which LlavaViTImageProcessor reads, got "
                    f"{type(image_processor).__name__}; leave image_processor out"
                )
            super().__init__(model, *args, image_processor=image_processor, **kwargs)

        def check_model_type(self, supported_models):
            """Nothing to check: the library's list knows its own models only, and would log an error for this one."""

        def preprocess(self, image, timeout=None):
            address = isinstance(image, str) and not os.path.exists(image)
            return self.image_processor(load_image(image, timeout=timeout) if address else image, return_tensors="pt")

    return LlavaViTImageClassificationPipeline


def __getattr__(name):
    if name == "LlavaViTImageClassificationPipeline":
        return image_classification_pipeline()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["LlavaViTImageProcessor"]

LlavaViTImageProcessor.register_for_auto_class("AutoImageProcessor")
