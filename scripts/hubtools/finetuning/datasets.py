"""From the name of a data set, or a folder, to data in the form that a model takes."""

import random
from functools import partial
from pathlib import Path
from typing import Any, List

from ..errors import UserError, some
from ..assembly.recipes import Recipe
from . import digits, moving_digits
from .data import Data
from .folders import LabelledFiles, not_pictures, read_folder
from .inputs import Encode, EncodedSources, byte_collator, byte_encoder, pixel_encoder, stack_pixels

NAMES = ("digits", "moving-digits")
FILE_READINGS = ("auto", "pictures", "bytes")


def build_data(name: str, recipe: Recipe, config: Any, processor: Any, seed: int, reading: str = "auto") -> Data:
    """The data set `name` for the model of `recipe`.

    Args:
        name: one of NAMES, or the path of a folder.
        recipe: of the folder that is fine-tuned.
        config: its configuration.
        processor: its processor.
        seed: of the variations, and of the split of a folder.
        reading: for ByteFormer and folders: "pictures" decodes files and encodes them by the processor's recipe, "bytes"
            takes them as they are, "auto" decodes when all of them are pictures.

    Raises:
        UserError: the model cannot take these data, or a folder is not as it must be.
    """
    if name == "digits":
        return _digits(recipe, config, processor, seed)
    if name == "moving-digits":
        return _moving_digits(recipe, config, processor, seed)
    return _folder(Path(name), recipe, config, processor, seed, reading)


def _digits(recipe: Recipe, config: Any, processor: Any, seed: int) -> Data:
    if _is_audio(recipe):
        raise UserError(f"{recipe.name} classifies sound ({recipe.architecture}); digits are pictures")
    encode = _encoder(recipe, config, processor, decode=True)
    classes = digits.load()[1]
    train, validation, test = digits.split()

    def varied(index: int, epoch: int):
        return digits.varied(index, random.Random(f"digit {seed} {epoch} {index}"))

    def fixed(part: List[int]) -> EncodedSources:
        return EncodedSources([digits.picture(index) for index in part], [int(classes[index]) for index in part], encode)

    return Data(
        train=EncodedSources([partial(varied, index) for index in train], [int(classes[index]) for index in train], encode),
        validation=fixed(validation),
        test=fixed(test),
        labels=digits.LABELS,
        task="image",
        collate=_collator(recipe, config),
        name="digits",
        description="scikit-learn's 1,797 handwritten digits (UCI optical recognition of handwritten digits, 8x8 pixels), one fixed split, "
        "class by class; training digits are turned, scaled and shifted a little, anew in every epoch.",
    )


def _moving_digits(recipe: Recipe, config: Any, processor: Any, seed: int) -> Data:
    if recipe.package.name != "llavavit":
        raise UserError(f"moving-digits are clips, which {recipe.package.name} cannot take; accepted: a folder of package llavavit")
    if moving_digits.SIDE % config.patch_size or config.num_channels != 3:
        raise UserError(
            f"moving-digits are RGB clips of {moving_digits.SIDE} pixels, which must be whole patches; "
            f"{recipe.name} has patch_size {config.patch_size} and {config.num_channels} channels"
        )
    _, validation, test = digits.split()
    patches = moving_digits.FRAMES * (moving_digits.SIDE // config.patch_size) ** 2
    return Data(
        train=moving_digits.TrainingClips(seed),
        validation=moving_digits.HeldOutClips(validation),
        test=moving_digits.HeldOutClips(test),
        labels=moving_digits.LABELS,
        task="video",
        collate=partial(moving_digits.collate, mean=processor.image_mean, std=processor.image_std),
        name="moving-digits",
        description=f"Clips of {moving_digits.FRAMES} frames of {moving_digits.SIDE}x{moving_digits.SIDE} pixels in which one of scikit-learn's "
        "1,797 handwritten digits moves in one of eight directions; the test shows digits that training never saw.",
        # A model that may keep every patch has nothing to choose.
        sparse_inputs=moving_digits.residual_inputs if config.max_visible_patches < patches else None,
    )


def _folder(folder: Path, recipe: Recipe, config: Any, processor: Any, seed: int, reading: str) -> Data:
    splits = read_folder(folder, seed)
    encode = _encoder(recipe, config, processor, _decodes(recipe, processor, splits.all_files, reading))

    def encoded(files: LabelledFiles) -> EncodedSources:
        return EncodedSources(files.paths, files.labels, encode)

    return Data(
        train=encoded(splits.train),
        validation=encoded(splits.validation),
        test=encoded(splits.test),
        labels=splits.labels,
        task="audio" if _is_audio(recipe) else "image",
        collate=_collator(recipe, config),
        name=folder.resolve().name,
        description=splits.description,
    )


def _decodes(recipe: Recipe, processor: Any, paths: List[Path], reading: str) -> bool:
    """Whether the files of a folder are opened as pictures."""
    recipes_encode = not _is_audio(recipe) and getattr(processor, "file_encoding", True) is not None
    if recipe.package.name == "byteformer" and (reading == "bytes" or not recipes_encode):
        return False
    strangers = not_pictures(paths)
    if recipe.package.name == "byteformer" and reading == "auto":
        return not strangers
    if strangers:
        raise UserError(f"{len(strangers)} of {len(paths)} files are not pictures that Pillow knows: {some(map(str, strangers), 3)}")
    return True


def _is_audio(recipe: Recipe) -> bool:
    return recipe.auto_class == "AutoModelForAudioClassification"


def _encoder(recipe: Recipe, config: Any, processor: Any, decode: bool) -> Encode:
    if recipe.package.name == "byteformer":
        return byte_encoder(processor, config, recipe.package.load(), decode)
    return pixel_encoder(processor)


def _collator(recipe: Recipe, config: Any):
    return byte_collator(config) if recipe.package.name == "byteformer" else stack_pixels
