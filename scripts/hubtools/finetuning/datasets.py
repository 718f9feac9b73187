"""From the name of a data set, or a folder, to data in the form that a model takes."""

import random
from functools import partial
from pathlib import Path
from typing import Any, List

from ..assembly.processors import video_processor
from ..assembly.recipes import Recipe
from ..errors import UserError, some
from . import digits, moving_digits
from .augmentation import variation
from .data import Data
from .folders import LabelledFiles, animated, not_pictures, not_videos, not_wav, read_folder
from .inputs import (
    ByteEncoder,
    ClipEncoder,
    Encode,
    EncodedSources,
    NativeEncoder,
    PixelEncoder,
    byte_collator,
    byte_separator,
    join_packs,
    stack_pixels,
)


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
        reading: for folders: "pictures", "videos" and "sounds" decode files (sounds, and pictures for ByteFormer, are
            then encoded by its recipe), "bytes" takes them as they are, "auto" decides by the files, see `_kind`.
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
    encode = _encoder(recipe, config, processor, "pictures")
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
        collate=_collator(recipe, config, "pictures"),
        apart=_separator(recipe, config),
        name="digits",
        reading=_reading(recipe, processor, "pictures"),
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
    _refuse_towers(recipe, config)
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
        video_processor_settings=moving_digits.video_processor_settings(processor, config),
        # A model that may keep every patch has nothing to choose.
        sparse_inputs=moving_digits.residual_inputs if config.max_visible_patches < patches else None,
    )


def _folder(folder: Path, recipe: Recipe, config: Any, processor: Any, seed: int, reading: str, augment: str) -> Data:
    splits = read_folder(folder, seed)
    kind = _kind(recipe, processor, splits.all_files, reading)
    if kind == "videos":
        processor = _clip_processor(recipe, config)
    if augment != "none" and kind != "pictures":
        those = {"bytes": "sounds" if _is_audio(recipe) else "these files"}.get(kind, kind)
        raise UserError(f"--augment {augment} is for pictures that are decoded; {those} are not")
    # A pipeline decodes files where the processor has a recipe: a model of files as they are must not have one.
    settings = {"file_encoding": None} if kind == "bytes" and processor.file_encoding != "MP3" else {}
    encode = _encoder(recipe, config, processor, kind)

    def encoded(files: LabelledFiles, vary=None) -> EncodedSources:
        return EncodedSources(files.paths, files.labels, encode, vary)

    return Data(
        train=encoded(splits.train, variation(augment, seed)),
        validation=encoded(splits.validation),
        test=encoded(splits.test),
        labels=splits.labels,
        task="video" if kind == "videos" else "audio" if _is_audio(recipe) else "image",
        collate=_collator(recipe, config, kind),
        apart=_separator(recipe, config),
        name=folder.resolve().name,
        description=splits.description,
        reading="taken as they are, undecoded" if settings else _reading(recipe, processor, kind),
        processor_settings=settings,
    )


def _kind(recipe: Recipe, processor: Any, paths: List[Path], reading: str) -> str:
    """As what the files of a folder are read, "pictures", "videos", "sounds" or "bytes": as a pipeline would read them.

    "auto" takes ByteFormer's files as they are where none can be decoded, and LLaVA-ViT's as videos where none is a picture.
    """
    own = "sounds" if _is_audio(recipe) else "pictures"
    of_bytes = recipe.package.inputs == "bytes"
    accepted = ["auto", own] + ["bytes"] * of_bytes + ["videos"] * (recipe.package.video_processor is not None)
    if reading not in accepted:
        raise UserError(
            f"{recipe.name} cannot read files as {reading}; accepted: --read-files-as {', '.join(accepted)}"
        )
    if of_bytes and processor.file_encoding in (None, "MP3"):  # it reads files as they are
        if reading == own:
            raise UserError(
                f"{recipe.name} cannot read files as {own}: its file_encoding is {processor.file_encoding}, it takes them as they are"
            )
        return "bytes"
    if reading == "bytes":
        return "bytes"
    strangers = [] if reading == "videos" else not_wav(paths) if own == "sounds" else not_pictures(paths)
    if reading == "auto" and len(strangers) == len(paths) and len(accepted) > 2:
        reading = accepted[2]
    elif reading == "auto" and "videos" in accepted and not strangers and len(animated(paths)) == len(paths):
        raise UserError(
            f"all {len(paths)} files are animated; say --read-files-as videos, or pictures for their first frames alone"
        )
    if reading == "videos":
        check_videos(paths)
    if reading in ("bytes", "videos"):
        return reading
    if strangers:
        known = "WAV files" if own == "sounds" else "pictures that Pillow knows"
        hint = "; move them away, or take all files as they are with --read-files-as bytes" if of_bytes else ""
        raise UserError(f"{len(strangers)} of {len(paths)} files are not {known}: {some(map(str, strangers), 3)}{hint}")
    return own


def check_videos(paths: List[Path]) -> None:
    """Raises UserError where files cannot be opened as videos, with the first reason."""
    problems = not_videos(paths)
    if problems:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"{len(problems)} of {len(paths)} files are neither pictures nor videos that can be read: "
            f"{next(iter(problems.values()))}{others}"
        )


def _refuse_towers(recipe: Recipe, config: Any) -> None:
    """Raises UserError for a model that takes whole blocks or whole videos alone: it classifies no selection of patches."""
    if config.frame_windows_size or config.out_hidden_size is not None:
        raise UserError(
            f"{recipe.name} has frame_windows_size {config.frame_windows_size} and out_hidden_size {config.out_hidden_size}; "
            "accepted for videos: 0 and none, since of a video some patches are chosen"
        )


def _clip_processor(recipe: Recipe, config: Any) -> Any:
    """The video processor that the trained folder will have.

    Raises:
        UserError: a model that classifies no selection of patches.
    """
    _refuse_towers(recipe, config)
    processor_class = getattr(recipe.package.load(), recipe.package.video_processor.class_name)
    return processor_class.from_dict(video_processor(recipe, config))


def _is_audio(recipe: Recipe) -> bool:
    return recipe.auto_class == "AutoModelForAudioClassification"


def _is_native(recipe: Recipe) -> bool:
    return recipe.package.processors_if_named and recipe.processor_auto_class is not None


def _encoder(recipe: Recipe, config: Any, processor: Any, kind: str) -> Encode:
    if recipe.package.inputs == "bytes":
        return ByteEncoder(processor, config, decode=kind != "bytes")
    if kind == "videos":
        return ClipEncoder(processor, config)
    return NativeEncoder(processor) if _is_native(recipe) else PixelEncoder(processor)


def _collator(recipe: Recipe, config: Any, kind: str):
    if recipe.package.inputs == "bytes":
        return byte_collator(config)
    return join_packs if kind == "videos" or _is_native(recipe) else stack_pixels


def _separator(recipe: Recipe, config: Any):
    return byte_separator(config) if recipe.package.inputs == "bytes" else None


def _reading(recipe: Recipe, processor: Any, kind: str) -> str:
    """How files become inputs, for the card."""
    if kind == "videos":
        chosen = (
            "all" if processor.selection == "none" else f"{processor.max_visible_patches:,} by {processor.selection}"
        )
        return f"{processor.num_frames} frames of each, of whose patches {chosen}"
    if _is_native(recipe):
        return f"at their own size and aspect, in at most {processor.max_num_patches:,} patches each"
    return ""
