"""The safetensors format: https://github.com/huggingface/safetensors. No other module knows it; this one knows no torch.

8 bytes of little-endian header length, a JSON header with each tensor's type, shape and place in the data, the data, gapless.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterable, List, Mapping, Optional, Tuple

from ..errors import UserError, shown
from .files import MAX_INDEX_BYTES, is_plain_name, open_regular, parse_json, read_json_object, size_of

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

MAX_HEADER_BYTES = (
    10_000_000  # the names of 100,000 tensors; the library's own bound takes gigabytes of memory to parse
)
MAX_DIMENSIONS = 64
DTYPES = {  # code -> (bytes per element, torch name)
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


@dataclass(frozen=True)
class Entry:
    """Where a tensor's bytes stand. `dtype` is torch's name, `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What a file says about itself: its metadata, and its tensors in the header's order."""

    metadata: Mapping[str, str]
    tensors: Dict[str, Entry]


def read_header(path: Path) -> Header:
    """The header of the file at `path`.

    Raises:
        UserError: as `header_of`, or no such file.
    """
    with open_regular(path) as file:
        return header_of(file, path.name)


def header_of(file: BinaryIO, name: str) -> Header:
    """The header of an open file.

    Raises:
        UserError: truncated, overlapping or trailing data, a header that is unreadable or beyond bounds, an unknown type.
    """
    size = size_of(file)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise UserError(f"{name} is not a whole safetensors file: {size} bytes do not hold its header")
    if length > MAX_HEADER_BYTES:
        raise UserError(f"{name} has a header of {length:,} bytes; accepted: up to {MAX_HEADER_BYTES:,}")
    content = parse_json(_read_all(file, length, name), f"the header of {name}")
    if not isinstance(content, dict):
        raise UserError(f"{name} is not a whole safetensors file: its header is {shown(content)}, not a JSON object")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(f"{name}: its metadata is {shown(metadata)}; accepted: an object of text")
    if not content:
        raise UserError(f"{name} holds no tensors")
    tensors = [_entry(name, key, value, 8 + length) for key, value in content.items()]
    _check_layout(name, tensors, 8 + length, size)
    return Header(metadata, {tensor.name: tensor for tensor in tensors})


def _read_all(file: BinaryIO, length: int, name: str) -> bytes:
    data = b""
    while len(data) < length:
        part = file.read(length - len(data))
        if not part:
            raise UserError(f"{name} is not a whole safetensors file: it ends inside its header")
        data += part
    return data


def _entry(file: str, name: str, entry: object, data_start: int) -> Entry:
    wrong = f"{file}: the header entry of {shown(name)} is wrong"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"{wrong}: {shown(entry)}; accepted: an object of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"{file}: tensor {shown(name)} has type {shown(dtype)}; accepted: {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise UserError(f"{wrong}: shape {shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise UserError(f"{wrong}: data_offsets {shown(offsets)}")
    count = 1
    for length in shape:
        count *= length
    width, torch_name = DTYPES[dtype]
    if offsets[1] - offsets[0] != count * width:
        raise UserError(f"{wrong}: {offsets[1] - offsets[0]} bytes for {torch_name} of shape {shown(shape)}")
    return Entry(name, torch_name, tuple(shape), data_start + offsets[0], count * width)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _check_layout(file: str, tensors: List[Entry], data_start: int, size: int) -> None:
    position = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != position:
            raise UserError(
                f"{file}: {shown(tensor.name)} starts at byte {tensor.offset}, {position} was expected (a gap or an overlap)"
            )
        position += tensor.nbytes
    if position != size:
        what = "truncated" if size < position else "followed by other data"
        raise UserError(
            f"{file} is not a whole safetensors file: it is {what}, with {size} bytes where its header describes {position}"
        )


def header_bytes(tensors: Iterable[Tuple[str, str, Tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """What stands before the data of a file: its length, and the header.

    Args:
        tensors: name, torch's name of the type, and shape of each, in the order in which their data follows.
        metadata: of the file.
    """
    codes = {torch_name: (code, width) for code, (width, torch_name) in DTYPES.items()}
    entries: Dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, dtype, shape in tensors:
        code, length = codes[dtype]
        for side in shape:
            length *= side
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, start + length]}
        start += length
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_index(path: Path) -> Tuple[Dict[str, str], Optional[int]]:
    """The `weight_map` of an index of shards (tensor name to file name), and the total size that it states, if it does.

    Raises:
        UserError: no JSON object with a weight_map, or files outside the index's folder.
    """
    content = read_json_object(path, MAX_INDEX_BYTES)
    weight_map, metadata = content.get("weight_map"), content.get("metadata")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path.name} is not an index of shards: it has no weight_map, which names each tensor's file")
    foreign = [file for file in weight_map.values() if not is_plain_name(file)]
    if foreign:
        raise UserError(f"{path.name} names files outside its folder: {shown(foreign[0])}")
    return weight_map, metadata.get("total_size") if isinstance(metadata, dict) else None
