"""One model of a case in a process of its own: what one leaves behind in the allocator changes the speed of the other.

Its `main`, with the arguments CASE model|reference FILE.py:NAME THREADS, answers requests, each a line of JSON on its
standard input, with a line of JSON.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict

import torch

from ..errors import UserError, run_script
from ..facts import Case, Load
from ..isolation import isolated_command
from . import case_named
from .measure import count_flops, forward_peak_bytes
from .models import Inputs, build, inputs_of

SCRIPTS = Path(__file__).resolve().parents[2]
LARGEST = "the largest sample alone"  # a load's name


class Worker:
    """The parent's side; a context manager, at whose end the process is gone.

    Args:
        case: name of the case.
        which: "model" or "reference".
        reference: FILE.py:NAME, as `reference_file` gives it.
        threads: of torch.
        module: whose `main` the process runs.
    """

    def __init__(self, case: str, which: str, reference: str, threads: int, module: str = "worker"):
        self._name = f"{case}/{which}"
        self._command = isolated_command(f"hubtools.benchmarks.{module}", case, which, reference, str(threads))

    def __enter__(self) -> "Worker":
        self._errors = tempfile.TemporaryFile("w+")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        self._process = subprocess.Popen(self._command, cwd=SCRIPTS, text=True, **pipes)
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def seconds(self, load: str = "") -> float:
        """The time of one forward, on the case's inputs or on those of one of its loads."""
        return self._ask("seconds", load)

    def peak_bytes(self) -> int:
        """See `forward_peak_bytes`."""
        return self._ask("peak_bytes", "")

    def memory_of_pack(self) -> Dict[str, int]:
        """Bytes: the peak of the case's largest sample alone, and the pack's inputs and output together."""
        return {"largest_alone": self._ask("peak_bytes", LARGEST), "inputs_and_output": self._ask("bytes_in_and_out")}

    def flops(self) -> int:
        """See `count_flops`."""
        return self._ask("flops")

    def save_output(self, file: Path) -> None:
        """Saves what the last forward of the case's inputs gave."""
        self._ask("save_output", str(file))

    def file_bytes(self) -> int:
        """Of a form's file."""
        return self._ask("file_bytes")

    def save_logits(self, file: Path) -> None:
        """Saves a trained model's `logits` of its held-out data, and the `labels`."""
        self._ask("save_logits", str(file))

    def _ask(self, *request: str) -> Any:
        with contextlib.suppress(BrokenPipeError):  # it has ended: the missing answer tells
            print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{self._name} stopped: {last.removeprefix('error: ')}")
        return json.loads(answer)


class Runs:
    """The child's side: a model, its inputs, and what is asked of them."""

    def __init__(self, case: Case, which: str, reference: str):
        self.case, self.model = case, build(case, which, reference)
        self.inputs: Dict[str, Inputs] = {"": inputs_of(case), **{load.name: inputs_of(load) for load in case.loads}}
        if case.largest:
            self.inputs[LARGEST] = inputs_of(Load(LARGEST, case.largest, 1))
        self.output = None

    def seconds(self, load: str) -> float:
        start = time.perf_counter()
        output = self.model(**self.inputs[load])
        taken = time.perf_counter() - start
        if not load:
            self.output = output[self.case.output]
        return taken

    def peak_bytes(self, load: str) -> int:
        return forward_peak_bytes(self.model, self.inputs[load])

    def bytes_in_and_out(self) -> int:
        tensors = [*self.inputs[""].values(), self.model(**self.inputs[""])[self.case.output]]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def flops(self) -> int:
        return count_flops(self.model, self.inputs[""])

    def save_output(self, file: str) -> None:
        torch.save(self.output, file)


def answer_requests(argv) -> int:
    name, which, reference, threads = argv
    torch.set_num_threads(int(threads))
    return serve(Runs(case_named(name), which, reference))


def serve(runs: Runs) -> int:
    """Answers requests until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a reference prints is no answer
    with torch.no_grad():
        for line in sys.stdin:
            request, *arguments = json.loads(line)
            print(json.dumps(getattr(runs, request)(*arguments)), file=answers, flush=True)
    return 0


def main() -> None:
    run_script(answer_requests)
