"""Builds a Hub folder from a recipe and weights."""

import contextlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Union

import torch

from ..errors import UserError, some
from ..packages import Package
from ..progress import Bar, Progress, no_bar
from .cards import example_usage, model_card
from .checkpoint import Checkpoint, open_checkpoint
from .layouts import from_hub_layout, stack, to_hub_layout
from .misfit import misfit
from .origin import Origin
from .processors import PROCESSOR_NAME, VIDEO_PROCESSOR_NAME, preprocessor_json, video_processor
from .recipes import RECIPES, Recipe, config_keys
from .towers import parts_named
from .weights import DEFAULT_SHARD_SIZE, TensorSource, parse_size, write_json, write_weights, write_weights_file

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Weights = Union[Origin, Path, None]
LABEL_KEYS = ("id2label", "label2id", "problem_type")


def parse_dtype(name: Optional[str]) -> Optional[torch.dtype]:
    if name is not None and name not in DTYPES:
        raise UserError(f"dtype {name!r} is unknown; known: {', '.join(DTYPES)}")
    return DTYPES.get(name)


def empty_model(recipe: Recipe) -> torch.nn.Module:
    """The model of a recipe without weights: names and shapes only."""
    with torch.device("meta"):
        return recipe.build_model()


def checkpoint_sources(
    checkpoint: Checkpoint, recipe: Recipe, dtype: Optional[torch.dtype]
) -> "tuple[str, Dict[str, TensorSource]]":
    """Every tensor of the model, in the model's order, drawn from the checkpoint in whatever layout it has.

    Returns:
        The name of the layout, and the sources by Hub name.

    Raises:
        UserError: missing, unexpected or misshapen tensors, or types that are no weights, all named.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in empty_model(recipe).state_dict().items()}
    names = checkpoint.names()
    other_sizes = misfit(recipe, expected, {name: checkpoint.shape(name) for name in names})
    try:
        layout, parts = to_hub_layout(recipe.package.name, names, expected)
    except UserError as error:
        absent = f"; not found: {some(file.name for file in checkpoint.absent)}" if checkpoint.absent else ""
        raise UserError(f"{error}{other_sizes}{absent}") from error
    sources: Dict[str, TensorSource] = {}
    misshapen, foreign = [], []
    for name in expected:
        part = parts[name]
        shape, stored = part.shape(checkpoint.shape(part.source)), checkpoint.dtype(part.source)
        if shape != expected[name]:
            misshapen.append(f"{name} is {shape}, expected {expected[name]}")
        if stored not in DTYPES.values():
            foreign.append(f"{name} is {stored}")
        sources[name] = TensorSource(shape, dtype or stored, lambda part=part: _converted(part.read(checkpoint), dtype))
    if misshapen:
        raise UserError(
            f"the checkpoint ({layout.name} layout) does not fit the configuration: {some(misshapen)}{other_sizes}"
        )
    if foreign:
        raise UserError(f"weights must be one of {', '.join(DTYPES)}: {some(foreign)}")
    return layout.name, sources


def _converted(tensor: torch.Tensor, dtype: Optional[torch.dtype]) -> torch.Tensor:
    return tensor if dtype is None else tensor.to(dtype)


def random_sources(recipe: Recipe, seed: int, dtype: Optional[torch.dtype]) -> Dict[str, TensorSource]:
    """Freshly initialised weights, the same for the same seed."""
    torch.manual_seed(seed)
    state = recipe.build_model().state_dict()
    return {
        name: TensorSource(tuple(tensor.shape), dtype or tensor.dtype, lambda tensor=tensor: _converted(tensor, dtype))
        for name, tensor in state.items()
    }


@dataclass(frozen=True)
class Built:
    """What was written: where the weights came from, and how many bytes they are."""

    origin: str
    bytes: int


def build_folder(
    folder: Path,
    recipe: Recipe,
    weights: Weights,
    dtype: Optional[torch.dtype] = None,
    max_shard_size: int = parse_size(DEFAULT_SHARD_SIZE),
    new_bar: Bar = no_bar,
) -> Built:
    """Builds a Hub folder at `folder`, which must not exist yet.

    Args:
        folder: where to write.
        recipe: what to build.
        weights: where the weights come from; a checkpoint's path will do, and None for fresh ones.
        dtype: what to convert the weights to; None keeps the checkpoint's.
        max_shard_size: bytes per weights file.
        new_bar: makes the progress bar, from a number of bytes.

    Raises:
        UserError: the recipe or the checkpoint is not good. What was written until then is left to the caller (see
            `staged`).
    """
    config = recipe.build_config()
    with weight_sources(recipe, weights, dtype) as (origin, sources):
        total = sum(source.bytes for source in sources.values())
        with new_bar(total) as progress:
            write_hub_folder(folder, recipe, config, sources, max_shard_size, progress)
    keep_trained_card(folder, Origin.of(weights))
    return Built(origin, total)


def keep_trained_card(folder: Path, origin: Origin) -> None:
    """A trained model of this repository brings the card that finetune.py wrote: what was measured stands nowhere
    else."""
    if (
        origin.checkpoint
        and origin.checkpoint.resolve().parent == RECIPES
        and (origin.checkpoint / "README.md").is_file()
    ):
        shutil.copyfile(origin.checkpoint / "README.md", folder / "README.md")


@contextlib.contextmanager
def weight_sources(recipe: Recipe, weights: Weights, dtype: Optional[torch.dtype]):
    """Gives (origin, sources) while the checkpoint is open."""
    origin = Origin.of(weights)
    if origin.checkpoint is None:
        yield str(origin), random_sources(recipe, origin.seed, dtype)
        return
    with open_checkpoint(origin.checkpoint, origin.key, origin.prefix) as opened:
        layout, sources = checkpoint_sources(opened, recipe, dtype)
        left = [*opened.left_out, *optional_left(opened, recipe, layout)]
        others = f"; left out: {parts_named(left)}" if left else ""
        yield f"{origin}, {layout} layout{others}", sources


def optional_left(checkpoint: Checkpoint, recipe: Recipe, layout: str) -> "list[str]":
    """The names of the tensors that the layout's models may do without, and this one does."""
    optional = recipe.package.layout(layout).may_leave
    taken = any(optional(name) for name in empty_model(recipe).state_dict())
    return [] if taken else [name for name in checkpoint.names() if optional(name)]


