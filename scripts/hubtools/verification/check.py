"""What a check says, and how it is printed."""

import time
from dataclasses import asdict, dataclass
from typing import Callable, Iterable, List, Optional

from ..errors import plain
from .probes.protocol import CheckFailed, CheckSkipped

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
NAME_WIDTH = 25


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: "group: subject", such as "forward: video".
        status: PASS, FAIL or SKIP.
        detail: what was found. The first line is the summary, the others are for `--verbose`.
        seconds: time taken.
    """

    name: str
    status: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        return self.detail.split("\n", 1)[0]

    def row(self, verbose: bool = False) -> str:
        """The check as a line of the table; its particulars indented below when `verbose`."""
        row = f"{self.status}  {self.name:<{NAME_WIDTH}}  {self.seconds:6.1f} s  {plain(self.summary)}"
        extra = self.detail.split("\n")[1:] if verbose else []
        return "\n".join([row.rstrip(), *(f"        {plain(line)}" for line in extra)])

    def as_dict(self) -> dict:
        return asdict(self)


Progress = Optional[Callable[[Check], None]]


class CheckList:
    """Collects checks in order and tells `progress` about each as it is known."""

    def __init__(self, progress: Progress = None):
        self.checks: List[Check] = []
        self._progress = progress

    def add(self, check: Check) -> None:
        self.checks.append(check)
        if self._progress:
            self._progress(check)

    def run(self, name: str, check: Callable[[], str]) -> bool:
        """Runs one check in this process. Its return value is the detail; gives whether nothing failed."""
        started = time.perf_counter()
        try:
            status, detail = PASS, check()
        except CheckFailed as failure:
            status, detail = FAIL, str(failure)
        except CheckSkipped as reason:
            status, detail = SKIP, str(reason)
        self.add(Check(name, status, detail, time.perf_counter() - started))
        return status != FAIL

    def skip(self, names: Iterable[str], reason: str) -> None:
        for name in names:
            self.add(Check(name, SKIP, reason))


def failures(checks: Iterable[Check]) -> List[Check]:
    """The checks that failed: a folder is good when there are none."""
    return [check for check in checks if check.status == FAIL]


def fail_if(problems: List[str], good: str) -> str:
    """`good` where there are no problems; otherwise fails with all of them, the first as the summary."""
    if not problems:
        return good
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise CheckFailed("\n".join([problems[0] + more, *problems[1:]]))
