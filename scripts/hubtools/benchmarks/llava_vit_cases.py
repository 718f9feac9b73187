"""Benchmark cases of LLaVA-ViT: the widths of the large size, four layers."""

from typing import Optional

import torch

from .case import Case, Inputs

LARGE_WIDTHS = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, patch_size=14, num_hidden_layers=4)


def pixels(*shape: int, visible: Optional[int] = None):
    """A maker of (1, 3, ...) pixels, and of `visible` ascending patch indices where asked."""

    def make(generator: torch.Generator) -> Inputs:
        inputs = dict(pixel_values=torch.randn(1, 3, *shape, generator=generator))
        if visible is not None:
            frames, height, width = shape
            patches = frames * (height // 14) * (width // 14)
            inputs["visible_indices"] = torch.randperm(patches, generator=generator)[:visible].sort().values[None]
        return inputs

    return make


def llava_vit_case(name: str, make_inputs) -> Case:
    return Case(
        name=name,
        package="llavavit",
        architecture="LlavaViTModel",
        config=LARGE_WIDTHS,
        make_inputs=make_inputs,
        reference="tests/plain_llava_vit.py:PlainLlavaViT",
        output="pooler_output",
    )


CASES = (
    llava_vit_case("image", pixels(448, 448)),
    llava_vit_case("video", pixels(16, 224, 224)),
    llava_vit_case("sparse", pixels(64, 224, 224, visible=2048)),
)
