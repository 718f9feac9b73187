"""Recipes read off a folder's own config.json: published `onevision_encoder` repositories, and Hub folders like
ours."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Dict

from transformers import PretrainedConfig

from ..errors import UserError, shown, some
from ..facts import Host
from ..foreign import schema
from ..foreign.documents import read_front_matter
from ..foreign.files import read_json_object
from ..packages import PACKAGES, Package, host_of_type, package_of_type
from .processors import (
    PROCESSOR_NAME,
    VIDEO_PROCESSOR_NAME,
    effective,
    own_processor,
    own_video_processor,
    pixel_settings,
    video_processor,
)
from .recipes import Recipe, config_keys, recipe_from

LABELS = {"id2label", "label2id", "num_labels", "problem_type"}
COPIED_FROM_CARDS = ("license", "license_name", "license_link", "base_model", "language")


def has_config(path: Path) -> bool:
    return path.is_dir() and os.path.lexists(path / "config.json")


def recipe_from_folder(folder: Path) -> Recipe:
    """The recipe that a repository's config.json amounts to.

    Raises:
        UserError: not JSON, another model, or settings that ours do not know (they might change what is computed).
    """
    content = read_json_object(folder / "config.json")
    package, host = host_of_type(content.get("model_type"))
    if host:
        return _recipe_from_host(folder, content, package, host)
    package = _package_of(content.get("model_type"), folder)
    schema.check_config_file(content, package, str(folder / "config.json"))
    architecture = _architecture(content, package)
    return recipe_from(
        folder.resolve().name,
        {
            "package": package.name,
            "architecture": architecture,
            "config": _own_settings(
                content, package, folder / "config.json", labelled=architecture != package.models["AutoModel"]
            ),
            "processor": own_processor(folder, package),
            "video_processor": own_video_processor(folder, package),
            "card": _card_of(folder),
        },
    )


def _recipe_from_host(folder: Path, content: Dict[str, Any], package: Package, host: Host) -> Recipe:
    """The recipe of the part that a bigger model's folder holds."""
    where = f"{folder / 'config.json'}: {host.section}"
    section = content.get(host.section)
    if not isinstance(section, dict):
        raise UserError(f"{where} is {shown(section)}; accepted: the configuration of the vision tower")
    accepted = (package.model_type, *package.aliases)
    if section.get("model_type") not in accepted:
        raise UserError(f"{where} is of model type {shown(section.get('model_type'))}; accepted: {', '.join(accepted)}")
    for key, value in host.fixed.items():
        if section.get(key, value) != value:
            raise UserError(f"{where} has {key} {shown(section[key])}; accepted: {value}")
    stated = {**host.defaults, **{key: value for key, value in section.items() if key not in host.fixed}}
    schema.check_config_file(stated, package, where)
    card = {key: value for key, value in _card_of(folder).items() if key.startswith("license")}
    return recipe_from(
        f"{folder.resolve().name}-tower",
        {
            "package": package.name,
            "architecture": package.models["AutoModel"],
            "config": _own_settings(stated, package, where, labelled=False),
            "processor": pixel_settings(folder),
            "card": {"summary": f"The vision tower of {content['model_type']}.", **card},
        },
    )


def reconciled(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe for the weights of a folder that says itself how it computes: the folder's processor is carried over.

    Raises:
        UserError: the folder is another model's, or it and the recipe say different things; the weights alone decide
            nothing then.
    """
    stated = recipe_from_folder(folder)
    if stated.package is not recipe.package:
        raise UserError(
            f"{folder / 'config.json'} is of model type {stated.package.model_type!r}, recipe {recipe.name} "
            f"is for {recipe.package.model_type!r}"
        )
    labels = {key: value for key, value in stated.config.items() if key in LABELS}
    merged = dataclasses.replace(
        recipe,
        config={**labels, **recipe.config},
        processor={**stated.processor, **recipe.processor},
        video_processor={**stated.video_processor, **recipe.video_processor},
    )
    configs = merged.build_config(), stated.build_config()
    ours, theirs = (config.to_dict() for config in configs)
    problems = [f"{key} is {theirs[key]!r} in config.json, {ours[key]!r} by recipe {recipe.name}"
                for key in sorted(set(stated.config) - LABELS) if theirs.get(key) != ours.get(key)]  # fmt: skip
    ours, theirs = effective(merged, merged.processor), effective(stated, stated.processor)
    problems += [f"{key} is {theirs[key]!r} in {PROCESSOR_NAME}, {ours[key]!r} by recipe {recipe.name}"
                 for key in sorted(stated.processor) if theirs.get(key) != ours.get(key)]  # fmt: skip
    if recipe.package.video_processor:
        ours, theirs = (video_processor(source, config) for source, config in zip((merged, stated), configs))
        problems += [f"{key} is {theirs[key]!r} in {VIDEO_PROCESSOR_NAME}, {ours[key]!r} by recipe {recipe.name}"
                     for key in sorted(stated.video_processor) if theirs.get(key) != ours.get(key)]  # fmt: skip
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"{folder}: {problems[0]}{more}; give the folder without a recipe, or the recipe with the "
            "weights file itself as --checkpoint"
        )
    return merged


def _package_of(model_type: Any, folder: Path) -> Package:
    package = package_of_type(model_type, with_aliases=True)
    if package:
        return package
    known = [name for package in PACKAGES.values() for name in (package.model_type, *package.aliases, *package.hosts)]
    raise UserError(f"{folder / 'config.json'} is of model type {shown(model_type)}; accepted: {', '.join(known)}")


def _architecture(content: Dict[str, Any], package: Package) -> str:
    """Our own class where the folder names one; foreign class names stand for the base model."""
    named = content.get("architectures") or []
    return next((name for name in named if name in package.models.values()), package.models["AutoModel"])


def _own_settings(content: Dict[str, Any], package: Package, where: object, labelled: bool) -> Dict[str, Any]:
    known = set(config_keys(package))
    general = set(PretrainedConfig().to_dict()) | {
        "auto_map",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "_name_or_path",
        *package.inert_keys,
    }
    unknown = sorted(set(content) - known - general)
    if unknown:
        raise UserError(
            f"{where} has settings that {package.name} does not know: "
            f"{some(map(shown, unknown))}; give a recipe to decide without them"
        )
    settings = {key: value for key, value in content.items() if key in known - LABELS}
    if labelled and content.get("id2label"):
        settings["id2label"] = {int(index): label for index, label in content["id2label"].items()}
        settings["label2id"] = content.get("label2id") or {
            label: index for index, label in settings["id2label"].items()
        }
    if labelled and content.get("problem_type"):
        settings["problem_type"] = content["problem_type"]
    return settings


def _card_of(folder: Path) -> Dict[str, Any]:
    """What the folder's own card states of licence and origin."""
    readme = folder / "README.md"
    stated = read_front_matter(readme) if os.path.lexists(readme) else {}
    card = {key: stated[key] for key in COPIED_FROM_CARDS if stated.get(key) is not None}
    schema.check(card, schema.CARD, f"the front matter of {readme}")
    return card
