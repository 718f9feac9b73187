"""Tensors that stand in an open file, read one at a time and never mapped: a file that is cut meanwhile is an error, not a crash."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Dict, Tuple

import torch

from ..errors import UserError, shown
from .child import read_in_child
from .files import open_regular
from .safetensors import header_of

# Before these, torch.load(weights_only=True) could be made to run code, or to write where it should not. The reader here is
# not torch's; but whoever assembles a pickled file loads it with torch elsewhere, and the answer should not differ there.
UNSAFE_RELEASES = (((2, 6), "CVE-2025-32434"), ((2, 10), "CVE-2026-24747"))
FIRST_SAFE = UNSAFE_RELEASES[-1][0]
PICKLED = "PyTorch checkpoint"


@dataclass(frozen=True)
class StoredTensor:
    """A dense tensor in a file. `offset` is the first item's byte, `stride` counts items."""

    file: BinaryIO
    path: Path
    dtype_name: str
    shape: Tuple[int, ...]
    stride: Tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype_name)

    def block(self, index: int, count: int) -> "StoredTensor":
        """The `index`-th of `count` equal blocks on dimension 0, of which alone the bytes are read."""
        rows = self.shape[0] // count
        start = self.offset + index * rows * self.stride[0] * self.dtype.itemsize
        return replace(self, shape=(rows, *self.shape[1:]), offset=start)

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own.

        Raises:
            UserError: the file has become shorter.
        """
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        span = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        raw = torch.empty(span * self.dtype.itemsize, dtype=torch.uint8)
        view, done = memoryview(raw.numpy()), 0
        self.file.seek(self.offset)
        while done < len(view):
            count = self.file.readinto(view[done:])
            if not count:
                raise UserError(f"{self.path} was cut while it was read: {len(view) - done:,} bytes are missing")
            done += count
        return raw.view(self.dtype).as_strided(self.shape, self.stride).contiguous()


def stored_in_safetensors(path: Path) -> Dict[str, StoredTensor]:
    """The tensors of a safetensors file, in the order in which they stand in it."""
    file = open_regular(path)
    entries = sorted(header_of(file, str(path)).tensors.values(), key=lambda entry: entry.offset)
    return {
        entry.name: StoredTensor(file, path, entry.dtype, entry.shape, _dense(entry.shape), entry.offset)
        for entry in entries
    }


def _dense(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    stride = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        stride[i] = stride[i + 1] * max(1, shape[i + 1])
    return tuple(stride)


def load_pickle(path: Path) -> object:
    """What a .pth, .pt or .bin file holds: dictionaries as they are, tensors as StoredTensor, all else as its description.

    Raises:
        UserError: no PyTorch checkpoint, a torch release with which none is safe, or one that asks for code to be run.
    """
    check_release(path)
    file = open_regular(path)
    return _from_node(read_in_child("pickles", file, path, PICKLED), file, path)


def check_release(path: Path) -> None:
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    flaws = [flaw for fixed, flaw in UNSAFE_RELEASES if release < fixed]
    if flaws:
        raise UserError(
            f"{path} is a pickled checkpoint, and with torch {torch.__version__} none is safe to load ({', '.join(flaws)}); "
            f"update torch to {'.'.join(map(str, FIRST_SAFE))} or later, or give the weights as safetensors"
        )


@dataclass(frozen=True)
class Other:
    """What stands in a checkpoint and is neither a dictionary nor a dense tensor, in words."""

    what: str

    def __str__(self) -> str:
        return self.what


def _from_node(node: Any, file: BinaryIO, path: Path) -> object:
    kind, *content = node
    if kind == "m":
        return {key: _from_node(inner, file, path) for key, inner in content[0]}
    if kind == "o":
        return Other(content[0])
    dtype, shape, stride, offset = content
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        return Other(f"a tensor of type {shown(dtype)}")
    return StoredTensor(file, path, dtype, tuple(shape), tuple(stride), offset)
