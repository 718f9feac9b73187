"""Decoding in this machine's processes: torch's DataLoader, and what becomes of inputs that end one."""

import os
import threading
import time
from collections import deque
from typing import Deque, Iterable, Iterator, List, Tuple, Union

from torch.utils.data import DataLoader, Dataset

from ..foreign.child import limit_memory
from .reading import Careful, Failure, Item
from .windows import Window

Decoded = Tuple[Window, List[Union[Item, Failure]]]
WORKER_MEMORY = 8 * 10**9  # bytes beyond what is mapped at the start: a claim of 60,000 x 60,000 pixels has no chance
PATIENCE = 60.0  # seconds beyond an input's own time, before a worker that does not answer is given up


class _Reading(Dataset):
    """What DataLoader's workers do: its "indices" are windows, so that no worker holds the list of inputs."""

    def __init__(self, read: Careful):
        self.read = read

    def __getitem__(self, window: Window) -> List[Union[Item, Failure]]:
        return [self.read(source) for source in window.sources]


def _as_it_is(items):
    return items


def _in_worker(number: int) -> None:
    limit_memory(WORKER_MEMORY)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent is no more: torch's workers would wait for ever for someone to read what they have
    made."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class _Handed:
    """Windows in their order, remembered in `waiting` until their results are back."""

    def __init__(self, windows: Iterator[Window], waiting: Deque[Window]):
        self.windows, self.waiting = windows, waiting

    def __iter__(self) -> Iterator[Window]:
        for window in self.windows:
            self.waiting.append(window)
            yield window


def decode(windows: Iterable[Window], read: Careful, workers: int) -> Iterator[Decoded]:
    """The windows with what the model takes of their inputs, in order, whatever the number of processes.

    An input that kills its process, or keeps it from answering, becomes a Failure: all that were under way are read again,
    each in a process of its own. Without workers there is no such protection.
    """
    waiting: Deque[Window] = deque()
    source = iter(windows)
    if not workers:
        reading = _Reading(read)
        yield from ((window, reading[window]) for window in source)
        return
    while True:
        try:
            for items in _loader(read, _Handed(source, waiting), workers):
                yield waiting.popleft(), items
            return
        except RuntimeError as error:  # a worker is dead, or says nothing
            if "DataLoader" not in str(error):
                raise
        while waiting:
            window = waiting.popleft()
            yield window, [_alone(one, read) for one in window.sources]


def _loader(read: Careful, windows: Iterable[Window], workers: int) -> DataLoader:
    longest = read.seconds * 8 + PATIENCE  # of a window of videos
    return DataLoader(
        _Reading(read),
        sampler=windows,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_in_worker,
        timeout=longest,
    )


def _alone(source, read: Careful) -> Union[Item, Failure]:
    window = Window(0, (0,), (source,), True)
    try:
        return next(iter(_loader(read, [window], 1)))[0]
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        return Failure("ends the process that reads it, or never comes to an end")
