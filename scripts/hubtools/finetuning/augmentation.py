"""Variations of training pictures: another one in every epoch, decided by seed, epoch and index alone."""

import math
import random
from typing import Optional

from PIL import Image

AUGMENTATIONS = ("none", "flip", "crop", "crop+flip")
LEAST_AREA = 0.35  # of the picture, that a crop shows
MOST_STRETCH = 4 / 3


def varied(picture: Image.Image, how: str, seed: int, epoch: int, index: int) -> Image.Image:
    """The picture, mirrored half of the time (flip), or a random part of it brought to the picture's size (crop)."""
    generator = random.Random(f"picture {seed} {epoch} {index}")
    if "crop" in how:
        picture = picture.resize(picture.size, Image.Resampling.BICUBIC, box=random_part(picture.size, generator))
    if "flip" in how and generator.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


def random_part(size: "tuple[int, int]", generator: random.Random) -> "tuple[float, float, float, float]":
    """A box (left, top, right, bottom) in pixels, of LEAST_AREA to all of the area, stretched up to MOST_STRETCH either way."""
    width, height = size
    side = math.sqrt(generator.uniform(LEAST_AREA, 1))
    stretch = math.exp(generator.uniform(-1, 1) * math.log(MOST_STRETCH) / 2)
    part_width, part_height = min(side * stretch, 1) * width, min(side / stretch, 1) * height
    left, top = generator.uniform(0, width - part_width), generator.uniform(0, height - part_height)
    return left, top, min(left + part_width, width), min(top + part_height, height)


class Variation:
    """What is done to the training pictures in one run; None where nothing is.

    Args:
        how: one of AUGMENTATIONS.
        seed: of the run.
    """

    def __init__(self, how: str, seed: int):
        self.how, self.seed = how, seed

    def __call__(self, picture: Image.Image, epoch: int, index: int) -> Image.Image:
        return varied(picture, self.how, self.seed, epoch, index)


def variation(how: str, seed: int) -> Optional[Variation]:
    return None if how == "none" else Variation(how, seed)
