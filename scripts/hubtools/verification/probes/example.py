"""Runs the example beside a model, as its reader would: it must end well and print something. What it raises ends the
process, and the check that was running is blamed."""

import contextlib
import io
import runpy
import sys

from .protocol import CheckFailed


def run_example(path: str) -> str:
    """Runs the script at `path` in this process; gives what it printed, its first line twice: as the summary too."""
    printed, arguments = io.StringIO(), sys.argv
    sys.argv = [path]
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = arguments
    lines = printed.getvalue().splitlines()
    if not lines:
        raise CheckFailed("it prints nothing")
    return "\n".join([lines[0], *lines])
