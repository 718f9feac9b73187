"""Recipes: what a publishable model is, as data. `hub_repos/<name>.toml`, or a user's own file anywhere."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ..errors import UserError
from ..packages import PACKAGES, ROOT, Package, package_named

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

RECIPES = ROOT / "hub_repos"
KEYS = ("package", "architecture", "checkpoint", "config", "processor", "card")
CARD_KEYS = (
    "license", "license_name", "license_link", "summary", "datasets", "metrics", "tags", "pipeline_tag", "paper",
    "base_model", "language",
)  # fmt: skip
METRIC_KEYS = ("name", "value", "dataset", "task")
# CLIPImageProcessor's own arguments, which a recipe may set for LLaVA-ViT.
CLIP_KEYS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A publishable model: package, class, configuration, processor, model card."""

    name: str
    package: Package
    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Optional[str] = None

    @property
    def auto_class(self) -> str:
        return self.package.auto_class_of(self.architecture)

    @property
    def processor_auto_class(self) -> Optional[str]:
        """The Auto class of the processor that ships as code; None where transformers' own serves (LLaVA-ViT)."""
        if not self.package.processors:
            return None
        return "AutoFeatureExtractor" if self.auto_class == "AutoModelForAudioClassification" else "AutoImageProcessor"

    def build_config(self):
        """The configuration object, its errors told as the recipe's."""
        config_class = getattr(self.package.load(), self.package.config_class)
        check_keys(f"recipe {self.name} [config]", self.config, config_keys(self.package))
        try:
            return config_class(**self.config)
        except (ValueError, TypeError) as error:
            raise UserError(f"recipe {self.name} [config]: {error}") from error

    def build_model(self):
        """The model with fresh weights, on torch's default device."""
        return getattr(self.package.load(), self.architecture)(self.build_config())


def config_keys(package: Package) -> List[str]:
    """What a recipe may say under [config]: the configuration's own arguments, and the labels of transformers."""
    config_class = getattr(package.load(), package.config_class)
    own = [name for name in inspect.signature(config_class.__init__).parameters if name not in ("self", "kwargs")]
    return own + ["num_labels", "id2label", "label2id", "problem_type"]


def processor_keys(recipe: Recipe) -> List[str]:
    if recipe.processor_auto_class is None:
        return list(CLIP_KEYS)
    _, class_name = recipe.package.processors[recipe.processor_auto_class]
    parameters = inspect.signature(getattr(recipe.package.load(), class_name).__init__).parameters
    return [name for name in parameters if name not in ("self", "kwargs")]


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
            raise UserError(f"no recipe {name_or_path!r}; known: {', '.join(list_recipes())}, or the path of a .toml file")
    if not path.is_file():
        raise UserError(f"recipe {path} does not exist")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} is not TOML: {error}") from error
    return recipe_from(path.stem, content)


def recipe_from(name: str, content: Mapping[str, Any]) -> Recipe:
    """A checked recipe from its content, wherever that was read (TOML, a config.json, an experiment file)."""
    where = f"recipe {name}"
    check_keys(where, content, KEYS)
    absent = [key for key in ("package", "architecture") if not isinstance(content.get(key), str)]
    if absent:
        raise UserError(f"{where}: {' and '.join(absent)} must be given as text; packages: {', '.join(PACKAGES)}")
    tables: Dict[str, Mapping[str, Any]] = {}
    for key in ("config", "processor", "card"):
        tables[key] = content.get(key, {})
        if not isinstance(tables[key], Mapping):
            raise UserError(f"{where}: [{key}] must be a table, got {tables[key]!r}")
    recipe = Recipe(name, package_named(content["package"]), content["architecture"], checkpoint=content.get("checkpoint"), **tables)
    recipe.auto_class  # an unknown architecture is an error here already
    check_keys(f"{where} [config]", recipe.config, config_keys(recipe.package))
    check_keys(f"{where} [processor]", recipe.processor, processor_keys(recipe))
    _check_card(where, recipe.card)
    return recipe


def _check_card(where: str, card: Mapping[str, Any]) -> None:
    check_keys(f"{where} [card]", card, CARD_KEYS)
    for metric in card.get("metrics", ()):
        if not isinstance(metric, Mapping):
            raise UserError(f"{where} [[card.metrics]] must be tables with {', '.join(METRIC_KEYS)}, got {metric!r}")
        check_keys(f"{where} [[card.metrics]]", metric, METRIC_KEYS)
        absent = [key for key in METRIC_KEYS if key not in metric]
        if absent:
            raise UserError(f"{where} [[card.metrics]]: {', '.join(absent)} missing in {dict(metric)}")
