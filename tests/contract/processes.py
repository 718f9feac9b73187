"""Code in a process of its own that need not import torch and transformers once more: a fork, where there are forks."""

import logging
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple


class Printed(NamedTuple):
    out: str
    err: str


def printed_by_a_process(code: str) -> Printed:
    """Runs `code`, which sees this folder's modules, to its end; a failure of it is an AssertionError."""
    if not hasattr(os, "fork"):
        done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
        status, printed = done.returncode, Printed(done.stdout, done.stderr)
    else:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = os.fork()
            if process == 0:
                run_and_exit(code, out, err)
            status = os.waitpid(process, 0)[1]
            printed = Printed(*(file.seek(0) or file.read() for file in (out, err)))
    assert status == 0, printed.err[-2000:]
    return printed


def run_and_exit(code: str, out, err) -> None:
    """In a fork: prints and logs as a new process would, and never returns to pytest."""
    status = 1
    try:
        sys.stdout, sys.stderr = out, err
        # Without pytest's handlers: the root has none of its own, transformers one.
        logging.getLogger().handlers.clear()
        logging.getLogger("transformers").handlers[:] = [logging.StreamHandler(err)]
        exec(code, {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc(file=err)
    finally:
        out.flush()
        err.flush()
        os._exit(status)
