"""scikit-learn's 1,797 real handwritten digits (UCI optical recognition test set) as 8x8 pictures and PNG files."""

import io
import math
import random
from functools import lru_cache
from typing import List, Tuple

import numpy as np
from PIL import Image

from ..errors import UserError
from .data import affine_coefficients, stratified_split

SIDE = 8
BLOCK = 4  # side of the blocks of the scan that one pixel counts
LABELS = [str(digit) for digit in range(10)]
SPLIT_SEED = 0  # one fixed split for every run and both data sets, whatever --seed is
UNCHANGED = 0.2  # share of training digits that are shown as they are
VALIDATION_FRACTION, TEST_FRACTION = 0.08, 0.2


@lru_cache(maxsize=None)
def load() -> Tuple[np.ndarray, np.ndarray]:
    """Returns the pictures (1797, 8, 8) uint8, white ink on black, and the labels (1797,) int64."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the digits come with scikit-learn, which is not installed; run: pip install scikit-learn"
        ) from None
    digits = load_digits()
    return grey_levels(digits.images), digits.target.astype(np.int64)


@lru_cache(maxsize=None)
def split() -> Tuple[List[int], List[int], List[int]]:
    """Returns the indices of the training, validation and test digits."""
    train, validation, test = stratified_split(load()[1].tolist(), [VALIDATION_FRACTION, TEST_FRACTION], SPLIT_SEED)
    return train, validation, test


def picture(index: int) -> Image.Image:
    """Digit `index` as transformers' pipelines would open it from a file: 8x8 RGB."""
    return Image.fromarray(load()[0][index]).convert("RGB")


def png_bytes(index: int) -> bytes:
    """Digit `index` as an uncompressed RGB PNG file of 268 bytes."""
    file = io.BytesIO()
    picture(index).save(file, "PNG", compress_level=0)
    return file.getvalue()


def varied(index: int, generator: random.Random) -> Image.Image:
    """Digit `index`, slightly turned, scaled and shifted, as the scanner would have seen it.

    The source counted ink in 4x4 blocks of 32x32 black-and-white scans, which gave its 17 grey levels. Varying the
    enlarged, again black-and-white digit and counting anew keeps the pictures as sharp as the real ones; turning the 8x8
    grey picture itself would blur it, and a model trained on blurred digits fails on the real ones.
    """
    if generator.random() < UNCHANGED:
        return picture(index)
    coefficients = affine_coefficients(
        angle=math.radians(generator.uniform(-10, 10)),
        scale=1 + generator.uniform(-0.1, 0.1),
        shift=(BLOCK * generator.uniform(-0.7, 0.7), BLOCK * generator.uniform(-0.7, 0.7)),
        centre=SIDE * BLOCK / 2,
    )
    large = (SIDE * BLOCK, SIDE * BLOCK)
    scan = Image.fromarray(load()[0][index]).resize(large, Image.Resampling.BICUBIC)
    scan = scan.transform(large, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    ink = (np.asarray(scan) > 127).reshape(SIDE, BLOCK, SIDE, BLOCK).sum(axis=(1, 3))
    return Image.fromarray(grey_levels(ink)).convert("RGB")


def grey_levels(ink: np.ndarray) -> np.ndarray:
    """Ink from 0 to 16 -> uint8 grey from 0 to 255."""
    return np.rint(ink * (255 / BLOCK**2)).astype(np.uint8)
