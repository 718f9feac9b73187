"""A folder of files as a data set: one sub-folder per class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence

from PIL import Image

from ..errors import UserError, some
from ..packages import PACKAGES
from ..progress import item_bar
from .data import stratified_split

TEST_NAMES = ("test", "val", "valid", "validation", "eval")
VALIDATION_FRACTION, TEST_FRACTION = 0.1, 0.2


@dataclass(frozen=True)
class LabelledFiles:
    """Files with their class index."""

    paths: List[Path]
    labels: List[int]

    def part(self, indices: Sequence[int]) -> "LabelledFiles":
        return LabelledFiles([self.paths[index] for index in indices], [self.labels[index] for index in indices])


@dataclass(frozen=True)
class FolderSplits:
    labels: List[str]
    train: LabelledFiles
    validation: LabelledFiles
    test: LabelledFiles
    description: str

    @property
    def all_files(self) -> List[Path]:
        return [*self.train.paths, *self.validation.paths, *self.test.paths]


def read_folder(folder: Path, seed: int) -> FolderSplits:
    """Finds the classes and cuts the files into training, validation and test.

    A folder that holds just `train` and one of TEST_NAMES has its test split already; otherwise a fifth of every class is
    held out. A tenth of every class of the rest chooses the best checkpoint.

    Raises:
        UserError: no such folder, fewer than two classes, too few files in one, or classes that differ between the splits.
    """
    if not folder.is_dir():
        raise UserError(
            f"dataset {folder} is not a folder; accepted: digits, moving-digits, or a folder with one sub-folder per class"
        )
    names = [path.name for path in _subfolders(folder)]
    given_test = [name for name in names if name in TEST_NAMES]
    if len(names) == 2 and "train" in names and given_test:
        return _given_splits(folder / "train", folder / given_test[0], seed)
    labels, files = _labelled(folder, least=3)
    train, validation, test = stratified_split(files.labels, [VALIDATION_FRACTION, TEST_FRACTION], seed)
    how = f"split by seed {seed}, class by class"
    return FolderSplits(labels, files.part(train), files.part(validation), files.part(test), _described(folder, how))


def _given_splits(train_folder: Path, test_folder: Path, seed: int) -> FolderSplits:
    labels, files = _labelled(train_folder, least=2)
    test_labels, test = _labelled(test_folder, least=1)
    if test_labels != labels:
        differing = sorted(set(labels) ^ set(test_labels))
        raise UserError(
            f"{train_folder} and {test_folder} must hold the same classes; in one of them alone: {some(differing)}"
        )
    train, validation = stratified_split(files.labels, [VALIDATION_FRACTION], seed)
    return FolderSplits(
        labels,
        files.part(train),
        files.part(validation),
        test,
        _described(train_folder.parent, "with its own test split"),
    )


def _described(folder: Path, how: str) -> str:
    return f"The files of `{folder.resolve().name}`, one sub-folder per class, {how}."


def _subfolders(folder: Path) -> List[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _labelled(folder: Path, least: int) -> "tuple[List[str], LabelledFiles]":
    classes: Dict[str, List[Path]] = {}
    for subfolder in _subfolders(folder):
        classes[subfolder.name] = sorted(
            path for path in subfolder.rglob("*") if path.is_file() and not path.name.startswith(".")
        )
    if len(classes) < 2:
        raise UserError(f"{folder} must hold one sub-folder per class, at least two; found {len(classes)}")
    few = [f"{name} ({len(paths)})" for name, paths in classes.items() if len(paths) < least]
    if few:
        raise UserError(f"every class in {folder} needs at least {least} files; fewer in {some(few)}")
    labels = list(classes)
    pairs = [(path, index) for index, name in enumerate(labels) for path in classes[name]]
    return labels, LabelledFiles([path for path, _ in pairs], [index for _, index in pairs])


def picture_errors() -> tuple:
    """What opening and decoding a damaged picture may raise."""
    return PACKAGES["llavavit"].load().image_processing_llava_vit.PICTURE_ERRORS


def not_pictures(paths: Sequence[Path]) -> List[Path]:
    """The files that Pillow does not recognise by their first bytes."""
    return [path for path in paths if not _is_picture(path)]


def animated(paths: Sequence[Path]) -> List[Path]:
    """The pictures of more than one frame, which may be meant as videos."""
    return [path for path in paths if _frames_of(path) > 1]


def not_videos(paths: Sequence[Path]) -> Dict[Path, str]:
    """The files that LLaVA-ViT's video processor cannot open, each with the reason, which begins with its name."""
    open_clip, problems = PACKAGES["llavavit"].load().video_reading_llava_vit.open_clip, {}
    with item_bar("looking into videos", len(paths)) as progress:
        for path in paths:
            try:
                open_clip(path)
            except ValueError as error:
                problems[path] = str(error)
            progress(1)
    return problems


def not_wav(paths: Sequence[Path]) -> List[Path]:
    """The files that do not start as a WAV file."""
    return [path for path in paths if not _is_wav(path)]


def _is_wav(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WAVE"


def _frames_of(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1)
    except picture_errors():
        return 1  # what is wrong with it is told when it is read


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except Image.DecompressionBombError:
        return True  # a picture, though one that nobody should decode: opening it tells
    except picture_errors():
        return False
