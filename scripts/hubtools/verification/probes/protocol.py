"""How a child process tells its parent what it found: one JSON document per line on its standard output."""

import json
import os
import sys
import time
from typing import Callable, Dict, List, Optional


class CheckFailed(Exception):
    """A check's verdict: the first line says what is wrong, further lines give particulars."""


class CheckSkipped(Exception):
    """Why a check does not apply or cannot be run."""


class Reporter:
    """Runs checks and reports them.

    Whatever else the process prints, models included, goes to standard error. An exception that is not a check's
    verdict ends the process; the parent then blames the check that was running.
    """

    def __init__(self):
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(self, event: str, **content) -> None:
        self._out.write(json.dumps({"event": event, **content}) + "\n")
        self._out.flush()

    def using(self, what: Optional[str]) -> None:
        """Says that `what`, a file of the user's, is being read or run: failing now is its fault. None ends that."""
        self.send("using", what=what)

    def run(self, names: List[str], steps: Dict[str, Callable[[], str]]) -> List[str]:
        """Runs the named steps in order. A step returns its detail, or raises CheckFailed or CheckSkipped.

        Returns:
            The names of those that passed.
        """
        passed = []
        for name in names:
            started = time.perf_counter()
            try:
                status, detail = "PASS", steps[name]()
            except CheckFailed as failure:
                status, detail = "FAIL", str(failure)
            except CheckSkipped as reason:
                status, detail = "SKIP", str(reason)
            self.send("check", name=name, status=status, detail=detail, seconds=time.perf_counter() - started)
            if status == "PASS":
                passed.append(name)
        return passed


def read_job() -> dict:
    """The job that the parent wrote, named by the last argument."""
    with open(sys.argv[-1], encoding="utf-8") as file:
        return json.load(file)
