"""What a forward costs: the matrix products in it, the machine's speed at them, and its peak memory.

Products and speed give a time that no implementation undercuts. Peak memory is how far the resident set rises above the
model at rest; to be measured in a process that does nothing else.
"""

import ctypes
import gc
import time
from pathlib import Path
from typing import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError

SIDE = 2048
CLEAR_REFS = Path("/proc/self/clear_refs")


def addmm_flops(result, a, b, **rest) -> int:
    """(N, D) += (N, K) @ (K, D), all given as shapes."""
    return 2 * a[0] * a[1] * b[1]


def attention_flops(query, key, value, *rest, **more) -> int:
    """(B, A, N, d), (B, A, S, d), (B, A, S, e), as shapes: the scores and the weighted sum."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


# Products that torch's counter leaves out.
UNCOUNTED = {
    torch.ops.aten.addmm_: addmm_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
}


def count_flops(model: torch.nn.Module, inputs) -> int:
    """Multiplications and additions in the matrix products and attention of a forward without autograd."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        model(**inputs)
    return counter.get_total_flops()


def matmul_flops_per_second() -> float:
    """The speed of a float32 product of two large square matrices, with the threads that torch is set to."""
    a, b = torch.randn(2, SIDE, SIDE)
    result = torch.empty(SIDE, SIDE)
    start = time.perf_counter()
    torch.mm(a, b, out=result)
    return 2 * SIDE**3 / (time.perf_counter() - start)


def can_measure_peak() -> bool:
    """It takes Linux's /proc."""
    return CLEAR_REFS.exists()


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise UserError(f"/proc/self/status has no {field}")


def release_freed_memory() -> None:
    """Gives what the first forward freed back to the system: kept by glibc's allocator, it would count as the
    model's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_rise(run: Callable[[], object]) -> int:
    """Rise of the resident set's high-water mark while something runs. Once-only buffers are to be paid for before."""
    release_freed_memory()
    CLEAR_REFS.write_text("5")  # sets VmHWM back to VmRSS
    rest = status_bytes("VmRSS")
    run()
    return status_bytes("VmHWM") - rest


def forward_peak_bytes(model: torch.nn.Module, inputs: dict) -> int:
    """See `peak_rise`, of a forward; the one before it pays for once-only buffers."""
    model(**inputs)
    return peak_rise(lambda: model(**inputs))
