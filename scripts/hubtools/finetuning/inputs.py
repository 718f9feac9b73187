"""How sources (pictures, files) become what each model takes, and items become batches."""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers.image_utils import load_image

from ..errors import UserError
from ..packages import PACKAGES
from .folders import picture_errors

Source = Union[Image.Image, Path]
Change = Optional[Callable[[Image.Image], Image.Image]]
Encode = Callable[[Source, Change], Dict[str, torch.Tensor]]


class EncodedSources(Dataset):
    """Sources that pass through the processor when they are asked for.

    Args:
        sources: what to encode; a callable is called with the epoch for a new variation in every epoch.
        labels: class index of each.
        encode: source, what to change in its picture or None -> tensors of one item, without a batch dimension.
        vary: picture, epoch, index -> picture; None leaves pictures as they are.
    """

    def __init__(
        self,
        sources: Sequence[Union[Source, Callable[[int], Source]]],
        labels: Sequence[int],
        encode: Encode,
        vary: Optional[Callable] = None,
    ):
        self.sources, self.labels, self.encode, self.vary, self.epoch = sources, labels, encode, vary, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        source = self.sources[index]
        change = partial(self.vary, epoch=self.epoch, index=index) if self.vary else None
        return {**self.encode(source(self.epoch) if callable(source) else source, change), "labels": self.labels[index]}


# The encoders are classes, not closures: processes that load data may have to pickle them.


@dataclass
class PixelEncoder:
    """Pictures, or picture files, through the CLIP image processor."""

    processor: Any

    def __call__(self, source: Source, change: Change = None) -> Dict[str, torch.Tensor]:
        picture = open_picture(source)
        return {
            "pixel_values": self.processor(change(picture) if change else picture, return_tensors="pt")["pixel_values"][
                0
            ]
        }


@dataclass
class NativeEncoder:
    """Pictures, or picture files, through LLaVA-ViT's processor of native resolution: a pack of one sample."""

    processor: Any

    def __call__(self, source: Source, change: Change = None) -> Dict[str, torch.Tensor]:
        try:
            picture = PACKAGES["llavavit"].load().image_processing_llava_vit.to_rgb(source)
            return dict(self.processor(change(picture) if change else picture, return_tensors="pt"))
        except ValueError as error:
            raise UserError(str(error)) from error


@dataclass
class ClipEncoder:
    """Video files through LLaVA-ViT's video processor: a pack of one sample, the patches that it kept."""

    processor: Any
    config: Any

    def __call__(self, source: Path, change: Change = None) -> Dict[str, torch.Tensor]:
        try:
            clip = self.processor(videos=source, return_tensors="pt")
        except ValueError as error:
            raise UserError(str(error)) from error
        parts = ([clip[name][0]] for name in ("pixel_values", "visible_indices", "patch_positions"))
        return PACKAGES["llavavit"].load().pack(self.config, *parts)


@dataclass
class ByteEncoder:
    """Sources through ByteFormer's processor, as the pipelines of ByteFormer take them.

    Attributes:
        processor: image processor or feature extractor.
        config: the model's configuration, which limits the number of bytes.
        decode: open the file (a picture, a WAV file) and encode it by the processor's recipe; otherwise a file gives its own
            bytes.
    """

    processor: Any
    config: Any
    decode: bool

    def __call__(self, source: Source, change: Change = None) -> Dict[str, torch.Tensor]:
        package = PACKAGES["byteformer"].load()
        try:
            opened = self._opened(source, package) if self.decode and isinstance(source, Path) else source
            inputs = self.processor(change(opened) if change else opened, return_tensors="pt")
            package.modeling_byteformer.check_length(
                max(inputs["input_ids"].shape[1], self.config.conv_kernel_size), self.config
            )
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error
        return {"input_ids": inputs["input_ids"][0]}

    def _opened(self, path: Path, package: Any) -> Any:
        if hasattr(self.processor, "open_recording"):
            return self.processor.open_recording(path)
        return package.image_processing_byteformer.open_picture(path)


def open_picture(source: Source) -> Image.Image:
    """An RGB picture, upright, as transformers' pipelines would open it."""
    if isinstance(source, Image.Image):
        return source
    try:
        return load_image(str(source))
    except picture_errors() as error:
        raise UserError(f"{source} cannot be read as a picture: {error}") from error


def stack_pixels(items: List[Dict[str, Any]]) -> Dict[str, torch.Tensor]:
    """Items -> `pixel_values` (B, C, H, W) and `labels` (B,)."""
    return {"pixel_values": torch.stack([item["pixel_values"] for item in items]), "labels": labels_of(items)}


def join_packs(items: List[Dict[str, Any]]) -> Dict[str, torch.Tensor]:
    """Packs of one sample each -> the pack of all of them, and `labels` (S,)."""
    # The labels come first: the Trainer takes the length of the first tensor for the number of samples.
    batch = {"labels": labels_of(items)}
    batch.update({name: torch.cat([item[name] for item in items]) for name in ("pixel_values", "patch_positions")})
    if "grid_thw" in items[0]:
        return {**batch, "grid_thw": torch.cat([item["grid_thw"] for item in items])}
    return {**batch, "cu_seqlens": torch.tensor([0, *accumulate(len(item["pixel_values"]) for item in items)])}


def pad_bytes(items: List[Dict[str, Any]], padding_id: int, at_least: int = 1) -> Dict[str, torch.Tensor]:
    """Items of any length -> `input_ids` (B, S) with padding at the end, and `labels` (B,)."""
    length = max(at_least, *(len(item["input_ids"]) for item in items))
    input_ids = torch.full((len(items), length), padding_id)
    for row, item in zip(input_ids, items):
        row[: len(item["input_ids"])] = item["input_ids"]
    return {"input_ids": input_ids, "labels": labels_of(items)}


def without_padding(
    batch: Dict[str, torch.Tensor], padding_id: int, at_least: int = 1
) -> List[Tuple[torch.Tensor, Dict[str, torch.Tensor]]]:
    """A padded batch as parts whose rows are of one length: the rows' indices, and their inputs. What `pad_bytes` makes, undone."""
    lengths = (batch["input_ids"] != padding_id).sum(dim=1).clamp(min=at_least)
    parts = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
    return [(rows, {"input_ids": batch["input_ids"][rows, : lengths[rows[0]]]}) for rows in parts]


def byte_separator(config) -> Optional[Callable]:
    """`without_padding` for models in which padding takes part; None where it is masked."""
    return (
        None
        if config.mask_padding
        else partial(without_padding, padding_id=config.padding_id, at_least=config.conv_kernel_size)
    )


def byte_collator(config) -> Callable:
    return partial(pad_bytes, padding_id=config.padding_id, at_least=config.conv_kernel_size)


def labels_of(items: Sequence[Dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([item["labels"] for item in items])
