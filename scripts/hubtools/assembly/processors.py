"""What becomes of the processor that a folder brings along: carried over as it is, or refused by name; never replaced
without a word."""

import os
from pathlib import Path
from typing import Any, Dict, Mapping

from ..errors import UserError, shown
from ..facts import Package
from ..foreign import schema
from ..foreign.files import read_json_object
from .recipes import Recipe

PROCESSOR_NAME = "preprocessor_config.json"
VIDEO_PROCESSOR_NAME = "video_preprocessor_config.json"
# A folder may have these beside it; what they say has no counterpart here.
OTHER_NAMES = ("processor_config.json",)
TYPE_KEYS = ("image_processor_type", "feature_extractor_type", "video_processor_type")
BOOKKEEPING = {*TYPE_KEYS, "auto_map", "processor_class", "_valid_processor_keys", "_processor_class"}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
CLIP_TYPES = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
# What CLIPImageProcessor takes where nothing is said.
CLIP_DEFAULTS = {
    "do_resize": True, "size": 224, "resample": 3, "do_center_crop": True, "crop_size": 224, "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "do_convert_rgb": True,
}  # fmt: skip
PIXEL_KEYS = (
    "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb",
)  # fmt: skip
WAY_OUT = "to leave it behind, name a recipe and the weights file itself as --checkpoint"


def own_processor(folder: Path, package: Package) -> Dict[str, Any]:
    """The settings of the processor in a folder, as a recipe's [processor]; {} where it brings none.

    Raises:
        UserError: a processor that is not the package's, settings that it does not know, or files for other processors.
    """
    unknown = OTHER_NAMES if package.video_processor else (VIDEO_PROCESSOR_NAME, *OTHER_NAMES)
    others = [name for name in unknown if os.path.lexists(folder / name)]
    if others:
        raise UserError(
            f"{folder / others[0]} has no counterpart here and would be lost; move it away to go on without it"
        )
    path = folder / PROCESSOR_NAME
    if not os.path.lexists(path):
        return {}
    content = read_json_object(path)
    _check_type(content, path, package)
    settings = {key: value for key, value in content.items() if key not in BOOKKEEPING}
    if not package.has_own_processor(content):
        return _clip_settings(settings, path)
    named = {"image_processor_type": content["image_processor_type"]} if package.processors_if_named else {}
    return {**named, **settings}


def pixel_settings(folder: Path) -> Dict[str, Any]:
    """How the processor of a bigger model's folder makes pixels of a picture; {} where there is none.

    Its sizes are left behind: it cuts pictures into patches itself, as `pack` does of the model here.

    Raises:
        UserError: not JSON, or a value of another type.
    """
    path = next((folder / name for name in (PROCESSOR_NAME, OTHER_NAMES[0]) if os.path.lexists(folder / name)), None)
    if path is None:
        return {}
    content = read_json_object(path)
    stated = content.get("image_processor", content)
    if not isinstance(stated, Mapping):
        raise UserError(f"{path}: image_processor is {shown(stated)}; accepted: an object")
    settings = {key: stated[key] for key in PIXEL_KEYS if stated.get(key) is not None}
    schema.check(settings, schema.CLIP_PROCESSOR, str(path))
    return settings


def own_video_processor(folder: Path, package: Package) -> Dict[str, Any]:
    """The settings of the video processor in a folder, as a recipe's [video_processor]; {} where it brings none.

    Raises:
        UserError: a video processor that is not the package's, or settings that it does not know.
    """
    path = folder / VIDEO_PROCESSOR_NAME
    if package.video_processor is None or not os.path.lexists(path):
        return {}
    content = read_json_object(path)
    kind, own = content.get("video_processor_type"), package.video_processor.class_name
    if kind != own:
        raise UserError(
            f"{path} has video_processor_type {shown(kind)}, which cannot be carried over; accepted: {own}; {WAY_OUT}"
        )
    schema.check_video_file(content, package, str(path))
    settings = {key: value for key, value in content.items() if key not in BOOKKEEPING}
    unknown = sorted(set(settings) - set(schema.video_schema(package)["properties"]))
    if unknown:
        raise UserError(f"{path} sets {shown(unknown[0])}, which cannot be carried over; {WAY_OUT}")
    return settings


