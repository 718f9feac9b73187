"""The texts of a Hub folder: the model card with its metadata, and example_usage.py."""

import dataclasses
from pathlib import Path
from string import Template
from typing import Any, Dict, List

from huggingface_hub import EvalResult, ModelCardData

from ..foreign.text import check_card, markdown, slug
from .recipes import Recipe

TEMPLATES = Path(__file__).with_name("templates")
LICENCE_NAMES = {"apache-2.0": "Apache-2.0", "apple-ascl": "the Apple sample code licence (`apple-ascl`)"}
FREE_TEXT = ("summary", "license", "license_name", "license_link")
# What the Hub is told that `pipeline()` does with a folder.
PIPELINE_TAGS = {
    "AutoModel": "image-feature-extraction",
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForVideoClassification": "video-classification",
    "AutoModelForAudioClassification": "audio-classification",
}
# Auto class -> what is shown of a model, by the names of the templates.
SUBJECTS = {
    "AutoModel": "features",
    "AutoModelForImageClassification": "image",
    "AutoModelForVideoClassification": "video",
    "AutoModelForAudioClassification": "audio",
}


def template(recipe: Recipe, subject: str, kind: str) -> str:
    """A model's own template for a subject, its own for all, or the one for any model."""
    names = (f"{recipe.package.name}_{subject}_{kind}", f"{recipe.package.name}_{kind}", f"any_{kind}")
    return next(path for path in (TEMPLATES / name for name in names) if path.is_file()).read_text(encoding="utf-8")


def subject_of(recipe: Recipe, config: Any) -> str:
    """What is shown of a model: its package's choice for the configuration, else what its Auto class is for."""
    return recipe.package.subject(recipe, config) or SUBJECTS[recipe.auto_class]


def example_usage(recipe: Recipe, config: Any) -> str:
    return template(recipe, subject_of(recipe, config), "example.py")


def model_card(recipe: Recipe, config: Any, parameters: int, dtype: str) -> str:
    """The card: YAML metadata as the Hub reads it, then text whose snippets run as they stand.

    Raises:
        UserError: text of the recipe would change the metadata or the code. The card is read back to know.
    """
    stated = metadata(recipe)
    card = _filled(recipe, config, parameters, dtype, stated.to_yaml())
    harmless = dataclasses.replace(
        recipe, name="model", card={key: value for key, value in recipe.card.items() if key not in FREE_TEXT}
    )
    check_card(card, stated.to_dict(), _filled(harmless, config, parameters, dtype, ""))
    return card


def _filled(recipe: Recipe, config: Any, parameters: int, dtype: str, front_matter: str) -> str:
    subject = subject_of(recipe, config)
    body = template(recipe, subject, "card.md") + template(recipe, subject, "notes.md")
    return f"---\n{front_matter}\n---\n\n{Template(body).substitute(_values(recipe, config, parameters, dtype))}"


def metadata(recipe: Recipe) -> ModelCardData:
    card = recipe.card
    # The library refuses metrics without a model name, and writes a model-index for them.
    metrics: Dict[str, Any] = (
        {"model_name": recipe.name, "eval_results": _results(card.get("metrics", ()))} if card.get("metrics") else {}
    )
    optional = ("license", "license_name", "license_link", "base_model", "language")
    return ModelCardData(
        **{key: card[key] for key in optional if key in card},
        **metrics,
        library_name="transformers",
        pipeline_tag=card.get("pipeline_tag", PIPELINE_TAGS.get(recipe.auto_class)),
        tags=list(dict.fromkeys([recipe.package.model_type, "custom_code", *_arxiv_tags(card), *card.get("tags", ())])),
        datasets=list(card["datasets"]) if card.get("datasets") else None,
    )


def _results(metrics) -> List[EvalResult]:
    return [
        EvalResult(
            task_type=metric["task"],
            dataset_type=metric["dataset"],
            dataset_name=metric["dataset"],
            metric_type=metric["name"],
            metric_value=metric["value"],
        )
        for metric in metrics
    ]


def _arxiv_tags(card) -> List[str]:
    return [f"arxiv:{card['paper']}"] if card.get("paper") else []


def licence_text(card) -> str:
    licence = card.get("license")
    if licence is None:
        return "under the terms of whoever trained them; none are stated here"
    return (
        markdown(card["license_name"]) if card.get("license_name") else LICENCE_NAMES.get(licence) or markdown(licence)
    )


def _values(recipe: Recipe, config: Any, parameters: int, dtype: str) -> Dict[str, Any]:
    values = {
        "name": markdown(recipe.name),
        "auto_class": recipe.auto_class,
        "repo": f"your-name/{slug(recipe.name)}",
        "summary": markdown(recipe.card.get("summary", f"A {recipe.package.model_type} model.")),
        "parameters": f"{parameters:,}",
        "dtype": dtype,
        "license_text": licence_text(recipe.card),
        "num_labels": config.num_labels,
    }
    values.update({key: value for key, value in config.to_dict().items() if key not in values})
    values.update(recipe.package.card_values(recipe, config))
    return values
