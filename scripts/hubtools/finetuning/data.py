"""What every data set looks like to the training code."""

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Hashable, List, Optional, Sequence, Tuple

import torch
from torch.utils.data import Dataset


@dataclass
class Data:
    """Three disjoint splits, already in the form that the model takes, and what the model card says about them.

    Attributes:
        train: items with an integer `labels`; may have `set_epoch(epoch)` for new variations in every epoch.
        validation: chooses the best checkpoint.
        test: measured once, at the end; nothing else looks at it.
        labels: class names; the index is the label id.
        task: "image", "video" or "audio": which Auto class heads the model.
        collate: list of items -> batch of tensors.
        name: of the data set, short.
        description: one line for the card.
        reading: how files became inputs, for the card, where the processor's kind alone does not tell.
        processor_settings: what the trained model's processor must say otherwise than the one it started with, so that a
            pipeline reads files as training did.
        video_processor_settings: the same, for its video processor.
        apart: batch -> (indices, inputs) of parts without padding, where padding would move the scores: the model is measured
            on those, as a pipeline sees one input at a time.
        sparse_inputs: batch -> the inputs that restrict the model to a part of it, where the data know one. Every second
            training step uses them, and the test is measured with and without.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: List[str]
    task: str
    collate: Callable[[list], dict]
    name: str
    description: str
    reading: str = ""
    processor_settings: Dict[str, Any] = field(default_factory=dict)
    video_processor_settings: Dict[str, Any] = field(default_factory=dict)
    apart: Optional[Callable[[dict], List[Tuple[torch.Tensor, dict]]]] = None
    sparse_inputs: Optional[Callable[[dict], dict]] = None


def stratified_split(classes: Sequence[Hashable], fractions: Sequence[float], seed: int) -> List[List[int]]:
    """Cuts the indices of `classes` into parts, each with its fraction of every class.

    Uses Python's Mersenne Twister, whose stream the language fixes, so that the split is the same for everyone.

    Args:
        classes: the class of each item.
        fractions: share of each part but the first, which gets the rest.
        seed: of the shuffle inside each class.

    Returns:
        len(fractions) + 1 ascending lists of indices. A class with at least as many items as parts has one in every part.
    """
    members: Dict[Hashable, List[int]] = defaultdict(list)
    for index, label in enumerate(classes):
        members[label].append(index)
    parts: List[List[int]] = [[] for _ in range(len(fractions) + 1)]
    generator = random.Random(seed)
    for label in sorted(members, key=str):
        indices = members[label]
        generator.shuffle(indices)
        start = 0
        for part, fraction in zip(parts[1:], fractions):
            least = 1 if len(indices) >= len(parts) else 0
            count = max(round(len(indices) * fraction), least)
            part.extend(indices[start : start + count])
            start += count
        parts[0].extend(indices[start:])
    return [sorted(part) for part in parts]


def affine_coefficients(angle: float, scale: float, shift: Tuple[float, float], centre: float) -> Tuple[float, ...]:
    """The six numbers that Pillow's `Image.transform` takes: output pixel -> input pixel.

    Args:
        angle: turn in radians.
        scale: size of the result over the size of the source.
        shift: displacement (x, y) in pixels.
        centre: of the turn, in pixels, on both axes.
    """
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return (
        cos, sin, centre - centre * (cos + sin) + shift[0],
        -sin, cos, centre + centre * (sin - cos) + shift[1],
    )  # fmt: skip
