"""Windows: the runs of inputs that are decoded and computed together, whoever does it and in how many processes."""

from typing import Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from .plan import Planned
from .sources import Source, weight_of

WINDOW = 128  # pictures, or so many times less videos: what is in memory of one window is some 80 MB at most


class Window(NamedTuple):
    """Inputs of one shard, by their rows; `last` where the shard is complete with them."""

    shard: int
    rows: Tuple[int, ...]
    sources: Tuple[Source, ...]
    last: bool


def windows_of(shard: int, planned: Sequence[Planned]) -> Iterator[Window]:
    """A shard's inputs in windows: cut where their weights reach WINDOW, so by the list of inputs alone."""
    parts = list(_cut(planned))
    for number, part in enumerate(parts, start=1):
        rows, sources = tuple(one.row for one in part), tuple(one.source for one in part)
        yield Window(shard, rows, sources, number == len(parts))


def _cut(planned: Iterable[Planned]) -> Iterator[List[Planned]]:
    part: List[Planned] = []
    weight = 0
    for one in planned:
        part.append(one)
        weight += weight_of(one.source.path)
        if weight >= WINDOW:
            yield part
            part, weight = [], 0
    if part:
        yield part
