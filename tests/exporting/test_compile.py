"""torch.compile(fullgraph=True): one graph for inputs of any size."""

import shutil

import pytest
import torch
from measure import assert_outputs_close
from torch._dynamo.testing import CompileCounter

from byteformer import ByteFormerConfig, ByteFormerForImageClassification
from llavavit import LlavaViTConfig, LlavaViTForVideoClassification

PIXELS = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, patch_size=8)
BYTES = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_kernel_size=4,
    max_position_embeddings=400, window_sizes=[16], window_shifts=[0, 8], downsample=[True, False],
)  # fmt: skip
SIDES = [(48, 32), (16, 16), (24, 16), (16, 40), (32, 32), (40, 24), (56, 56), (64, 16), (72, 48), (80, 80)]
CLIPS = [2, 3, 5]


def compiled(model):
    """The compiled model, and what counts how often it was compiled."""
    torch._dynamo.reset()
    counter = CompileCounter()
    return torch.compile(model, fullgraph=True, backend=counter), counter


def of_any_size(tensor, *sizes):
    """As the documents say: these sizes will vary, the others will not."""
    for size in sizes:
        torch._dynamo.mark_dynamic(tensor, size)
    return tensor


def test_llava_vit_is_compiled_once_for_ten_sizes_and_three_clip_lengths():
    model = LlavaViTForVideoClassification(LlavaViTConfig(**PIXELS)).eval()
    fast, counter = compiled(model)
    inputs = [torch.randn(1, 3, 4, *side) for side in SIDES] + [torch.randn(1, 3, frames, 32, 24) for frames in CLIPS]
    with torch.no_grad():
        for pixels in inputs:
            found = fast(of_any_size(pixels, 2, 3, 4)).logits
            assert_outputs_close(found, model(pixels).logits, f"pixels {tuple(pixels.shape)}")
    assert counter.frame_count == 1


@pytest.mark.parametrize("mask_padding", [False, True])
def test_byteformer_is_compiled_once_for_ten_lengths(mask_padding):
    model = ByteFormerForImageClassification(ByteFormerConfig(mask_padding=mask_padding, **BYTES)).eval()
    fast, counter = compiled(model)
    with torch.no_grad():
        for length in (100, 12, 31, 64, 65, 130, 131, 200, 333, 800):
            ids = torch.randint(0, 256, (2, length))
            ids[1, length * 2 // 3 :] = 256
            assert_outputs_close(fast(of_any_size(ids, 1))[0], model(ids)[0], f"{length} bytes")
    assert counter.frame_count == 1


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler: inductor needs one")
def test_what_inductor_makes_of_byteformer_equals_eager():
    """As released, with padding that takes part, and at a length that was not compiled for."""
    torch._dynamo.reset()
    model = ByteFormerForImageClassification(ByteFormerConfig(**BYTES)).eval()
    fast = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        for length in (200, 333):
            ids = torch.randint(0, 256, (2, length))
            ids[1, length * 2 // 3 :] = 256
            assert_outputs_close(fast(of_any_size(ids, 1)).logits, model(ids).logits, f"{length} bytes")
