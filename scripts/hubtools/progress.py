"""Progress bars: shown to people, silent in logs and pipes."""

import contextlib
import functools
import sys
import time
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


class Tally:
    """How far a long piece of work is: a bar for people, a line a minute in a log. Both on stderr.

    Args:
        what: is done, for the beginning of a line.
        total: number of inputs.
        done: of them, before this run.
    """

    MINUTE = 60.0

    def __init__(self, what: str, total: int, done: int = 0):
        self.what, self.total, self.done, self.failed, self.before = what, total, done, 0, done
        self.started = self.told = time.monotonic()
        shown = sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, desc=what, unit=" inputs", leave=False, disable=not shown)
        self.silent = shown

    def add(self, done: int, failed: int) -> None:
        self.done, self.failed = self.done + done, self.failed + failed
        if self.failed:
            self.bar.set_postfix_str(f"{self.failed:,} failed", refresh=False)
        self.bar.update(done)
        now = time.monotonic()
        if not self.silent and now - self.told >= self.MINUTE:
            self.told = now
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        rate = (self.done - self.before) / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate else 0
        hours, minutes = divmod(round(left / 60), 60)
        share = 100 * self.done / max(1, self.total)
        return (
            f"{self.what}: {self.done:,} of {self.total:,} inputs ({share:.1f} %), {self.failed:,} failed, {rate:,.1f} a second, "
            f"{hours} h {minutes:02d} min left"
        )

    def close(self) -> None:
        self.bar.close()
