"""Reads the headers of a folder's safetensors files, and finds what is wrong with the files, without reading the weights.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header with each
tensor's type, shape and place in the data, then the data, gapless.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the safetensors library refuses longer headers
DTYPES = {  # safetensors code -> (bytes per element, torch name)
    "F64": (8, "float64"),
    "F32": (4, "float32"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "I64": (8, "int64"),
    "I32": (4, "int32"),
    "I16": (2, "int16"),
    "I8": (1, "int8"),
    "U8": (1, "uint8"),
    "BOOL": (1, "bool"),
}


class DamagedFile(Exception):
    """A file of weights that cannot be what it claims to be."""


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes stand. `dtype` is torch's name, `offset` counts from the start of the file."""

    name: str
    file: str
    dtype: str
    shape: Tuple[int, ...]
    offset: int
    nbytes: int


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
        raise DamagedFile(f"neither {WEIGHTS_NAME} nor {INDEX_NAME} is present; found: {', '.join(present) or 'no safetensors file'}")
    weight_map, total_size = read_index(index) if index.exists() else (None, None)
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


def read_index(index: Path) -> Tuple[Dict[str, str], Optional[int]]:
    """The `weight_map` of an index (tensor name to file name), and the total size it states, if it does."""
    content = _json_of(index.read_bytes(), index.name)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedFile(f"{index.name} has no weight_map")
    foreign = [str(file) for file in weight_map.values() if not isinstance(file, str) or Path(file).name != file]
    if foreign:
        raise DamagedFile(f"{index.name} names files outside the folder: {foreign[0]}")
    metadata = content.get("metadata")
    return weight_map, metadata.get("total_size") if isinstance(metadata, dict) else None


def _check_index(weight_map: Mapping[str, str], total_size: Optional[int], tensors: Mapping[str, Tensor]) -> None:
    """Fails where an index and its shards disagree about a tensor or about the total size."""
    problems = [f"{INDEX_NAME} places {name} in {file}, which does not hold it" for name, file in weight_map.items()
                if name not in tensors or tensors[name].file != file]  # fmt: skip
    problems += [f"{tensor.file} holds {name}, which {INDEX_NAME} does not list" for name, tensor in tensors.items() if name not in weight_map]
    size = sum(tensor.nbytes for tensor in tensors.values())
    if total_size is not None and total_size != size:
        problems.append(f"{INDEX_NAME} states a total size of {total_size} bytes, the shards hold {size}")
    if problems:
        raise DamagedFile("\n".join(problems))


def read_header(path: Path) -> Dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        DamagedFile: truncated, overlapping or trailing data, an unreadable header, or no `format: pt`.
    """
    if not path.is_file():
        raise DamagedFile(f"{path.name} is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise DamagedFile(f"{path.name} is not a whole safetensors file: {size} bytes do not hold its header")
        header = _json_of(file.read(length), f"the header of {path.name}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or metadata.get("format") != "pt":
        raise DamagedFile(f"{path.name} lacks the metadata format: pt, without which transformers 4.46 refuses it")
    if not header:
        raise DamagedFile(f"{path.name} holds no tensors")
    tensors = [_tensor(path.name, name, entry, 8 + length) for name, entry in header.items()]
    _check_layout(path.name, tensors, 8 + length, size)
    return {tensor.name: tensor for tensor in tensors}


def _tensor(file: str, name: str, entry: object, data_start: int) -> Tensor:
    try:
        width, dtype = DTYPES[entry["dtype"]]
        shape = tuple(entry["shape"])
        start, end = entry["data_offsets"]
        count = 1
        for length in shape:
            if isinstance(length, bool) or not isinstance(length, int) or length < 0:
                raise ValueError(f"shape {shape}")
            count *= length
        if end - start != count * width or start < 0:
            raise ValueError(f"{end - start} bytes for {dtype} of shape {shape}")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{file}: the header entry of {name} is wrong: {error}") from error
    return Tensor(name, file, dtype, shape, data_start + start, end - start)


def _check_layout(file: str, tensors: List[Tensor], data_start: int, size: int) -> None:
    position = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != position:
            raise DamagedFile(f"{file}: {tensor.name} starts at byte {tensor.offset}, {position} was expected (a gap or an overlap)")
        position += tensor.nbytes
    if position != size:
        what = "truncated" if size < position else "followed by other data"
        raise DamagedFile(f"{file} is {what}: it has {size} bytes, its header describes {position}")


def _json_of(data: bytes, what: str) -> dict:
    def without_repeats(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands in it twice")
        return dict(pairs)

    try:
        content = json.loads(data, object_pairs_hook=without_repeats)
    except ValueError as error:  # also undecodable text
        raise DamagedFile(f"{what} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise DamagedFile(f"{what} is not a JSON object")
    return content
