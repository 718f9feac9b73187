"""Files of the output: whole or not at all, and on the disk before they bear their name."""

import contextlib
import os
from pathlib import Path
from typing import Callable, Iterator

from ..errors import UserError

PARTIAL = ".partial"
LOCK = ".lock"


def write_whole(file: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a file beside `file`, and then gives it the name; what stood there is replaced at that moment."""
    part = file.with_name(f".{file.name}{PARTIAL}")
    try:
        write(part)
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def clear_partial(folder: Path) -> None:
    """Removes what a killed run left behind."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink()


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second run from the same output while this one lasts. A lock that ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / LOCK, "a") as file:
        try:
            # Of the process alone: workers that outlive a killed run for a moment do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"output {folder} is being written by another run; wait for it, or name another") from error
        yield
