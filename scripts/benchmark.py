#!/usr/bin/env python3
"""Times named cases side by side with a reference: medians, their ratio, peak memory, and how far the outputs differ.

    python scripts/benchmark.py --case image --case video
    python scripts/benchmark.py --case sparse --reference tests/plain_llava_vit.py:PlainLlavaViTSdpa --json result.json

Both models have equal weights and inputs and take turns, in float32 without gradients, each in a process of its own, as
its users would run it: the memory that one has freed would make the other's allocations cheaper or dearer. A ratio is
reference / model, so above 1 the model is faster. The ceiling is what it would be if the model took no longer than its
matrix products take at the machine's best speed for large ones. Peak memory is the rise of the process's resident set
during one forward, over the model at rest. The last line is one JSON document.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import json
import sys
from pathlib import Path
from typing import Dict, Optional, Sequence

import torch
from hubtools.benchmarks.measure import can_measure_peak
from hubtools.benchmarks.models import CASES, OURS, REFERENCE, case_named, load_reference, reference_file
from hubtools.benchmarks.timing import measure_loads, measure_times
from hubtools.benchmarks.worker import Worker
from hubtools.errors import ArgumentParser, UserError, run_script

MIB = 2**20


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parse(argv: Optional[Sequence[str]]):
    parser = ArgumentParser(prog="benchmark.py", description=__doc__)
    light, heavy = ([case.name for case in CASES.values() if case.heavy is is_heavy] for is_heavy in (False, True))
    parser.add_argument(
        "--case", action="append", help=f"repeatable; default: {', '.join(light)}; only when named: {', '.join(heavy)}"
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
    if case.largest and known:
        result["pack_bytes"] = measure_pack(name, reference, arguments.threads)
    if case.loads:
        result["time_per_unit"] = measure_loads(case, reference, arguments.repeats, arguments.threads)
    return result


def measure_peak(name: str, which: str, reference: str, threads: int) -> Optional[int]:
    """None where the system cannot tell."""
    if not can_measure_peak():
        return None
    with Worker(name, which, reference, threads) as worker:
        return worker.peak_bytes()


def measure_pack(name: str, reference: str, threads: int) -> Dict[str, int]:
    with Worker(name, OURS, reference, threads) as worker:
        return worker.memory_of_pack()


def described_pack(result: Dict[str, object]) -> str:
    """How many times the memory of its largest sample alone a pack takes, apart from its inputs and output."""
    if "pack_bytes" not in result:
        return ""
    alone, held = (result["pack_bytes"][key] for key in ("largest_alone", "inputs_and_output"))
    times = (result["peak_bytes"][OURS] - held) / alone
    return (
        f"; largest sample alone {alone / MIB:.0f} MiB, inputs and output {held / MIB:.0f} MiB: "
        f"without these {times:.2f} times the largest alone"
    )


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
        f"peak memory {memory}; largest difference {result['largest_difference']:.1e} of {result['largest_magnitude']:.1e}"
        f"{described_pack(result)}{scaling}"
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = parse(argv)
    names = arguments.case or [case.name for case in CASES.values() if not case.heavy]
    for name in names:
        case_named(name)
    if arguments.json and not arguments.json.parent.is_dir():
        raise UserError(f"the folder of --json does not exist: {arguments.json.parent}")
    torch.set_num_threads(arguments.threads)
    results = []
    for name in names:
        results.append(measure(name, arguments))
        print(describe(results[-1]), flush=True)
    document = json.dumps({"torch": torch.__version__, "results": results})
    if arguments.json:
        arguments.json.write_text(document + "\n")
    print(document)
    return 0


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
