"""Peak memory of one forward: how far the resident set rises above the model at rest.

To be measured in a process that does nothing else.
"""

import ctypes
import gc
from pathlib import Path

import torch

from ..errors import UserError
from .case import Inputs

CLEAR_REFS = Path("/proc/self/clear_refs")


def can_measure_peak() -> bool:
    """It takes Linux's /proc."""
    return CLEAR_REFS.exists()


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


def forward_peak_bytes(model: torch.nn.Module, inputs: Inputs) -> int:
    """Rise of the resident set's high-water mark during a forward. The one before it pays for one-time buffers."""
    model(**inputs)
    release_freed_memory()
    CLEAR_REFS.write_text("5")  # sets VmHWM back to VmRSS
    rest = status_bytes("VmRSS")
    model(**inputs)
    return status_bytes("VmHWM") - rest
