#!/usr/bin/env python3
"""Times named cases side by side with a reference: medians, their ratio, peak memory, and how far the outputs differ.

    python scripts/benchmark.py --case image --case video
    python scripts/benchmark.py --case sparse --reference tests/plain_llava_vit.py:PlainLlavaViTSdpa --json result.json

Both models have equal weights and inputs and take turns, in float32 without gradients, each in a process of its own, as
its users would run it: the memory that one has freed would make the other's allocations cheaper or dearer. A ratio is
reference / model, so above 1 the model is faster. The ceiling is what it would be if the model took no longer than its
matrix products take at the machine's best speed for large ones. Peak memory is the rise of the process's resident set
during one forward, over the model at rest. The last line is one JSON document.

Cases of their own, which run when they are named and take no reference:

    python scripts/benchmark.py --case video-file     # from a video file to the model's input, beside decoding alone
    python scripts/benchmark.py --case video-recall   # which of the patches that matter each selection keeps
    python scripts/benchmark.py --case video-digits   # trains on panned clips, once with each selection: many minutes
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import importlib
import json
import sys
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

import torch
from hubtools.benchmarks.measure import can_measure_peak
from hubtools.benchmarks.models import CASES, OURS, REFERENCE, case_named, load_reference, reference_file
from hubtools.benchmarks.timing import measure_loads, measure_times
from hubtools.benchmarks.worker import Worker
from hubtools.clips import need_av
from hubtools.errors import ArgumentParser, UserError, run_script

MIB = 2**20
# Cases that are no model beside a reference: modules of hubtools.benchmarks with `measure` and `describe`.
OWN = ("video-file", "video-recall", "video-digits")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parse(argv: Optional[Sequence[str]]):
    parser = ArgumentParser(prog="benchmark.py", description=__doc__)
    parser.add_argument(
        "--case", action="append", help=f"repeatable; default: all of {', '.join(CASES)}; besides: {', '.join(OWN)}"
    )
    parser.add_argument(
        "--reference", metavar="FILE.py:NAME", help="NAME(config: dict) -> torch.nn.Module; default: the case's"
    )
    parser.add_argument("--repeats", type=positive, default=7, help="counted runs of each model (default 7)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="threads of each run")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there as well")
    return parser.parse_args(argv)


def measure(name: str, arguments) -> Dict[str, object]:
    case = case_named(name)
    reference = reference_file(arguments.reference or case.reference)
    load_reference(reference)  # a mistyped one is told before anything is measured
    result = {"case": name, "reference": reference.rpartition("/")[2], "threads": arguments.threads}
    result.update(measure_times(case, reference, arguments.repeats, arguments.threads))
    peaks = {which: measure_peak(name, which, reference, arguments.threads) for which in (OURS, REFERENCE)}
    result["peak_bytes"] = peaks
    known = None not in peaks.values() and peaks[REFERENCE] > 0
    result["memory_ratio"] = peaks[OURS] / peaks[REFERENCE] if known else None
    if case.loads:
        result["time_per_unit"] = measure_loads(case, reference, arguments.repeats, arguments.threads)
    return result


def measure_peak(name: str, which: str, reference: str, threads: int) -> Optional[int]:
    """None where the system cannot tell."""
    if not can_measure_peak():
        return None
    with Worker(name, which, reference, threads) as worker:
        return worker.peak_bytes()


def describe(result: Dict[str, object]) -> str:
    medians, peaks = result["median_seconds"], result["peak_bytes"]
    memory = "unknown"
    if result["memory_ratio"] is not None:
        memory = f"{peaks[OURS] / MIB:.0f} against {peaks[REFERENCE] / MIB:.0f} MiB, {result['memory_ratio']:.2f} of it"
    loads = result.get("time_per_unit", {})
    scaling = (
        "; time per "
        + case_named(result["case"]).unit
        + " "
        + ", ".join(f"{name}: {value:.2f}" for name, value in loads.items())
        if loads
        else ""
    )
    return (
        f"{result['case']}: median {medians[OURS]:.3f} against {medians[REFERENCE]:.3f} s, ratio {result['time_ratio']:.2f} "
        f"(ceiling {result['ratio_ceiling']:.2f}); "
        f"peak memory {memory}; largest difference {result['largest_difference']:.1e} of {result['largest_magnitude']:.1e}{scaling}"
    )


def check_case(name: str, arguments) -> None:
    """Before anything is measured."""
    if name not in (*CASES, *OWN):
        raise UserError(f"unknown case {name!r}; known: {', '.join((*CASES, *OWN))}")
    if name in OWN:
        need_av(f"case {name}")
        if arguments.reference:
            raise UserError(f"--reference: case {name} compares no models; leave it out")


def run_case(name: str, arguments) -> Tuple[Dict[str, object], str]:
    """What was measured, and how it is told."""
    if name in CASES:
        result = measure(name, arguments)
        return result, describe(result)
    case = importlib.import_module(f"hubtools.benchmarks.{name.replace('-', '_')}")
    result = {"case": name, "threads": arguments.threads, **case.measure(arguments.repeats, arguments.threads)}
    return result, case.describe(result)


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = parse(argv)
    names = arguments.case or list(CASES)
    for name in names:
        check_case(name, arguments)
    if arguments.json and not arguments.json.parent.is_dir():
        raise UserError(f"the folder of --json does not exist: {arguments.json.parent}")
    torch.set_num_threads(arguments.threads)
    results = []
    for name in names:
        result, told = run_case(name, arguments)
        results.append(result)
        print(told, flush=True)
    document = json.dumps({"torch": torch.__version__, "results": results})
    if arguments.json:
        arguments.json.write_text(document + "\n")
    print(document)
    return 0


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
