"""Case export: the models of cases `image` and `jpeg` eager, compiled and exported, in every precision there is.

All forms of a model take turns, each in a process of its own. What differs is the case's output; how often a form is right
is counted on the held-out data of the two trained models, but for the compiled form, which takes minutes of compiling to
be what eager is. Precisions for which the processor has no units are measured once: they take many times longer.
"""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Dict, Sequence, Tuple

import torch

from ..verification.probes.tensors import largest_difference
from .forms import FLOAT32, FORMS, Form, processor_units
from .measure import can_measure_peak
from .timing import saved_output
from .worker import Worker

SUBJECTS = ("image", "jpeg")
TRAINED = ("byteformer-digits", "llava-vit-moving-digits")
UNITS = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16",)}
COLUMNS = ("seconds", "times eager", "peak memory, MiB", "file, MB", "largest difference")


def measure(
    repeats: int, threads: int, subjects: Sequence[str] = SUBJECTS, forms: Sequence[Form] = FORMS
) -> Dict[str, object]:
    """Of each subject and form: median seconds, peak and file bytes, largest difference of the largest magnitude."""
    usable = [form for form in forms if form.obstacle is None]
    return {
        "units": processor_units(),
        "skipped": {form.name: form.obstacle for form in forms if form.obstacle},
        "subjects": {name: measure_subject(name, usable, repeats, threads) for name in subjects},
        "accuracy": {name: measure_accuracy(name, usable, threads) for name in TRAINED},
    }


def is_repeated(form: Form) -> bool:
    """Whether the processor has units for the form's numbers, as far as is known."""
    return form.precision not in UNITS or any(unit in processor_units() for unit in UNITS[form.precision])


def worker_of(subject: str, form: Form, threads: int) -> Worker:
    return Worker(subject, form.name, "", threads, module="form_worker")


def measure_subject(subject: str, forms: Sequence[Form], repeats: int, threads: int) -> Dict[str, Dict[str, float]]:
    """The first round is not counted, but for forms that have no other."""
    seconds: Dict[str, list] = {form.name: [] for form in forms}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        workers = {form: stack.enter_context(worker_of(subject, form, threads)) for form in forms}
        for number in range(repeats + 1):
            for form, worker in workers.items():
                if number == 0 or is_repeated(form):
                    seconds[form.name].append(worker.seconds())
        outputs = {form: saved_output(worker, Path(scratch) / "output") for form, worker in workers.items()}
        peaks = {
            form: worker.peak_bytes() if can_measure_peak() and is_repeated(form) else None
            for form, worker in workers.items()
        }
        files = {form: worker.file_bytes() for form, worker in workers.items()}
    expected = outputs[FLOAT32]
    return {
        form.name: {
            "seconds": statistics.median(seconds[form.name][1:] or seconds[form.name]),
            "peak_bytes": peaks[form],
            "file_bytes": files[form],
            "difference": share_of_largest(outputs[form], expected),
        }
        for form in forms
    }


def share_of_largest(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How far a tensor is off, as a share of the largest magnitude that it should have."""
    return largest_difference(found, expected) / float(expected.abs().max())


def measure_accuracy(name: str, forms: Sequence[Form], threads: int) -> Dict[str, Tuple[float, float]]:
    """Of each form but the compiled one: the share of held-out data that is right, and the logits' largest difference."""
    logits = {}
    with tempfile.TemporaryDirectory() as scratch:
        for form in forms:
            if form.way != "compiled":
                with worker_of(name, form, threads) as worker:
                    worker.save_logits(Path(scratch) / "logits")
                logits[form.name] = torch.load(Path(scratch) / "logits", weights_only=True)
    expected = logits[FLOAT32.name]["logits"]
    return {
        form: (
            (found["logits"].argmax(-1) == found["labels"]).float().mean().item(),
            share_of_largest(found["logits"], expected),
        )
        for form, found in logits.items()
    }


def describe(result: Dict[str, object]) -> str:
    """The tables of docs/export.md."""
    lines = [f"export, {result['threads']} threads, processor units: {result['units']}"]
    for subject, forms in result["subjects"].items():
        lines += ["", f"| `{subject}` | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
        lines += [row(name, found, forms[FLOAT32.name]["seconds"]) for name, found in forms.items()]
    names = list(result["accuracy"])
    lines += ["", f"| held-out data | {' | '.join(f'`{name}` | difference' for name in names)} |", "|---" * 5 + "|"]
    for form in result["accuracy"][names[0]]:
        cells = [f"{share:.2%} | {off:.1e}" for share, off in (result["accuracy"][name][form] for name in names)]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines + [f"not measured: {name} ({reason})" for name, reason in result["skipped"].items()])


def row(name: str, found: Dict[str, float], eager: float) -> str:
    # A runtime that keeps the memory of its first run adds none with a later one, which is no measure of what it takes.
    memory = "" if found["peak_bytes"] is None else f"{found['peak_bytes'] / 2**20:.0f}"
    memory = "kept" if memory == "0" else memory
    cells = (
        f"{found['seconds']:.2f}",
        f"{eager / found['seconds']:.2f}",
        memory,
        f"{found['file_bytes'] / 1e6:.1f}",
        f"{found['difference']:.1e}",
    )
    return f"| {name} | {' | '.join(cells)} |"
