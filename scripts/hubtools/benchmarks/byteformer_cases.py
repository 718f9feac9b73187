"""Benchmark cases of ByteFormer: the tiny size as released, on sequences as long as the released recipes make them."""

from typing import Sequence

import torch

from .case import Case, Inputs, Load

JPEG_BYTES, TIFF_BYTES = 48_564, 150_528
PADDING = 256
ROWS = 8


def release(kernel_size: int, **more) -> dict:
    """The released configurations: tiny, windows of 128, 50,000 positions, 1000 labels."""
    return dict(conv_kernel_size=kernel_size, max_position_embeddings=50_000, num_labels=1000, **more)


def rows_of(lengths: Sequence[int]):
    """A maker of (B, S) bytes, padded behind each row's length."""

    def make(generator: torch.Generator) -> Inputs:
        input_ids = torch.randint(0, 256, (len(lengths), max(lengths)), generator=generator)
        for row, length in zip(input_ids, lengths):
            row[length:] = PADDING
        return dict(input_ids=input_ids)

    return make


def byteformer_case(name: str, config: dict, lengths: Sequence[int], **more) -> Case:
    return Case(
        name=name,
        package="byteformer",
        architecture="ByteFormerForImageClassification",
        config=config,
        make_inputs=rows_of(lengths),
        reference="tests/plain_byteformer.py:PlainByteFormer",
        output="logits",
        **more,
    )


def filled(first: float, last: float) -> "list[int]":
    """ROWS lengths, evenly from one share of JPEG_BYTES to another."""
    return [round(JPEG_BYTES * share) for share in torch.linspace(first, last, ROWS).tolist()]


def load(first: float, last: float) -> Load:
    # One full row in every load keeps the padded batch, and so the work of a model that computes padding, the same.
    lengths = filled(first, last)[:-1] + [JPEG_BYTES]
    return Load(f"{first:.0%} to {last:.0%}", rows_of(lengths), sum(lengths))


CASES = (
    byteformer_case("jpeg", release(4), [JPEG_BYTES]),
    byteformer_case("tiff", release(32), [TIFF_BYTES]),
    byteformer_case("batch", release(4), [JPEG_BYTES] + [round(JPEG_BYTES * 0.8)] * (ROWS - 1)),
    byteformer_case(
        "ragged",
        release(4, mask_padding=True),
        filled(0.05, 1.0),
        unit="real byte",
        loads=(load(1.0, 1.0), load(0.05, 1.0), load(0.5, 0.5), load(0.05, 0.2)),
    ),
)
