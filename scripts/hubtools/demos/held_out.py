"""What the two trained models of hub_repos/ have never seen, as their inputs, and how often they are right about it."""

from typing import Callable, Dict, List, NamedTuple, Optional

import torch

from ..finetuning import digits, moving_digits
from ..packages import package_named
from .trained import DIGITS_MODEL, MOTION_MODEL

Tensors = Dict[str, torch.Tensor]
BATCH = 60


class HeldOut(NamedTuple):
    """Inputs of a model in batches, and the classes of all of them (N,)."""

    batches: List[Tensors]
    labels: torch.Tensor


def held_out(name: str, count: Optional[int] = None) -> HeldOut:
    """The held-out data of byteformer-digits or llava-vit-moving-digits, all of it or the first `count` samples."""
    return {DIGITS_MODEL.name: held_out_digits, MOTION_MODEL.name: held_out_clips}[name](count)


def held_out_digits(count: Optional[int]) -> HeldOut:
    processor = package_named("byteformer").load().ByteFormerImageProcessor.from_pretrained(DIGITS_MODEL)
    chosen = list(digits.split()[2])[:count]
    parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    batches = [dict(processor([digits.png_bytes(index) for index in part], return_tensors="pt")) for part in parts]
    return HeldOut(batches, torch.tensor([int(digits.load()[1][index]) for index in chosen]))


def held_out_clips(count: Optional[int]) -> HeldOut:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(MOTION_MODEL)
    clips = moving_digits.HeldOutClips(digits.split()[2])
    items = [clips[number] for number in range(len(clips))[:count]]
    parts = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    collated = [moving_digits.collate(part, processor.image_mean, processor.image_std) for part in parts]
    labels = torch.cat([part.pop("labels") for part in collated])
    return HeldOut(collated, labels)


def logits_of(run: Callable[..., Dict[str, torch.Tensor]], data: HeldOut) -> torch.Tensor:
    """What a model gives for all the samples, (N, classes) in float32."""
    with torch.no_grad():
        return torch.cat([run(**batch)["logits"].float() for batch in data.batches])


def accuracy(logits: torch.Tensor, data: HeldOut) -> float:
    return (logits.argmax(-1) == data.labels).float().mean().item()
