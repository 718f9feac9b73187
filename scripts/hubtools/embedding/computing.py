"""From what the model takes to vectors, tokens or labels. Which inputs share a batch depends on the inputs alone."""

from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Union

import numpy as np

from ..errors import UserError
from .model import Settings, load_model, read_model_folder
from .reading import Failure, Item

Row = Dict[str, Any]  # column -> value; see shards.schema_of


class Layout(NamedTuple):
    """What columns a model fills: the width of its vectors, or the number of labels that are kept."""

    what: str
    width: int
    places: bool  # whether tokens have (t, row, column)


def layout_of(recipe: Any, config: Any, settings: Settings) -> Layout:
    width = min(settings.top, config.num_labels) if settings.what == "labels" else config.hidden_size
    return Layout(settings.what, width, recipe.package.inputs == "pixels")


class Embedder:
    """The model, for one window of inputs after the other.

    Args:
        folder: of the model.
        settings: what to compute, and the budget of a batch.
        device: of torch.
        threads: of torch on the CPU; the same number gives the same bits.
    """

    def __init__(self, folder: Path, settings: Settings, device: str, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.settings, self.device = settings, device
        recipe, self.config = read_model_folder(folder, settings)
        self.model = load_model(folder, recipe, settings, device)
        self.by_pixels = recipe.package.inputs == "pixels"

    def __call__(self, items: Sequence[Union[Item, Failure]]) -> List[Union[Row, Failure]]:
        """The results of one window, in its order.

        Raises:
            UserError: the device has not memory enough for a batch.
        """
        results: List[Any] = list(items)
        numbers = [number for number, item in enumerate(items) if isinstance(item, Item)]
        for batch in batches(
            numbers, [item.length for item in items if isinstance(item, Item)], self.settings.batch_patches
        ):
            for part in self._mixable(batch, items):
                for number, row in zip(part, self._compute([items[number] for number in part])):
                    results[number] = row
        return results

    def _mixable(self, batch: List[int], items: Sequence[Any]) -> Iterator[List[int]]:
        """A batch in parts that may be computed together: of bytes, where padding would take part, those of one length."""
        if self.by_pixels or self.config.mask_padding and self.settings.what != "tokens":
            yield batch
            return
        for length in sorted({items[number].length for number in batch}):
            yield [number for number in batch if items[number].length == length]

    def _compute(self, items: List[Item]) -> List[Union[Row, Failure]]:
        import torch

        with torch.inference_mode():
            inputs = (self._pack(items) if self.by_pixels else self._pad(items)).items()
            try:
                outputs = self.model(**{name: tensor.to(self.device) for name, tensor in inputs})
            except RuntimeError as error:
                if not isinstance(error, torch.cuda.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                    raise
                most = max(item.length for item in items)
                raise UserError(
                    f"{self.device} has not memory enough for a batch of {sum(item.length for item in items):,} patches, the largest "
                    f"input has {most:,}; give fewer: --batch-patches"
                ) from error
            rows = self._labels(outputs) if self.settings.what == "labels" else self._features(outputs, items)
            return [self._finished(row, item) for row, item in zip(rows, items)]

    def _pack(self, items: List[Item]) -> Dict[str, Any]:
        """One pack, in which every input attends to itself alone; neighbours of one size share a call of attention."""
        import torch

        def joined(name: str) -> Any:
            # In memory of torch's own, which is aligned alike each time: the last bits of products depend on that.
            return torch.cat([torch.from_numpy(item.arrays[name]) for item in items])

        packed = {"pixel_values": joined("pixel_values"), "patch_positions": joined("patch_positions")}
        if self.config.frame_windows_size:
            packed["grid_thw"] = joined("grid_thw")
        else:
            packed["cu_seqlens"] = torch.tensor([0, *np.cumsum([item.length for item in items]).tolist()])
        return packed

    def _pad(self, items: List[Item]) -> Dict[str, Any]:
        import torch

        least = self.config.conv_kernel_size
        ids = torch.full((len(items), max(least, *(item.length for item in items))), self.config.padding_id)
        for row, item in zip(ids, items):
            row[: item.length] = torch.from_numpy(item.arrays["input_ids"])
        return {"input_ids": ids}

    def _features(self, outputs: Any, items: List[Item]) -> Iterator[Row]:
        tokens, pooled = outputs.last_hidden_state, outputs.get("pooler_output")
        if self.by_pixels:
            tokens = tokens.split([item.length for item in items])
        if self.settings.what == "vectors":
            if pooled is None:  # a model without a pooling head: the mean token, as its classifier takes it
                pooled = [sample.mean(dim=-2) for sample in tokens]
            yield from ({"vector": vector.float().cpu().numpy()} for vector in pooled)
            return
        for sample, item in zip(tokens, items):
            row = {"tokens": sample.float().cpu().numpy()}
            if self.by_pixels:
                row["patch_positions"] = item.arrays["patch_positions"].astype(np.int32)
            yield row

    def _labels(self, outputs: Any) -> Iterator[Row]:
        logits = outputs.logits.float().cpu()
        kind = self.config.problem_type
        scores = (
            logits
            if kind == "regression"
            else logits.sigmoid()
            if kind == "multi_label_classification"
            else logits.softmax(-1)
        )
        values, labels = scores.sort(dim=-1, descending=True, stable=True)
        top = min(self.settings.top, self.config.num_labels)
        for row, numbers in zip(values[:, :top].numpy(), labels[:, :top].tolist()):
            yield {"labels": [self.config.id2label[number] for number in numbers], "scores": row}

    def _finished(self, row: Row, item: Item) -> Union[Row, Failure]:
        numbers = next(row[name] for name in ("vector", "tokens", "scores") if name in row)
        if not np.isfinite(numbers).all():
            return Failure(f"the model's result holds NaN or infinity in {self.settings.dtype}")
        return {**row, "frame_times": item.frame_times}


def batches(numbers: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[List[int]]:
    """Inputs of like length together, as many as the budget of patches has room for, one at least.

    Args:
        numbers: of the inputs.
        lengths: of each; within a batch every input costs as much as the longest.
        budget: the sum of a batch.
    """
    batch: List[int] = []
    for length, number in sorted(zip(lengths, numbers)):
        if batch and (len(batch) + 1) * length > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