def _check_type(content: Mapping[str, Any], path: Path, package: Package) -> None:
    """The processor must be the package's own, or CLIP's where that serves."""
    own = [class_name for _, class_name in package.processors.values()]
    own += CLIP_TYPES if package.processors_if_named or not own else ()
    stated = {key: content[key] for key in TYPE_KEYS if content.get(key) is not None}
    wrong = [f"{key} {shown(value)}" for key, value in stated.items() if value not in own]
    clip = not package.processors or package.processors_if_named
    if clip and content.get("auto_map") not in (None, {}, package.processor_auto_map(content, "AutoImageProcessor")):
        wrong.append(f"auto_map {shown(content['auto_map'])}")
    if wrong:
        raise UserError(f"{path} has {wrong[0]}, which cannot be carried over; accepted: {', '.join(own)}; {WAY_OUT}")


def _clip_settings(stated: Mapping[str, Any], path: Path) -> Dict[str, Any]:
    """What transformers' CLIPImageProcessor makes of the settings, its own defaults included."""
    unknown = [key for key, value in stated.items() if key not in CLIP_DEFAULTS and value is not None]
    if unknown:
        raise UserError(
            f"{path} sets {unknown[0]} to {shown(stated[unknown[0]])}, which cannot be carried over; known: "
            f"{', '.join(CLIP_DEFAULTS)}; {WAY_OUT}"
        )
    return clip_settings(
        {**CLIP_DEFAULTS, **{key: value for key, value in stated.items() if key in CLIP_DEFAULTS and value is not None}}
    )


def clip_settings(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """Settings of a CLIPImageProcessor with its sizes spelled out, as every release reads them."""
    spelled = dict(settings)
    if isinstance(spelled.get("size"), int):
        spelled["size"] = {"shortest_edge": spelled["size"]}
    if isinstance(spelled.get("crop_size"), int):
        spelled["crop_size"] = {"height": spelled["crop_size"], "width": spelled["crop_size"]}
    return spelled


def clip_processor(recipe: Recipe, config: Any) -> Dict[str, Any]:
    """All settings of the CLIPImageProcessor of a recipe."""
    return clip_settings({**CLIP_DEFAULTS, **recipe.package.default_processor(config), **recipe.processor})


def video_processor(recipe: Recipe, config: Any) -> Dict[str, Any]:
    """The content of video_preprocessor_config.json.

    Raises:
        UserError: settings that the processor refuses, or patches of another size than the model's.
    """
    made = recipe.package.video_processor
    settings = {**made.defaults(config, clip_processor(recipe, config)), **recipe.video_processor}
    if settings["patch_size"] != config.patch_size:
        raise UserError(
            f"recipe {recipe.name} [video_processor]: patch_size is {settings['patch_size']}, the model's is {config.patch_size}"
        )
    try:
        return getattr(recipe.package.load(), made.class_name)(**settings).to_dict()
    except (ValueError, TypeError) as error:
        raise UserError(f"recipe {recipe.name} [video_processor]: {error}") from error


def preprocessor_json(recipe: Recipe, config: Any) -> Dict[str, Any]:
    """The content of preprocessor_config.json.

    Raises:
        UserError: settings that the processor refuses, or that are not those of the model.
    """
    auto_map = recipe.package.processor_auto_map(recipe.processor, recipe.processor_auto_class)
    if recipe.processor_auto_class is None:
        content = {"image_processor_type": "CLIPImageProcessor", **clip_processor(recipe, config)}
    else:
        stated = {**recipe.package.own_defaults(config), **recipe.processor}
        for key, value in recipe.package.own_defaults(config).items():
            if stated[key] != value:
                raise UserError(f"recipe {recipe.name} [processor]: {key} is {stated[key]}, the model's is {value}")
        content = {key: value for key, value in effective(recipe, stated).items() if not key.startswith("_")}
    return {**content, "auto_map": auto_map} if auto_map else content


def effective(recipe: Recipe, settings: Mapping[str, Any]) -> Dict[str, Any]:
    """What a recipe's processor makes of settings, so that two ways to say the same are the same."""
    if recipe.processor_auto_class is None:
        return clip_settings(settings)
    _, class_name = recipe.package.processors[recipe.processor_auto_class]
    try:
        return getattr(recipe.package.load(), class_name)(**settings).to_dict()
    except (ValueError, TypeError) as error:
        raise UserError(f"recipe {recipe.name} [processor]: {error}") from error