def write_hub_folder(
    folder: Path,
    recipe: Recipe,
    config: Any,
    sources: Mapping[str, TensorSource],
    max_shard_size: int,
    progress: Progress,
) -> None:
    """Writes every file of a Hub folder into `folder`, which must not exist yet."""
    folder.mkdir(parents=True)
    stored = dominant_dtype(sources)
    write_json(folder / "config.json", config_json(recipe, config, stored))
    write_json(folder / PROCESSOR_NAME, preprocessor_json(recipe, config))
    if recipe.package.video_processor:
        write_json(folder / VIDEO_PROCESSOR_NAME, video_processor(recipe, config))
    parameters = sum(source.bytes // source.dtype.itemsize for source in sources.values())
    (folder / "README.md").write_text(model_card(recipe, config, parameters, stored), encoding="utf-8")
    (folder / "example_usage.py").write_text(example_usage(recipe, config), encoding="utf-8")
    copy_code(recipe.package, folder, recipe.processor_auto_class)
    write_weights(folder, sources, max_shard_size, progress)


def dominant_dtype(sources: Mapping[str, TensorSource]) -> str:
    """The type that holds most bytes, by its name in config.json: checkpoints may keep a few tensors wider."""
    counts: Counter = Counter()
    for source in sources.values():
        counts[source.dtype] += source.bytes
    return str(counts.most_common(1)[0][0]).replace("torch.", "")


def code_files(package: Package, processor: Optional[str]) -> "list[str]":
    """The package's files that go to the Hub; of the processors, only the one that ships with the model."""
    return [f"{module}.py" for module in package.modules([processor])]


def copy_code(package: Package, folder: Path, processor: Optional[str]) -> None:
    for file in code_files(package, processor):
        shutil.copyfile(package.folder / file, folder / file)


def config_json(recipe: Recipe, config: Any, torch_dtype: str) -> Dict[str, Any]:
    """config.json: the model's own fields and nothing that a transformers release adds of its own accord."""
    values = config.to_dict()
    own = [key for key in config_keys(recipe.package) if key in values and key not in LABEL_KEYS + ("num_labels",)]
    content = {key: values[key] for key in own}
    if recipe.auto_class != "AutoModel":
        content["id2label"] = {str(index): label for index, label in config.id2label.items()}
        content["label2id"] = config.label2id or {label: index for index, label in config.id2label.items()}
        if config.problem_type is not None:
            content["problem_type"] = config.problem_type
    content.update(
        architectures=[recipe.architecture],
        auto_map=recipe.package.auto_map(recipe.processor_auto_class),
        model_type=recipe.package.model_type,
        torch_dtype=torch_dtype,
    )
    return content


def write_foreign_checkpoint(
    path: Path, recipe: Recipe, weights: Weights, layout: str, dtype: Optional[torch.dtype]
) -> str:
    """Writes the weights as a state dict in a foreign layout: safetensors where `path` ends so, else as `torch.save`
    does. Returns where they came from."""
    prefix = recipe.package.layout(layout).prefix  # a layout that the model does not have: an error before any reading
    with weight_sources(recipe, weights, dtype) as (origin, sources):
        keys = from_hub_layout(recipe.package.name, layout, sources)
        stacked = {f"{prefix}{key}": stacked_source([sources[name] for name in names]) for key, names in keys.items()}
        if path.suffix == ".safetensors":
            with no_bar(0) as progress:
                write_weights_file(path, stacked, progress)
        else:
            # clone: a mapped tensor or a slice would drag its whole storage into the file
            torch.save({key: source.load().clone() for key, source in stacked.items()}, path)
    return origin


def stacked_source(parts: "list[TensorSource]") -> TensorSource:
    """Parts of one packed tensor as that tensor. Types that differ would be converted in silence."""
    if len(parts) == 1:
        return parts[0]
    if len({part.dtype for part in parts}) > 1:
        types = ", ".join(str(part.dtype) for part in parts)
        raise UserError(f"tensors of types {types} would have to be one in this layout; choose a type with --dtype")
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return TensorSource(shape, parts[0].dtype, lambda: stack([part.load() for part in parts]))
