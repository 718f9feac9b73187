"""Progress bars: shown to people, silent in logs and pipes."""

import contextlib
import functools
import sys
from typing import Callable, ContextManager, Iterator

from tqdm import tqdm

Progress = Callable[[int], None]
Bar = Callable[[int], ContextManager[Progress]]


@contextlib.contextmanager
def byte_bar(what: str, total: int) -> Iterator[Progress]:
    """A bar over `total` bytes on stderr; gives the function to call with each number of bytes done."""
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar.update


@contextlib.contextmanager
def item_bar(what: str, total: int) -> Iterator[Progress]:
    """The same over `total` things."""
    with tqdm(total=total, desc=what, leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar.update


def byte_bar_named(what: str) -> Bar:
    return functools.partial(byte_bar, what)


def no_bar(total: int) -> ContextManager[Progress]:
    return contextlib.nullcontext(lambda done: None)
