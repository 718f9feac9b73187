"""WebDataset's shards: plain tar files whose members are read where they lie."""

import os
import tarfile
from pathlib import Path
from typing import Callable, Iterator, Optional

from ..errors import UserError, plain
from ..foreign.files import open_regular
from .sources import Source

BLOCK = 512  # bytes of a header; the end is marked by zeros in place of one


def list_tar(name: bytes, wants: Callable[[bytes], bool]) -> Iterator[Source]:
    """The members of a tar file that `wants` takes; a tar file that breaks off is itself listed, with its reason."""
    try:
        with open_regular(Path(os.fsdecode(name))) as opened, _opened(opened) as tar:
            mtime = os.fstat(opened.fileno()).st_mtime_ns
            while (member := tar.next()) is not None:
                tar.members.clear()  # or it would remember a million
                path = os.fsencode(member.name)
                if not member.isdir() and not _is_hidden(path) and wants(path):
                    place = {"container": name, "key": key_of(member.name), "offset": member.offset_data}
                    yield Source(path, size=member.size, mtime=mtime, problem=problem_of(member), **place)
            _need_end(opened, tar.offset)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        yield Source(name, problem=f"is no tar file that can be read to its end: {plain(error, 200)}")
    except UserError as error:
        yield Source(name, problem=plain(error))


def problem_of(member: tarfile.TarInfo) -> Optional[str]:
    """Why a member's bytes do not lie where its header ends, if they do not."""
    if member.isreg() and not member.issparse():
        return None
    return "is a link, a sparse file or a device in its tar file; accepted: plain members"


def _need_end(file, offset: int) -> None:
    """tarfile takes damage behind the first member for the end of the file."""
    file.seek(offset)
    if file.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError(f"no end is marked at byte {offset:,}, where its members end")


def _opened(file) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r:", errorlevel=1, encoding="utf-8", errors="surrogateescape")


def _is_hidden(path: bytes) -> bool:
    return os.path.basename(path).startswith(b".")


def key_of(name: str) -> str:
    """What WebDataset calls the sample: the name up to the first dot of its last part."""
    folder, _, file = name.rpartition("/")
    key = file.partition(".")[0]
    key = f"{folder}/{key}" if folder else key
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_member(file, source: Source, limit: int) -> bytes:
    """The bytes of a member, from the open tar file.

    Raises:
        UserError: more than `limit`, or the file has become shorter.
    """
    if source.size > limit:
        raise UserError(f"has {source.size:,} bytes; accepted: up to {limit:,}")
    file.seek(source.offset)
    data = bytearray()
    while len(data) < source.size and (part := file.read(source.size - len(data))):
        data += part
    if len(data) < source.size:
        raise UserError(f"the tar file ends {source.size - len(data):,} bytes before this member does")
    return bytes(data)
