"""Runs a probe in a child process and turns what it reports into checks."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from ..errors import UserError
from ..isolation import isolated_command
from ..packages import PACKAGES, ROOT
from .check import FAIL, SKIP, Check, CheckList

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1]
# Settings that would let the child see a cache, a Hub or a module that a stranger's process does not have.
OWN_SETTINGS = (
    "HF_",
    "HUGGINGFACE_",
    "HUGGING_FACE_",
    "TRANSFORMERS_",
    "PYTORCH_TRANSFORMERS_",
    "PYTORCH_PRETRAINED_",
    "PYTHON",
)
STDERR_LINES = 15


def run_isolated(job: Mapping, checks: CheckList, workdir: Path) -> Dict[str, object]:
    """Runs the probe `folder` where neither this repository, nor a cache, nor the network can be seen."""
    with start_isolated(job, workdir) as child:
        return child.follow(checks)


def start_isolated(job: Mapping, workdir: Path) -> "Child":
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN_SETTINGS)}
    home = tempfile.mkdtemp(prefix="hf_home-", dir=workdir)
    environment.update(
        HF_HOME=home,
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TRANSFORMERS_VERBOSITY="error",
        PYTHONDONTWRITEBYTECODE="1",
    )
    job = {
        **job,
        "scripts": str(SCRIPTS),
        "hidden_paths": [str(ROOT), str(SCRIPTS)],
        "hidden_modules": [*PACKAGES, "hubtools"],
    }
    return Child(
        isolated_command("probes.folder", libraries_only=True, code=str(HERE)), job, workdir, environment, workdir
    )


def run_beside(probe: str, job: Mapping, checks: CheckList, workdir: Path) -> Dict[str, object]:
    """Runs a probe that uses this repository, in the caller's own environment and working directory, neither of which
    is on its path."""
    with start_beside(probe, job, workdir) as child:
        return child.follow(checks)


def start_beside(probe: str, job: Mapping, workdir: Path) -> "Child":
    return Child(isolated_command(f"{__package__}.probes.{probe}"), job, workdir, dict(os.environ), None)


class Child:
    """A probe at work. What it says may be followed later: until then it works on, and waits only where its pipe is
    full.

    A context manager, at whose end the process is gone, and whatever it has started.
    """

    def __init__(
        self, command: List[str], job: Mapping, workdir: Path, environment: Dict[str, str], cwd: Optional[Path]
    ):
        self._expected = job["checks"]
        self._errors = tempfile.TemporaryFile(dir=workdir)  # noqa: SIM115 -- closed by __exit__
        with tempfile.NamedTemporaryFile(
            "w", dir=workdir, prefix="job-", suffix=".json", delete=False, encoding="utf-8"
        ) as file:
            json.dump(job, file)
        # A session of its own, so that the processes it starts can be ended with it.
        pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True)
        self._process = subprocess.Popen([*command, file.name], env=environment, cwd=cwd, **pipes)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def follow(self, checks: CheckList) -> Dict[str, object]:
        """Adds what the probe finds to `checks`, up to its end. Returns the values it reports, by name.

        Raises:
            UserError: the probe found a file of the user's unusable.
        """
        listener = _Listener(self._expected, checks)
        for line in self._process.stdout:
            listener.hear(json.loads(line))
        self._process.wait()
        if not listener.done:
            self._errors.seek(0)
            listener.died(self._process.returncode, self._errors.read().decode("utf-8", "replace"))
        return listener.values


class _Listener:
    """Follows the events of one child."""

    def __init__(self, expected: List[str], checks: CheckList):
        self.pending = list(expected)
        self.checks = checks
        self.values: Dict[str, object] = {}
        self.using: Optional[str] = None
        self.done = False

    def hear(self, event: dict) -> None:
        kind = event.pop("event")
        if kind == "check":
            self.pending.remove(event["name"])
            self.checks.add(Check(**event))
        elif kind == "value":
            self.values[event["name"]] = event["value"]
        elif kind == "using":
            self.using = event["what"]
        elif kind == "usage":
            raise UserError(event["message"])
        elif kind == "done":
            self.done = True

    def died(self, code: int, errors: str) -> None:
        """Blames the check that was running, or the user's file that was in use; the checks after it are not
        reached."""
        cause = last_words(code, errors)
        if self.using:
            raise UserError(f"{self.using} failed: {cause}")
        if not self.pending:
            return
        particulars = "\n".join(errors.rstrip().splitlines()[-STDERR_LINES:])
        running, *left = self.pending
        self.checks.add(Check(running, FAIL, f"{cause}\n{particulars}".rstrip()))
        for name in left:
            self.checks.add(Check(name, SKIP, f"not reached: {running} ended the process"))


def last_words(code: int, errors: str) -> str:
    """Why a process ended, in a line: the exception it printed, or the signal that killed it."""
    if code < 0:
        hint = "; out of memory?" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"the process was killed by {signal.Signals(-code).name}{hint}"
    lines = errors.rstrip().splitlines()
    # The message may run over several lines; its first one starts in the first column, after the indented traceback.
    last_trace = max((i for i, line in enumerate(lines) if line.startswith("  ")), default=-1)
    message = " ".join(line.strip() for line in lines[last_trace + 1 :] if line.strip())
    return message or (lines[-1].strip() if lines else f"the process ended with code {code} and said nothing")
