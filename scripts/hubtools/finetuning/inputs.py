"""How sources (pictures, files) become what each model takes, and items become batches."""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Union

import torch
from PIL import Image
from torch.utils.data import Dataset

from ..errors import UserError

Source = Union[Image.Image, Path]
Encode = Callable[[Source], Dict[str, torch.Tensor]]


class EncodedSources(Dataset):
    """Sources that pass through the processor when they are asked for.

    Args:
        sources: what to encode; a callable is called with the epoch for a new variation in every epoch.
        labels: class index of each.
        encode: source -> tensors of one item, without a batch dimension.
    """

    def __init__(self, sources: Sequence[Union[Source, Callable[[int], Source]]], labels: Sequence[int], encode: Encode):
        self.sources, self.labels, self.encode, self.epoch = sources, labels, encode, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        source = self.sources[index]
        return {**self.encode(source(self.epoch) if callable(source) else source), "labels": self.labels[index]}


def pixel_encoder(processor) -> Encode:
    """Pictures, or picture files, through the CLIP image processor."""

    def encode(source: Source) -> Dict[str, torch.Tensor]:
        pixels = processor(open_picture(source), return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels[0]}

    return encode


def byte_encoder(processor, config, package, decode: bool) -> Encode:
    """Sources through ByteFormer's processor.

    Args:
        processor: image processor or feature extractor.
        config: the model's configuration, which limits the number of bytes.
        package: the imported byteformer package.
        decode: open picture files and encode them by the processor's recipe, as transformers' pipelines do; otherwise a
            file gives its own bytes.
    """

    def encode(source: Source) -> Dict[str, torch.Tensor]:
        try:
            inputs = processor(open_picture(source) if decode else source, return_tensors="pt")
            package.modeling_byteformer.check_length(max(inputs["input_ids"].shape[1], config.conv_kernel_size), config)
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error
        return {"input_ids": inputs["input_ids"][0]}

    return encode


def open_picture(source: Source) -> Image.Image:
    """An RGB picture as transformers' pipelines would open it."""
    if isinstance(source, Image.Image):
        return source
    try:
        with Image.open(source) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: how Pillow reports a broken PNG
        raise UserError(f"{source} cannot be read as a picture: {error}") from error


def stack_pixels(items: List[Dict[str, Any]]) -> Dict[str, torch.Tensor]:
    """Items -> `pixel_values` (B, C, H, W) and `labels` (B,)."""
    return {"pixel_values": torch.stack([item["pixel_values"] for item in items]), "labels": labels_of(items)}


def pad_bytes(items: List[Dict[str, Any]], padding_id: int, at_least: int = 1) -> Dict[str, torch.Tensor]:
    """Items of any length -> `input_ids` (B, S) with padding at the end, and `labels` (B,)."""
    length = max(at_least, *(len(item["input_ids"]) for item in items))
    input_ids = torch.full((len(items), length), padding_id)
    for row, item in zip(input_ids, items):
        row[: len(item["input_ids"])] = item["input_ids"]
    return {"input_ids": input_ids, "labels": labels_of(items)}


def byte_collator(config) -> Callable:
    return partial(pad_bytes, padding_id=config.padding_id, at_least=config.conv_kernel_size)


def labels_of(items: Sequence[Dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([item["labels"] for item in items])
