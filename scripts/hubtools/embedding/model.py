"""The model and its readers, from a Hub folder; this repository's classes, whatever code the folder holds."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from ..assembly.recipes import Recipe
from ..errors import UserError, shown, some
from ..finetuning.starting_point import load_processor, read_folder_recipe
from ..staging import WEIGHTS
from .reading import ByteReader, PixelReader, Reader, takes_selection

WHAT = ("vectors", "tokens", "labels")
DTYPES = ("float32", "bfloat16", "float16")
CONFIGS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")
FORMS = ("auto", "pictures", "sounds", "bytes")


@dataclass(frozen=True)
class Settings:
    """What of the command line decides about the bytes that come out. The fields are the manifest's options."""

    what: str = "vectors"
    dtype: str = "float32"
    batch_patches: int = 16384
    shard_size: int = 4096
    read_files_as: str = "auto"
    selection: Optional[str] = None
    native_resolution: bool = False
    keep_damaged: bool = False
    top: int = 5


def revision_of(folder: Path) -> str:
    """The hash of all that decides what a folder computes: its weights, its configuration and its processors'."""
    names = [name for name in CONFIGS if (folder / name).is_file()]
    names += sorted(file.name for file in folder.glob("*.safetensors*"))
    if not set(names) & set(WEIGHTS):
        raise UserError(f"{folder} holds no weights; accepted: a Hub folder with model.safetensors, or shards and their index")
    digest = hashlib.sha256()
    for name in names:
        content = hashlib.sha256()
        with open(folder / name, "rb") as file:
            while part := file.read(1 << 22):
                content.update(part)
        digest.update(f"{name} {content.hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def describe(folder: Path, recipe: Recipe, settings: Settings) -> Dict[str, Any]:
    """What the manifest says of the model: enough to know it again, nothing of where it lay."""
    return {"architecture": recipe.architecture, "revision": revision_of(folder)}


def build_reader(folder: Path, recipe: Recipe, config: Any, settings: Settings) -> Reader:
    """What reads inputs for the model.

    Raises:
        UserError: an option that the model has no use for.
    """
    if recipe.package.inputs == "bytes":
        return _byte_reader(folder, recipe, config, settings)
    if settings.read_files_as != "auto":
        raise UserError(f"--read-files-as {settings.read_files_as} is for models of bytes; {folder} reads pictures and videos")
    whole = takes_selection(config)
    if not whole and settings.selection not in (None, "none"):
        raise UserError(
            f"--selection {settings.selection}: {folder} computes in windows or joins blocks, so it needs all patches; accepted: none"
        )
    images = _native(recipe, config, folder) if settings.native_resolution else load_processor(folder, recipe)
    return PixelReader(
        recipe.package.name, config, images, _videos(folder, recipe), settings.selection if whole else "none", settings.keep_damaged
    )


def _byte_reader(folder: Path, recipe: Recipe, config: Any, settings: Settings) -> ByteReader:
    for name in ("selection", "native_resolution", "keep_damaged"):
        if getattr(settings, name):
            raise UserError(f"--{name.replace('_', '-')} is for models of pixels; {folder} reads bytes")
    processor = load_processor(folder, recipe)
    own = "sounds" if hasattr(processor, "open_recording") else "pictures"
    as_they_are = processor.file_encoding in (None, "MP3")
    accepted = ["auto", "bytes"] if as_they_are else ["auto", own, "bytes"]
    if settings.read_files_as not in accepted:
        raise UserError(
            f"{folder} cannot read files as {settings.read_files_as} (its file_encoding is {processor.file_encoding}); "
            f"accepted: --read-files-as {', '.join(accepted)}"
        )
    form = settings.read_files_as
    return ByteReader(config, processor, ("bytes" if as_they_are else own) if form == "auto" else form)


def _native(recipe: Recipe, config: Any, folder: Path) -> Any:
    """The processor that keeps a picture's size and aspect, with the folder's means."""
    processor = getattr(recipe.package.load(), "LlavaViTImageProcessor", None)
    if processor is None:
        raise UserError(f"--native-resolution: package {recipe.package.name} has no processor for it")
    own = load_processor(folder, recipe)
    if isinstance(own, processor):
        return own
    merge = 1 if config.out_hidden_size is None else config.spatial_merge_size
    return processor(
        patch_size=config.patch_size, merge_size=merge, image_mean=own.image_mean, image_std=own.image_std
    )


def _videos(folder: Path, recipe: Recipe) -> Any:
    if recipe.package.video_processor is None or not (folder / "video_preprocessor_config.json").is_file():
        return None
    return getattr(recipe.package.load(), recipe.package.video_processor.class_name).from_pretrained(folder)


def read_model_folder(folder: Path, settings: Settings) -> Tuple[Recipe, Any]:
    """The folder's recipe and configuration.

    Raises:
        UserError: no Hub folder of one of the packages, or one without the head that the labels need.
    """
    recipe = read_folder_recipe(folder)
    if settings.what == "labels" and recipe.auto_class == "AutoModel":
        raise UserError(f"--what labels needs a classifier, {folder} is {recipe.architecture}; accepted: vectors, tokens")
    return recipe, recipe.build_config()


def load_model(folder: Path, recipe: Recipe, settings: Settings, device: str) -> Any:
    """The folder's model without its head, or with it for labels.

    Raises:
        UserError: weights are missing or misshapen.
    """
    import torch

    name = recipe.architecture if settings.what == "labels" else recipe.package.models["AutoModel"]
    model_class = getattr(recipe.package.load(), name)
    model, report = model_class.from_pretrained(folder, torch_dtype="float32", output_loading_info=True)
    missing = [*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])]
    if missing:
        raise UserError(f"the weights in {folder} do not fit its configuration: {some(missing)}; see scripts/verify.py")
    try:
        return model.to(device=device, dtype=getattr(torch, settings.dtype)).eval()
    except (RuntimeError, AssertionError) as error:  # how torch refuses devices
        raise UserError(f"--device {device}: {shown(str(error), 200)}") from error
