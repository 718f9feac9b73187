"""One case measured: the two models' times, their peak memory, and a line that says so."""

from typing import Dict, Optional

from . import case_named
from .measure import can_measure_peak
from .models import OURS, REFERENCE, load_reference, reference_file
from .timing import measure_loads, measure_times
from .worker import Worker

MIB = 2**20


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
        f"peak memory {memory}; largest difference {result['largest_difference']:.1e} of {result['largest_magnitude']:.1e}{described_pack(result)}{scaling}"
    )
