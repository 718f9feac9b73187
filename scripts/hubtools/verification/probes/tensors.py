"""Reads single tensors from safetensors files, and compares tensors.

Files are read, not mapped: mapped pages would count as memory of the process as long as they are there.
"""

import math
from dataclasses import dataclass
from typing import List, Mapping, Sequence, Tuple

import torch

from .protocol import CheckFailed

INTEGER_OF_WIDTH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def read_tensor(folder: str, entry: Mapping) -> torch.Tensor:
    """The tensor at an entry: {"file", "dtype", "shape", "offset", "nbytes"}."""
    dtype = getattr(torch, entry["dtype"])
    if not entry["nbytes"]:
        return torch.empty(entry["shape"], dtype=dtype)
    data = bytearray(entry["nbytes"])
    with open(f"{folder}/{entry['file']}", "rb") as file:
        file.seek(entry["offset"])
        if file.readinto(data) != entry["nbytes"]:
            raise OSError(f"{entry['file']} ends inside a tensor")
    return torch.frombuffer(data, dtype=dtype).reshape(entry["shape"])


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite, in one pass and without a mask of the tensor's size."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # NaN wins over every number
    return math.isfinite(low) and math.isfinite(high)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equality of the bits, so that NaN equals itself and -0.0 is not 0.0. Same shape and dtype presumed."""
    integer = INTEGER_OF_WIDTH[a.element_size()]
    a, b = (x.detach().contiguous().reshape(-1).view(integer) for x in (a, b))
    return torch.equal(a, b)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest |a - b|; infinite where one is NaN or infinite and the other is not the same."""
    if not a.numel():
        return 0.0
    a, b = a.detach().double(), b.detach().double()
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    return float(difference.nan_to_num(nan=math.inf).max())


def weight_problem(name: str, found: torch.Tensor, expected: torch.Tensor) -> Tuple[str, float]:
    """("", 0.0) when `found` is `expected` bit for bit after conversion to its type, else what is wrong and by how
    much."""
    if found.shape != expected.shape:
        return f"{name} has shape {tuple(found.shape)}, not {tuple(expected.shape)}", math.inf
    expected = expected.to(found.dtype)
    if same_bits(found, expected):
        return "", 0.0
    difference = largest_difference(found, expected)
    return f"{name} differs by up to {difference:.3g}", difference


class Differences:
    """Weights that are not as they should be, for one message."""

    def __init__(self):
        self.problems: List[Tuple[float, str, str]] = []

    def add(self, name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        problem, size = weight_problem(name, found, expected)
        if problem:
            self.problems.append((size, name, problem))

    @property
    def names(self) -> List[str]:
        return [name for _, name, _ in self.problems]

    def describe(self, count: int, what: str) -> str:
        """'2 of 110 tensors differ from the file's, most encoder.x by 0.01', then a line per tensor, largest first."""
        worst = sorted(self.problems, key=lambda problem: -problem[0])
        head = f"{len(worst)} of {count} tensors {what}; largest: {worst[0][2]}"
        return "\n".join([head, *(problem for _, _, problem in worst)])


@dataclass(frozen=True)
class OutputDifference:
    """How far one output is from what it should be."""

    name: str
    largest: float
    scale: float

    @property
    def ratio(self) -> float:
        """The difference as a share of the expected output's largest magnitude."""
        return self.largest / self.scale if self.scale else self.largest

    def __str__(self) -> str:
        return (
            f"{self.name} differs by {self.largest:.3g} at most, {self.ratio:.2g} of its largest magnitude "
            f"{self.scale:.3g}"
        )


def compare_outputs(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], what: str
) -> List[OutputDifference]:
    """Measures the outputs that both have, by name.

    Args:
        what: put before the outputs' names.

    Raises:
        CheckFailed: an output has another shape.
    """
    differences = []
    for name in [name for name in expected if name in found]:
        a, b = found[name].float(), expected[name].float()
        if a.shape != b.shape:
            raise CheckFailed(f"{what}: {name} has shape {tuple(a.shape)}, expected {tuple(b.shape)}")
        differences.append(OutputDifference(f"{what}: {name}", largest_difference(a, b), float(b.abs().max())))
    return differences


def largest_ratio(differences: Sequence[OutputDifference], tolerance: float) -> float:
    """The largest relative difference.

    Raises:
        CheckFailed: it is more than `tolerance`; names every output of which that is true, the worst first.
    """
    ranked = sorted(differences, key=lambda difference: -difference.ratio)
    if ranked and not ranked[0].ratio <= tolerance:
        wrong = [str(difference) for difference in ranked if not difference.ratio <= tolerance]
        raise CheckFailed("\n".join([f"{wrong[0]} (allowed: {tolerance:g})", *wrong]))
    return ranked[0].ratio if ranked else 0.0
