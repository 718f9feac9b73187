"""Times the two models of a case side by side."""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Dict

import torch

from ..facts import Case
from .measure import matmul_flops_per_second
from .models import OURS, REFERENCE
from .worker import Worker


def measure_times(case: Case, reference: str, repeats: int, threads: int) -> Dict[str, object]:
    """The two models take turns, so that what else the machine does falls on both; the first round is not counted.

    Returns:
        Seconds per run of each, their medians, the ratio reference/model, and the largest difference of the outputs.
        Also the seconds that the model's matrix products take at the best speed seen in between, and the ratio that
        this allows.
    """
    seconds: Dict[str, list] = {OURS: [], REFERENCE: []}
    speeds = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        workers = {which: stack.enter_context(Worker(case.name, which, reference, threads)) for which in seconds}
        for _ in range(repeats + 1):
            for which, worker in workers.items():
                seconds[which].append(worker.seconds())
                speeds.append(matmul_flops_per_second())
        outputs = {which: saved_output(worker, Path(scratch) / which) for which, worker in workers.items()}
        arithmetic = workers[OURS].flops() / max(speeds)
    seconds = {which: values[1:] for which, values in seconds.items()}
    medians = {which: statistics.median(values) for which, values in seconds.items()}
    return {
        "seconds": seconds,
        "median_seconds": medians,
        "time_ratio": medians[REFERENCE] / medians[OURS],
        "arithmetic_seconds": arithmetic,
        "ratio_ceiling": medians[REFERENCE] / arithmetic,
        "largest_difference": (outputs[OURS] - outputs[REFERENCE]).abs().max().item(),
        "largest_magnitude": outputs[REFERENCE].abs().max().item(),
    }


def saved_output(worker: Worker, file: Path) -> torch.Tensor:
    worker.save_output(file)
    return torch.load(file, weights_only=True)


def measure_loads(case: Case, reference: str, repeats: int, threads: int) -> Dict[str, float]:
    """Time per unit of work of each of the case's loads, as a multiple of the first one's (medians, loads
    alternating)."""
    seconds: Dict[str, list] = {load.name: [] for load in case.loads}
    with Worker(case.name, OURS, reference, threads) as worker:
        for _ in range(repeats + 1):
            for name in seconds:
                seconds[name].append(worker.seconds(name))
    per_unit = {load.name: statistics.median(seconds[load.name][1:]) / load.units for load in case.loads}
    first = per_unit[case.loads[0].name]
    return {name: value / first for name, value in per_unit.items()}
