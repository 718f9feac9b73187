"""From the name of a data set, or a folder, to data in the form that a model takes."""

import random
from functools import partial
from pathlib import Path
from typing import Any, List

from ..assembly.recipes import Recipe
from ..errors import UserError, some
from . import digits, moving_digits
from .augmentation import variation
from .data import Data
from .folders import LabelledFiles, not_pictures, not_wav, read_folder
from .inputs import ByteEncoder, Encode, EncodedSources, PixelEncoder, byte_collator, byte_separator, stack_pixels


def build_data(
    name: str, recipe: Recipe, config: Any, processor: Any, seed: int, reading: str = "auto", augment: str = "none"
) -> Data:
    """The data set `name` for the model of `recipe`.

    Args:
        name: digits, moving-digits, or the path of a folder.
        recipe: of the folder that is fine-tuned.
        config: its configuration.
        processor: its processor.
        seed: of the variations, and of the split of a folder.
        reading: for folders: "pictures" and "sounds" decode files, which ByteFormer's recipe then encodes, "bytes" takes them
            as they are, "auto" decodes unless none is a picture, or a WAV file.
        augment: one of AUGMENTATIONS, for folders of pictures.

    Raises:
        UserError: the model cannot take these data, or a folder is not as it must be.
    """
    if name in ("digits", "moving-digits") and augment != "none":
        raise UserError(f"--augment {augment} is for folders of pictures; {name} come with variations of their own")
    if name == "digits":
        return _digits(recipe, config, processor, seed)
    if name == "moving-digits":
        return _moving_digits(recipe, config, processor, seed)
    return _folder(Path(name), recipe, config, processor, seed, reading, augment)


def _digits(recipe: Recipe, config: Any, processor: Any, seed: int) -> Data:
    if _is_audio(recipe):
        raise UserError(f"{recipe.name} classifies sound ({recipe.architecture}); digits are pictures")
    encode = _encoder(recipe, config, processor, decode=True)
    classes = digits.load()[1]
    train, validation, test = digits.split()

    def fixed(part: List[int]) -> EncodedSources:
        return EncodedSources(
            [digits.picture(index) for index in part], [int(classes[index]) for index in part], encode
        )

    return Data(
        train=EncodedSources(
            [partial(_varied_digit, seed, index) for index in train], [int(classes[index]) for index in train], encode
        ),
        validation=fixed(validation),
        test=fixed(test),
        labels=digits.LABELS,
        task="image",
        collate=_collator(recipe, config),
        apart=_separator(recipe, config),
        name="digits",
        description="scikit-learn's 1,797 handwritten digits (UCI optical recognition of handwritten digits, 8x8 pixels), one fixed split, "
        "class by class; training digits are turned, scaled and shifted a little, anew in every epoch.",
    )


def _varied_digit(seed: int, index: int, epoch: int):
    return digits.varied(index, random.Random(f"digit {seed} {epoch} {index}"))


def _moving_digits(recipe: Recipe, config: Any, processor: Any, seed: int) -> Data:
    if "AutoModelForVideoClassification" not in recipe.package.models:
        raise UserError(
            f"moving-digits are clips, which {recipe.package.name} cannot take; accepted: a folder of a package that classifies videos"
        )
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


def _folder(folder: Path, recipe: Recipe, config: Any, processor: Any, seed: int, reading: str, augment: str) -> Data:
    splits = read_folder(folder, seed)
    decode = _decodes(recipe, processor, splits.all_files, reading)
    if augment != "none" and (_is_audio(recipe) or not decode):
        raise UserError(
            f"--augment {augment} is for pictures that are decoded; {'sounds' if _is_audio(recipe) else 'these files'} are not"
        )
    # A pipeline decodes files where the processor has a recipe: a model of files as they are must not have one.
    settings = {"file_encoding": None} if not decode and processor.file_encoding != "MP3" else {}
    encode = _encoder(recipe, config, processor, decode)

    def encoded(files: LabelledFiles, vary=None) -> EncodedSources:
        return EncodedSources(files.paths, files.labels, encode, vary)

    return Data(
        train=encoded(splits.train, variation(augment, seed)),
        validation=encoded(splits.validation),
        test=encoded(splits.test),
        labels=splits.labels,
        task="audio" if _is_audio(recipe) else "image",
        collate=_collator(recipe, config),
        apart=_separator(recipe, config),
        name=folder.resolve().name,
        description=splits.description,
        processor_settings=settings,
    )


def _decodes(recipe: Recipe, processor: Any, paths: List[Path], reading: str) -> bool:
    """Whether the files of a folder are opened, as pictures or WAV files, as a pipeline of the model would open them."""
    kind, strangers_of = ("sounds", not_wav) if _is_audio(recipe) else ("pictures", not_pictures)
    accepted = ["auto", kind] + ["bytes"] * (recipe.package.inputs == "bytes")
    if reading not in accepted:
        raise UserError(
            f"{recipe.name} cannot read files as {reading}; accepted: --read-files-as {', '.join(accepted)}"
        )
    if recipe.package.inputs == "bytes" and processor.file_encoding in (None, "MP3"):  # it reads files as they are
        if reading == kind:
            raise UserError(
                f"{recipe.name} cannot read files as {kind}: its file_encoding is {processor.file_encoding}, it takes them as they are"
            )
        return False
    if reading == "bytes":
        return False
    strangers = strangers_of(paths)
    if "bytes" in accepted and reading == "auto" and len(strangers) == len(paths):
        return False
    if strangers:
        known = "WAV files" if _is_audio(recipe) else "pictures that Pillow knows"
        hint = (
            "; move them away, or take all files as they are with --read-files-as bytes" if "bytes" in accepted else ""
        )
        raise UserError(f"{len(strangers)} of {len(paths)} files are not {known}: {some(map(str, strangers), 3)}{hint}")
    return True


def _is_audio(recipe: Recipe) -> bool:
    return recipe.auto_class == "AutoModelForAudioClassification"


def _encoder(recipe: Recipe, config: Any, processor: Any, decode: bool) -> Encode:
    return ByteEncoder(processor, config, decode) if recipe.package.inputs == "bytes" else PixelEncoder(processor)


def _collator(recipe: Recipe, config: Any):
    return byte_collator(config) if recipe.package.inputs == "bytes" else stack_pixels


def _separator(recipe: Recipe, config: Any):
    return byte_separator(config) if recipe.package.inputs == "bytes" else None
