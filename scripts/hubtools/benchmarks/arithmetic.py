"""The matrix products in a forward, and the machine's speed at them: together, a time that no implementation undercuts."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048


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
