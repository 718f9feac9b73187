"""Finds what is wrong with a folder's safetensors files and their index, without reading the weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional

from ..errors import UserError
from ..foreign.files import is_regular
from ..foreign.safetensors import DTYPES, INDEX_NAME, WEIGHTS_NAME, Entry, read_index
from ..foreign.safetensors import read_header as read_whole_header

__all__ = ["DTYPES", "DamagedFile", "Tensor", "read_tensors"]


class DamagedFile(Exception):
    """A file of weights that cannot be what it claims to be."""


@dataclass(frozen=True)
class Tensor(Entry):
    """Where a tensor's bytes stand: an entry of a header, with the name of its file."""

    file: str


def read_tensors(folder: Path) -> Dict[str, Tensor]:
    """Every tensor of a folder's `model.safetensors`, or of the shards that its index names.

    Raises:
        DamagedFile: with the problems, one a line.
    """
    folder = Path(folder)
    single, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    if single.exists() and index.exists():
        raise DamagedFile(f"both {WEIGHTS_NAME} and {INDEX_NAME} are present; which holds the weights is undecided")
    if not single.exists() and not index.exists():
        raise DamagedFile(
            f"neither {WEIGHTS_NAME} nor {INDEX_NAME} is present; found: {', '.join(present) or 'no safetensors file'}"
        )
    try:
        weight_map, total_size = read_index(index) if index.exists() else (None, None)
    except UserError as error:
        raise DamagedFile(str(error)) from error
    wanted = sorted(set(weight_map.values())) if weight_map is not None else [WEIGHTS_NAME]
    problems = [f"{name} is not part of the weights" for name in present if name not in wanted]
    tensors: Dict[str, Tensor] = {}
    for name in wanted:
        try:
            shard = read_header(folder / name)
        except DamagedFile as damage:
            problems.append(str(damage))
            continue
        problems += [f"{tensor} is in {tensors[tensor].file} and in {name}" for tensor in shard if tensor in tensors]
        tensors.update(shard)
    if problems:
        raise DamagedFile("\n".join(problems))
    if weight_map is not None:
        _check_index(weight_map, total_size, tensors)
    return tensors


def _check_index(weight_map: Mapping[str, str], total_size: Optional[int], tensors: Mapping[str, Tensor]) -> None:
    """Fails where an index and its shards disagree about a tensor or about the total size."""
    problems = [f"{INDEX_NAME} places {name} in {file}, which does not hold it" for name, file in weight_map.items()
                if name not in tensors or tensors[name].file != file]  # fmt: skip
    problems += [
        f"{tensor.file} holds {name}, which {INDEX_NAME} does not list"
        for name, tensor in tensors.items()
        if name not in weight_map
    ]
    size = sum(tensor.nbytes for tensor in tensors.values())
    if total_size is not None and total_size != size:
        problems.append(f"{INDEX_NAME} states a total size of {total_size} bytes, the shards hold {size}")
    if problems:
        raise DamagedFile("\n".join(problems))


def read_header(path: Path) -> Dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        DamagedFile: not a whole file, no tensors, or no `format: pt`.
    """
    if not is_regular(path):
        raise DamagedFile(f"{path.name} is {'no regular file' if path.exists() else 'missing'}")
    try:
        header = read_whole_header(path)
    except UserError as error:
        raise DamagedFile(str(error)) from error
    if header.metadata.get("format") != "pt":
        raise DamagedFile(f"{path.name} lacks the metadata format: pt, without which transformers 4.46 refuses it")
    return {name: Tensor(**vars(entry), file=path.name) for name, entry in header.tensors.items()}
