"""Recipes read off a folder's own config.json: published `onevision_encoder` repositories, and Hub folders like ours."""

import os
from pathlib import Path
from typing import Any, Dict

from transformers import PretrainedConfig

from ..errors import UserError, shown, some
from ..foreign import schema
from ..foreign.documents import read_front_matter
from ..foreign.files import read_json_object
from ..packages import PACKAGES, Package, package_of_type
from .recipes import Recipe, config_keys, recipe_from

COPIED_FROM_CARDS = ("license", "license_name", "license_link", "base_model", "language")


def has_config(path: Path) -> bool:
    return path.is_dir() and os.path.lexists(path / "config.json")


def recipe_from_folder(folder: Path) -> Recipe:
    """The recipe that a repository's config.json amounts to.

    Raises:
        UserError: not JSON, another model, or settings that ours do not know (they might change what is computed).
    """
    content = read_json_object(folder / "config.json")
    package = _package_of(content.get("model_type"), folder)
    schema.check_config_file(content, package, str(folder / "config.json"))
    architecture = _architecture(content, package)
    return recipe_from(
        folder.resolve().name,
        {
            "package": package.name,
            "architecture": architecture,
            "config": _own_settings(content, package, folder, labelled=architecture != package.models["AutoModel"]),
            "processor": _processor_settings(folder, package),
            "card": _card_of(folder),
        },
    )


def _package_of(model_type: Any, folder: Path) -> Package:
    package = package_of_type(model_type, with_aliases=True)
    if package:
        return package
    known = [name for package in PACKAGES.values() for name in (package.model_type, *package.aliases)]
    raise UserError(f"{folder / 'config.json'} is of model type {shown(model_type)}; accepted: {', '.join(known)}")


def _architecture(content: Dict[str, Any], package: Package) -> str:
    """Our own class where the folder names one; foreign class names stand for the base model."""
    named = content.get("architectures") or []
    return next((name for name in named if name in package.models.values()), package.models["AutoModel"])


def _own_settings(content: Dict[str, Any], package: Package, folder: Path, labelled: bool) -> Dict[str, Any]:
    labels = {"id2label", "label2id", "num_labels", "problem_type"}
    known = set(config_keys(package))
    general = set(PretrainedConfig().to_dict()) | {"auto_map", "torch_dtype", "dtype", "transformers_version", "_name_or_path", *package.inert_keys}
    unknown = sorted(set(content) - known - general)
    if unknown:
        raise UserError(f"{folder / 'config.json'} has settings that {package.name} does not know: {some(map(shown, unknown))}; give a recipe to decide without them")
    settings = {key: value for key, value in content.items() if key in known - labels}
    if labelled and content.get("id2label"):
        settings["id2label"] = {int(index): label for index, label in content["id2label"].items()}
        settings["label2id"] = content.get("label2id") or {label: index for index, label in settings["id2label"].items()}
    return settings


def _processor_settings(folder: Path, package: Package) -> Dict[str, Any]:
    """The settings of a processor that is code of ours; LLaVA-ViT's follow from the configuration."""
    path = folder / "preprocessor_config.json"
    if not package.processors or not path.exists():
        return {}
    content = read_json_object(path)
    bookkeeping = {"auto_map", "image_processor_type", "feature_extractor_type", "processor_class"}
    return {key: value for key, value in content.items() if key not in bookkeeping}


def _card_of(folder: Path) -> Dict[str, Any]:
    """What the folder's own card states of licence and origin."""
    readme = folder / "README.md"
    stated = read_front_matter(readme) if os.path.lexists(readme) else {}
    card = {key: stated[key] for key in COPIED_FROM_CARDS if stated.get(key) is not None}
    schema.check(card, schema.CARD, f"the front matter of {readme}")
    return card
