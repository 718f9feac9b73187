"""The trained model as a Hub folder, with what was measured on its card."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List

from ..assembly.build import write_hub_folder
from ..assembly.recipes import Recipe
from ..assembly.weights import DEFAULT_SHARD_SIZE, TensorSource, parse_size
from ..foreign.text import markdown
from ..progress import byte_bar
from .data import Data
from .starting_point import HEADS
from .training import Outcome, Settings

TASKS = {"image": "image-classification", "video": "video-classification", "audio": "audio-classification"}


def write_finetuned_folder(
    folder: Path, source: Path, recipe: Recipe, outcome: Outcome, data: Data, settings: Settings, command: str
) -> None:
    """Writes the Hub folder of a trained model into `folder`, which must not exist yet.

    Args:
        folder: where to; its name becomes the model's.
        source: the folder that training started from; its processor is kept, but for what the data demand.
        recipe: of `source`.
        outcome: model and figures.
        data, settings: for the card.
        command: the exact command, for the card.
    """
    trained = dataclasses.replace(
        recipe,
        name=folder.name,
        architecture=recipe.package.models[HEADS[data.task]],
        processor={**recipe.processor, **data.processor_settings},
        video_processor={**recipe.video_processor, **data.video_processor_settings},
        card={**recipe.card, "summary": summary(recipe, data, outcome), "metrics": metrics(data, outcome)},
    )
    state = {name: tensor.detach().float().contiguous() for name, tensor in outcome.model.state_dict().items()}
    sources = {
        name: TensorSource(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
        for name, tensor in state.items()
    }
    with byte_bar("writing", sum(source.bytes for source in sources.values())) as progress:
        write_hub_folder(folder, trained, outcome.model.config, sources, parse_size(DEFAULT_SHARD_SIZE), progress)
    if not data.processor_settings and not recipe.package.video_processor:
        shutil.copyfile(source / "preprocessor_config.json", folder / "preprocessor_config.json")
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(training_section(data, outcome, settings, command))


def summary(recipe: Recipe, data: Data, outcome: Outcome) -> str:
    accuracy = f"{percent(outcome.figures['test'])} % right on test data that training never saw"
    return f"A {recipe.package.model_type} model that tells the {len(data.labels)} classes of {data.name}: {accuracy}."


def metrics(data: Data, outcome: Outcome) -> List[Dict[str, Any]]:
    return [
        {"name": "accuracy", "value": round(outcome.figures["test"], 4), "dataset": data.name, "task": TASKS[data.task]}
    ]


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def training_section(data: Data, outcome: Outcome, settings: Settings, command: str) -> str:
    rows = [
        ("data", markdown(data.description)),
        ("training / validation / test", f"{len(data.train):,} / {len(data.validation):,} / {len(data.test):,}"),
        ("test accuracy", f"{percent(outcome.figures['test'])} %"),
    ]
    if "sparse test" in outcome.figures:
        rows.append(
            (
                "test accuracy, sparse",
                f"{percent(outcome.figures['sparse test'])} % (`visible_indices` = what changed between frames)",
            )
        )
    rows += [
        ("validation accuracy", f"{percent(outcome.figures['validation'])} %, the best of all checkpoints: this one"),
        (
            "optimizer",
            f"AdamW, learning rate {settings.learning_rate:g} (cosine, {settings.warmup:.0%} warm-up), weight decay {settings.weight_decay:g}",
        ),
        ("length", f"{outcome.steps:,} steps of {settings.samples_per_step} samples, seed {settings.seed}"),
    ]
    if settings.freeze:
        rows.append(("trained", "the classifier alone (linear probe)"))
    if settings.augment != "none":
        rows.append(("variations", f"{settings.augment} of every training picture, anew in every epoch"))
    if data.reading:
        rows.append(("files", data.reading))
    if settings.lora:
        rows.append(("adapters", f"LoRA of rank {settings.lora}, merged into the weights"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"\n## Training\n\n| | |\n|---|---|\n{table}\n\n{fenced(command)}"


def fenced(command: str) -> str:
    """A block of code that nothing inside it can close."""
    longest = max((len(run) for run in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{command}\n{fence}\n"
