"""What an output is guarded by: hashes, one run at a time, and nothing left of a run that was killed."""

import contextlib
import hashlib
from pathlib import Path
from typing import Iterator

from ..errors import UserError
from ..staging import PART

LOCK = ".lock"


def hash_content(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while part := opened.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()


def clear_partial(folder: Path) -> None:
    """Removes what a killed run left behind."""
    for left in folder.glob(f".*{PART}"):
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
