"""Times the two models of a case side by side."""

import statistics
import time
from typing import Dict

import torch

from .arithmetic import count_flops, matmul_flops_per_second
from .case import Case
from .models import OURS, REFERENCE, build, build_both


def measure_times(case: Case, reference: str, repeats: int) -> Dict[str, object]:
    """Alternates the two models, so that what else the machine does falls on both; the first round is not counted.

    Returns:
        Seconds per run of each, their medians, the ratio reference/model, and the largest difference of the outputs. Also
        the seconds that the model's matrix products take at the best speed seen in between, and the ratio that this allows.
    """
    pairs = build_both(case, reference)
    seconds: Dict[str, list] = {which: [] for which in pairs}
    outputs, speeds = {}, []
    with torch.no_grad():
        for _ in range(repeats + 1):
            for which, (model, inputs) in pairs.items():
                start = time.perf_counter()
                outputs[which] = model(**inputs)[case.output]
                seconds[which].append(time.perf_counter() - start)
                speeds.append(matmul_flops_per_second())
    seconds = {which: values[1:] for which, values in seconds.items()}
    medians = {which: statistics.median(values) for which, values in seconds.items()}
    arithmetic = count_flops(*pairs[OURS]) / max(speeds)
    return {
        "seconds": seconds,
        "median_seconds": medians,
        "time_ratio": medians[REFERENCE] / medians[OURS],
        "arithmetic_seconds": arithmetic,
        "ratio_ceiling": medians[REFERENCE] / arithmetic,
        "largest_difference": (outputs[OURS] - outputs[REFERENCE]).abs().max().item(),
        "largest_magnitude": outputs[REFERENCE].abs().max().item(),
    }


def measure_loads(case: Case, reference: str, repeats: int) -> Dict[str, float]:
    """Time per unit of work of each of the case's loads, as a multiple of the first one's (medians, loads alternating)."""
    model = build(case, OURS, reference)
    inputs = {load.name: load.make_inputs(torch.Generator().manual_seed(1)) for load in case.loads}
    seconds: Dict[str, list] = {name: [] for name in inputs}
    with torch.no_grad():
        for _ in range(repeats + 1):
            for name, given in inputs.items():
                start = time.perf_counter()
                model(**given)
                seconds[name].append(time.perf_counter() - start)
    per_unit = {load.name: statistics.median(seconds[load.name][1:]) / load.units for load in case.loads}
    first = per_unit[case.loads[0].name]
    return {name: value / first for name, value in per_unit.items()}
