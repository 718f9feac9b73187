"""Peak memory of one forward: how far the resident set rises above the model at rest, in a process of its own.

Run as a module it prints that number of bytes: `python -m hubtools.benchmarks.memory CASE model|reference FILE.py:NAME THREADS`.
"""

import ctypes
import gc
import subprocess
import sys
from pathlib import Path
from typing import Optional

import torch

from ..errors import UserError
from .models import build, inputs_of
from .registry import case_named

SCRIPTS = Path(__file__).resolve().parents[2]


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise UserError(f"/proc/self/status has no {field}")


def release_freed_memory() -> None:
    """Gives what the first forward freed back to the system: kept by glibc's allocator, it would count as the model's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def forward_peak_bytes(case_name: str, which: str, reference: str) -> int:
    """Rise of the resident set's high-water mark during a forward. The one before it pays for one-time buffers."""
    case = case_named(case_name)
    model, inputs = build(case, which, reference), inputs_of(case)
    with torch.no_grad():
        model(**inputs)
        release_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
        rest = status_bytes("VmRSS")
        model(**inputs)
    return status_bytes("VmHWM") - rest


def measure_peak(case_name: str, which: str, reference: str, threads: int) -> Optional[int]:
    """`forward_peak_bytes` in a fresh process; None where the system cannot tell (it takes Linux's /proc)."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, "-m", "hubtools.benchmarks.memory", case_name, which, reference, str(threads)]
    result = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"measuring the memory of {case_name}/{which} failed: {last}")
    return int(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    print(forward_peak_bytes(*sys.argv[1:4]))
