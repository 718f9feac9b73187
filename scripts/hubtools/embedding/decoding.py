"""Decoding in this machine's processes: torch's DataLoader, and what becomes of inputs that end one."""

import os
import signal
import threading
import time
from collections import deque
from typing import Any, Deque, Iterable, Iterator, List, Optional, Tuple, Union

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


class _Deaths:
    """torch's handler of SIGCHLD, which is let to speak while a window is waited for, and at no other time.

    It raises wherever the main thread is when a worker dies: in the middle of the model, or of writing a shard, too. A
    death that comes there is kept, and told when the next window is waited for.
    """

    def __init__(self):
        self.waiting, self.missed, self.tell = False, False, None
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            self.tell = signal.getsignal(signal.SIGCHLD)
        if callable(self.tell):
            signal.signal(signal.SIGCHLD, self)

    def __call__(self, number: int, frame: Any) -> None:
        if self.waiting:
            self.tell(number, frame)
        else:
            self.missed = True

    def __enter__(self) -> None:
        self.waiting = True
        if self.missed:
            self.missed = False
            self.tell(signal.SIGCHLD, None)

    def __exit__(self, *_) -> None:
        self.waiting = False

    def end(self) -> None:
        """Gives the handler its place back; should another have been put before this one, deaths pass through."""
        self.waiting = True
        if callable(self.tell) and signal.getsignal(signal.SIGCHLD) is self:
            signal.signal(signal.SIGCHLD, self.tell)


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
            for items in _read_by_workers(read, _Handed(source, waiting), workers):
                yield waiting.popleft(), items
            return
        except RuntimeError as error:  # a worker is dead, or says nothing
            if "DataLoader" not in str(error):
                raise
        while waiting:
            window = waiting.popleft()
            yield window, [_alone(one, read) for one in window.sources]


def _read_by_workers(read: Careful, windows: Iterable[Window], workers: int) -> Iterator[List[Union[Item, Failure]]]:
    """What a DataLoader gives of the windows; a worker's death is raised here, where the next is waited for.

    Raises:
        RuntimeError: a worker is dead, or says nothing; the message names the DataLoader.
    """
    longest = read.seconds * 8 + PATIENCE  # of a window of videos
    loader = DataLoader(
        _Reading(read),
        sampler=windows,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_in_worker,
        timeout=longest,
    )
    found: Optional[Iterator] = iter(loader)  # this sets torch's handler
    deaths = _Deaths()
    try:
        while True:
            with deaths:
                items = next(found, None)
            if items is None:
                return
            yield items
    finally:
        found = None  # its workers end, while nobody listens
        deaths.end()


def _alone(source, read: Careful) -> Union[Item, Failure]:
    window = Window(0, (0,), (source,), True)
    try:
        return next(_read_by_workers(read, [window], 1))[0]
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        return Failure("ends the process that reads it, or never comes to an end")
