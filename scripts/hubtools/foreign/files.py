"""Opens files that may be anything: regular files only, without blocking, and no further than a bound."""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UserError, shown

MB = 10**6
MAX_CONFIG_BYTES = 8 * MB  # config.json with the labels of 100,000 classes
MAX_INDEX_BYTES = 16 * MB  # an index of 100,000 tensors
MAX_TEXT_BYTES = 2 * MB  # a recipe, an experiment file, a README


def open_regular(path: Path) -> BinaryIO:
    """The file, unbuffered, for reading. Devices, pipes, sockets and folders are refused, and none of them is waited for.

    Raises:
        UserError: no such file, not a regular file, or one that may not be read.
    """
    path = Path(path)
    try:
        _need_regular(os.stat(path).st_mode, path)  # opening some devices has effects, so look first
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        _need_regular(os.fstat(descriptor).st_mode, path)
    except UserError:
        file.close()
        raise
    return file


def _need_regular(mode: int, path: Path) -> None:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    kind = next((name for test, name in kinds if test(mode)), None)
    if kind or not stat.S_ISREG(mode):
        raise UserError(f"{path} is {kind or 'no file'}; accepted: a regular file")


def is_regular(path: Path) -> bool:
    """Whether there is a regular file, or a link to one; never an error."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole content of a small file.

    Raises:
        UserError: as `open_regular`, or more than `limit` bytes.
    """
    with open_regular(path) as file:
        size = size_of(file)
        content = b""
        if size <= limit:
            while len(content) <= limit and (part := file.read(limit + 1 - len(content))):
                content += part
    if max(size, len(content)) > limit:
        raise UserError(f"{path} has {max(size, len(content)):,} bytes; accepted: up to {limit:,}")
    return content


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """UTF-8 text of a small file; a byte order mark is dropped."""
    try:
        return read_bounded(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> Any:
    """The content of a JSON file; see `parse_json`."""
    return parse_json(read_bounded(path, limit), str(path))


def read_json_object(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict:
    content = read_json(path, limit)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {shown(content)}, not a JSON object")
    return content


def parse_json(data: bytes, what: str) -> Any:
    """JSON as the standard has it: no name twice in an object, no NaN, nothing nested without end, no half characters.

    Args:
        data: the text, bounded by the caller.
        what: names the source in errors.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # a lone surrogate could not be written again
        return content
    except RecursionError as error:
        raise UserError(f"{what} is nested too deep to be a configuration") from error
    except ValueError as error:  # also text that is not UTF-8
        raise UserError(f"{what} is not readable JSON: {error}") from error


def _without_repeats(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{shown(twice)} stands in it twice")
    return content


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON number")


def is_plain_name(name: object) -> bool:
    """Whether `name` can be the name of a file beside the one that states it, and nothing else."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and name not in ("", ".", "..")
        and len(name) <= 255
        and not set(name) & set("/\\\0")
    )
