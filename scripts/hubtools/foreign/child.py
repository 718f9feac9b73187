"""Reads a stranger's file in a process of its own, with a limit to its memory and to its time.

The parent opens the file and hands it over as standard input, so that the child never follows a path. The child answers with
one JSON document. Whatever it dies of, a malformed pickle or a crash of the interpreter, is one line here.
"""

import json
import mmap
import signal
import subprocess
import sys
from typing import Any, BinaryIO, Callable, Mapping

from ..errors import UserError, shown
from ..isolation import isolated_command
from .files import MB, size_of

BASE_MEMORY, MAX_MEMORY = 256 * MB, 1200 * MB
MEMORY_PER_BYTE = 60  # a pickle of one byte per object, each of which takes some 50 bytes
BASE_SECONDS, MAX_SECONDS = 10.0, 600.0
SECONDS_PER_MB = 1.0
PATIENCE = 6  # times the seconds of work that a child is given: on a busy machine they take longer


class Refused(Exception):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


def read_in_child(reader: str, file: BinaryIO, path: object, what: str, *arguments: str) -> Any:
    """What `hubtools.foreign.READER.read` makes of the file.

    Args:
        reader: a module of this package whose `main` calls `answer`.
        file: open, and read from its beginning.
        path: its name, for errors.
        what: what it should be, for errors.
        arguments: for the reader.

    Raises:
        UserError: the reader refuses the file, dies of it, or needs more time or memory than a file of this size is given.
    """
    size = size_of(file)
    memory = int(min(BASE_MEMORY + MEMORY_PER_BYTE * size, MAX_MEMORY))
    seconds = min(BASE_SECONDS + SECONDS_PER_MB * size / MB, MAX_SECONDS)
    file.seek(0)
    command = isolated_command(f"{__package__}.{reader}", *arguments, str(memory), str(int(seconds)))
    too_long = f"{path} takes more than {seconds:.0f} s to read, which no {what} of {size:,} bytes should"
    try:
        done = subprocess.run(command, stdin=file, capture_output=True, timeout=PATIENCE * seconds)
    except subprocess.TimeoutExpired as error:
        raise UserError(too_long) from error
    if done.returncode == -getattr(signal, "SIGXCPU", 0) != 0:
        raise UserError(too_long)
    if done.returncode:
        cause = (
            done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            or f"its reader ended with code {done.returncode}"
        )
        raise UserError(f"{path} is not a whole {what}: {shown(cause, 200)}")
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise UserError(f"{path} {answer['refused']}")
    return answer["value"]


def answer(read: Callable[[BinaryIO], Any]) -> None:
    """The child's side: limits itself, reads standard input, prints what was found."""
    memory, seconds = int(sys.argv[-2]), int(sys.argv[-1])
    limit(memory, seconds)
    found: Mapping[str, Any]
    try:
        with open(0, "rb", closefd=False) as file:
            found = {"value": read(file)}
        text = json.dumps(found, default=str)
    except Refused as refused:
        text = json.dumps({"refused": str(refused)})
    except MemoryError:
        text = json.dumps({"refused": f"takes more than {memory // MB} MB to read, which no file of its size should"})
    sys.stdout.write(text)


def limit(memory: int, seconds: int) -> None:
    limit_memory(memory)
    _limit_resources({"RLIMIT_CPU": seconds, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": MB})


def limit_memory(memory: int) -> None:
    """From here on, this process may take so many bytes more."""
    _limit_resources({"RLIMIT_AS": memory + _mapped_already(mmap.PAGESIZE)})


def _limit_resources(amounts: Mapping[str, int]) -> None:
    try:
        import resource
    except ImportError:  # Windows: the parent's deadline is the only limit there
        return
    for name, amount in amounts.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        allowed = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        try:
            resource.setrlimit(kind, (allowed, hard))
        except (ValueError, OSError):  # macOS knows RLIMIT_AS and does not take it; the others hold
            continue


def _mapped_already(page: int) -> int:
    """Bytes of address space in use: on some systems the languages of the C library alone are hundreds of MB."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * page
    except OSError:
        return BASE_MEMORY
