"""Runs a probe in a child process and turns what it reports into checks."""

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
OWN_SETTINGS = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_", "PYTORCH_TRANSFORMERS_", "PYTORCH_PRETRAINED_", "PYTHON")
STDERR_LINES = 15


def run_isolated(job: Mapping, checks: CheckList, workdir: Path) -> Dict[str, object]:
    """Runs the probe `folder` where neither this repository, nor a cache, nor the network can be seen."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN_SETTINGS)}
    home = tempfile.mkdtemp(prefix="hf_home-", dir=workdir)
    environment.update(HF_HOME=home, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TRANSFORMERS_VERBOSITY="error", PYTHONDONTWRITEBYTECODE="1")
    job = {**job, "hidden_paths": [str(ROOT), str(SCRIPTS)], "hidden_modules": [*PACKAGES, "hubtools"]}
    return _run(isolated_command("probes.folder", libraries_only=True, code=str(HERE)), job, checks, workdir, environment, workdir)


def run_beside(probe: str, job: Mapping, checks: CheckList, workdir: Path) -> Dict[str, object]:
    """Runs a probe that uses this repository, in the caller's own environment and working directory, neither of which is on its path."""
    return _run(isolated_command(f"{__package__}.probes.{probe}"), job, checks, workdir, dict(os.environ), None)


def _run(command: List[str], job: Mapping, checks: CheckList, workdir: Path, environment: Dict[str, str], cwd: Optional[Path]) -> Dict[str, object]:
    """Runs one probe to its end. Returns the values it reports, by name.

    Raises:
        UserError: the probe found a file of the user's unusable.
    """
    job_file = workdir / "job.json"
    job_file.write_text(json.dumps(job), encoding="utf-8")
    with tempfile.TemporaryFile(dir=workdir) as errors:
        process = subprocess.Popen([*command, str(job_file)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=cwd)
        try:
            listener = _Listener(job["checks"], checks)
            for line in process.stdout:
                listener.hear(json.loads(line))
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        if not listener.done:
            errors.seek(0)
            listener.died(process.returncode, errors.read().decode("utf-8", "replace"))
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
        """Blames the check that was running, or the user's file that was in use; the checks after it are not reached."""
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
