"""Progress bars: shown to people, silent in logs and pipes."""

import contextlib
import sys
from typing import Callable, Iterator

from tqdm import tqdm


@contextlib.contextmanager
def byte_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar over `total` bytes on stderr; gives the function to call with each number of bytes done."""
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar.update
