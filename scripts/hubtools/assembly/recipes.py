"""Recipes: what a publishable model is, as data. `hub_repos/<name>.toml`, or a user's own file anywhere."""

import inspect
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ..errors import UserError, shown
from ..foreign import schema
from ..foreign.documents import read_document
from ..foreign.sizes import check_parameters
from ..packages import PACKAGES, ROOT, Package

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

RECIPES = ROOT / "hub_repos"
KEYS = ("package", "architecture", "checkpoint", "config", "processor", "video_processor", "card")


@dataclass(frozen=True)
class Recipe:
    """A publishable model: package, class, configuration, processor, model card."""

    name: str
    package: Package
    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    video_processor: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Optional[str] = None
    allow_large: bool = False

    @property
    def auto_class(self) -> str:
        return self.package.auto_class_of(self.architecture)

    @property
    def processor_auto_class(self) -> Optional[str]:
        """The Auto class of the processor that ships as code; None where transformers' own serves."""
        if not self.package.has_own_processor(self.processor):
            return None
        return "AutoFeatureExtractor" if self.auto_class == "AutoModelForAudioClassification" else "AutoImageProcessor"

    def build_config(self):
        """The configuration object, its errors told as the recipe's."""
        config_class = getattr(self.package.load(), self.package.config_class)
        check_keys(f"recipe {self.name} [config]", self.config, config_keys(self.package))
        try:
            config = config_class(**self.config)
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"recipe {self.name} [config]: {error}") from error
        if not self.allow_large:
            check_parameters(self.package, config, f"recipe {self.name} [config]")
        return config

    def build_model(self):
        """The model with fresh weights, on torch's default device."""
        config = self.build_config()
        try:
            return getattr(self.package.load(), self.architecture)(config)
        except ValueError as error:
            raise UserError(f"recipe {self.name} [config]: {error}") from error


def config_keys(package: Package) -> List[str]:
    """What a recipe may say under [config]: the configuration's own arguments, and the labels of transformers."""
    config_class = getattr(package.load(), package.config_class)
    own = [name for name in inspect.signature(config_class.__init__).parameters if name not in ("self", "kwargs")]
    return own + ["num_labels", "id2label", "label2id", "problem_type"]


def processor_keys(recipe: Recipe) -> List[str]:
    return list(schema.processor_schema(recipe.package, recipe.processor_auto_class)["properties"])


def check_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(known)}")


def list_recipes() -> List[str]:
    """The names of the recipes in hub_repos/."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a recipe by its name in hub_repos/, or from a file.

    Raises:
        UserError: no such recipe, not TOML, unknown or missing keys, each with the ones that exist.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
        if name_or_path not in list_recipes():
            raise UserError(
                f"no recipe {name_or_path!r}; known: {', '.join(list_recipes())}, or the path of a .toml file"
            )
        return recipe_from(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    if not os.path.lexists(path):
        raise UserError(f"recipe {path} does not exist")
    return recipe_from(path.stem, read_document(path))


def recipe_from(name: str, content: Mapping[str, Any]) -> Recipe:
    """A checked recipe from its content, wherever that was read (TOML, a config.json, an experiment file)."""
    where = f"recipe {name}"
    check_keys(where, content, KEYS)
    absent = [key for key in ("package", "architecture") if not isinstance(content.get(key), str)]
    if absent:
        raise UserError(f"{where}: {' and '.join(absent)} must be given as text; packages: {', '.join(PACKAGES)}")
    tables: Dict[str, Mapping[str, Any]] = {}
    for key in ("config", "processor", "video_processor", "card"):
        tables[key] = content.get(key, {})
        if not isinstance(tables[key], Mapping):
            raise UserError(f"{where}: [{key}] must be a table, got {shown(tables[key])}")
    if content["package"] not in PACKAGES:
        raise UserError(f"{where}: unknown package {shown(content['package'])}; known: {', '.join(PACKAGES)}")
    package = PACKAGES[content["package"]]
    if content["architecture"] not in package.models.values():
        known = ", ".join(sorted(package.models.values()))
        raise UserError(
            f"{where}: architecture {shown(content['architecture'])} is not in package {package.name!r}; known: {known}"
        )
    recipe = Recipe(name, package, content["architecture"], checkpoint=content.get("checkpoint"), **tables)
    if not isinstance(recipe.checkpoint, (str, type(None))):
        raise UserError(f"{where}: checkpoint must be text, got {shown(recipe.checkpoint)}")
    check_keys(f"{where} [config]", recipe.config, config_keys(recipe.package))
    named = recipe.package.processors_if_named and recipe.processor.get("image_processor_type")
    if named and (recipe.processor_auto_class is None or recipe.auto_class == "AutoModel"):
        known = " and ".join(name for _, name in recipe.package.processors.values())
        raise UserError(
            f"{where} [processor]: image_processor_type is {shown(named)} of {recipe.architecture}; accepted: {known} of a "
            "classifier; without it pictures go through transformers' CLIPImageProcessor"
        )
    check_keys(f"{where} [processor]", recipe.processor, processor_keys(recipe))
    check_keys(f"{where} [video_processor]", recipe.video_processor, schema.video_schema(recipe.package)["properties"])
    check_keys(f"{where} [card]", recipe.card, schema.CARD["properties"])
    check_values(recipe, where)
    return recipe


def check_values(recipe: Recipe, where: str) -> None:
    """Types, bounds and choices of everything a recipe says, and that its labels agree with each other.

    Raises:
        UserError: names the first field that is wrong.
    """
    schema.check(recipe.config, schema.config_schema(recipe.package), f"{where} [config]")
    schema.check(
        recipe.processor, schema.processor_schema(recipe.package, recipe.processor_auto_class), f"{where} [processor]"
    )
    schema.check(recipe.video_processor, schema.video_schema(recipe.package), f"{where} [video_processor]")
    schema.check(recipe.card, schema.CARD, f"{where} [card]")
    schema.check_labels(recipe.config, f"{where} [config]")
