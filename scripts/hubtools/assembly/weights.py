"""Writes safetensors one tensor at a time.

The safetensors library takes all tensors at once; a checkpoint that must be converted on the way would then stand in
memory twice.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Mapping, Tuple

import torch

from ..errors import UserError, some
from ..foreign.safetensors import INDEX_NAME, WEIGHTS_NAME, header_bytes
from ..progress import Progress

DEFAULT_SHARD_SIZE = "5GB"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class TensorSource:
    """A tensor that is to be written: its shape and type now, its data when its turn comes."""

    shape: Tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


def parse_size(text: str) -> int:
    """'5GB' -> 5000000000. Accepts KB, MB, GB, KiB, MiB, GiB, or a number of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)?", text.strip(), flags=re.IGNORECASE)
    size = int(float(found.group(1)) * UNITS.get((found.group(2) or "").upper(), 1)) if found else 0
    if size <= 0:
        raise UserError(
            f"size {text!r} is not understood; accepted: bytes, or a number with KB, MB, GB, KiB, MiB or "
            "GiB, such as 5GB"
        )
    return size


def plan_shards(sources: Mapping[str, TensorSource], max_shard_size: int) -> List[List[str]]:
    """Cuts the sorted names into runs whose data stays below `max_shard_size` bytes (a larger tensor stands alone)."""
    shards: List[List[str]] = [[]]
    filled = 0
    for name in sorted(sources):
        if shards[-1] and filled + sources[name].bytes > max_shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += sources[name].bytes
    return shards


def write_weights(folder: Path, sources: Mapping[str, TensorSource], max_shard_size: int, progress: Progress) -> None:
    """Writes `model.safetensors`, or shards with their index, into `folder`.

    Args:
        folder: an existing folder.
        sources: what to write, by name.
        max_shard_size: bytes of data per file.
        progress: called with the number of bytes after each tensor.

    Raises:
        UserError: tensors with NaN or infinity, all named.
        OSError: the disk is full.
    """
    shards = plan_shards(sources, max_shard_size)
    names = (
        [WEIGHTS_NAME]
        if len(shards) == 1
        else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    )
    non_finite: List[str] = []
    for file, shard in zip(names, shards):
        _write_file(folder / file, {name: sources[name] for name in shard}, non_finite, progress)
    if non_finite:
        raise UserError(f"NaN or infinity in {some(non_finite)}")
    if len(shards) > 1:
        weight_map = {name: file for file, shard in zip(names, shards) for name in shard}
        write_json(
            folder / INDEX_NAME,
            {"metadata": {"total_size": sum(s.bytes for s in sources.values())}, "weight_map": weight_map},
        )


def write_weights_file(path: Path, sources: Mapping[str, TensorSource], progress: Progress) -> None:
    """Writes one safetensors file.

    Raises:
        UserError: tensors with NaN or infinity, all named.
    """
    non_finite: List[str] = []
    _write_file(path, sources, non_finite, progress)
    if non_finite:
        raise UserError(f"NaN or infinity in {some(non_finite)}")


def _write_file(path: Path, sources: Mapping[str, TensorSource], non_finite: List[str], progress: Progress) -> None:
    # Widest types first keeps every tensor aligned, as the library orders them.
    order = sorted(sources, key=lambda name: (-sources[name].dtype.itemsize, name))
    with path.open("wb") as file:
        file.write(
            header_bytes(
                ((name, str(sources[name].dtype)[6:], sources[name].shape) for name in order), {"format": "pt"}
            )
        )
        for name in order:
            tensor = sources[name].load()
            if not is_finite(tensor):
                non_finite.append(name)
            if not non_finite:  # an error is certain: go on only to name every tensor
                file.write(raw_bytes(tensor))
            progress(sources[name].bytes)
        file.flush()
        os.fsync(file.fileno())


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The little-endian bytes of a tensor of any type, without a copy where it is contiguous."""
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite, in one pass and without a mask."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # NaN wins over every number
    return bool(torch.isfinite(low) and torch.isfinite(high))


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
