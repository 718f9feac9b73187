"""All or nothing: what is built appears at its place whole, or not at all, and nothing that others put there is ever
lost."""

import contextlib
import ctypes
import errno
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence

from .errors import UserError, shown, some, system_errors_told
from .foreign.files import is_regular, read_json_object

STAGING_PREFIX = ".partial-"
PART = ".partial"  # of a single file, which is hidden until it is whole
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# What assemble.py, finetune.py, export.py and save_pretrained write into a model's folder. Anything else in it is somebody's own.
WRITTEN = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|video_preprocessor_config)\.json|README\.md|example_usage\.py|__pycache__"
    r"|(pytorch_)?model(-\d{5}-of-\d{5})?\.(safetensors|bin)|(model\.safetensors|pytorch_model\.bin)\.index\.json|training_args\.bin"
    r"|(configuration|modeling|image_processing|video_(processing|reading|selection)|feature_extraction|processing)_\w+\.py"
    r"|onnx/model\w*\.onnx(_data)?|torch_export/model\.pt2"
)
EXPORTED = ("onnx", "torch_export")  # folders
NO_REPLACE = 1  # RENAME_NOREPLACE of Linux's renameat2
AT_WORKING_DIRECTORY = -100
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def check_output(output: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses an output that is an input or holds one, and one that exists, unless `overwrite` and it is a model's
    folder."""
    place = _place(output)
    for path in inputs:
        if place == _place(path) or place in _place(path).parents:
            raise UserError(f"output {output} would replace the input {path}; name another --output")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UserError(
            f"output {output} exists; name another --output, or --overwrite to replace it where it is a model's folder"
        )
    obstacle = why_not_replaceable(output)
    if obstacle:
        raise UserError(
            f"output {output} {obstacle}, so --overwrite leaves it alone; it replaces only what assemble.py "
            "or save_pretrained made"
        )


def _place(path: Path) -> Path:
    """Where a path leads, through links and links to nowhere alike."""
    return Path(os.path.realpath(path))


def why_not_replaceable(output: Path) -> Optional[str]:
    """Why what stands at `output` is not a folder that assemble.py or save_pretrained made; None where it is one."""
    if output.is_symlink():
        return "is a link"
    if not output.is_dir():
        return "is a file" if output.is_file() else "is neither a file nor a folder"
    if not is_regular(output / "config.json"):
        return "is not a Hub folder (it has no config.json)"
    try:
        config = read_json_object(output / "config.json")
    except UserError as error:
        return f"is not a Hub folder ({error})"
    if not isinstance(config.get("model_type"), str) or not isinstance(
        config.get("auto_map") or config.get("architectures"), (dict, list)
    ):
        return f"is not a Hub folder (its config.json names no model: model_type is {shown(config.get('model_type'))})"
    if not any(is_regular(output / name) for name in WEIGHTS):
        return "is not a Hub folder (it has no weights)"
    others = sorted(name for name in contents(output) if not WRITTEN.fullmatch(name))
    return f"holds other files ({some(others)})" if others else None


def contents(folder: Path) -> List[str]:
    """What stands in a folder, and in place of the folders of exported files what stands in them."""
    names = []
    for name in os.listdir(folder):
        inside = name in EXPORTED and (folder / name).is_dir() and not (folder / name).is_symlink()
        names += [f"{name}/{file}" for file in os.listdir(folder / name)] if inside else [name]
    return names


@contextlib.contextmanager
def staged(output: Path, overwrite: bool = False, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """Gives a path of the same name beside `output`; what is built there moves to `output` when the block ends well.

    The folder in between is hidden and removed in every other case, and so are the parents that were made for it.
    After a kill it may stay behind; the next run for the same output removes it. An existing output is replaced only
    at the end, and put back if that fails; what has come there in the meantime stays.

    Args:
        output: a file or a folder to be.
        overwrite: whether a model's folder may be replaced.
        inputs: the files and folders that the user named, which are never replaced.

    Raises:
        UserError: the output may not be made or replaced, the disk is full, or the system refuses something else.
    """
    check_output(output, overwrite, inputs)
    place = _place(output)
    before = _identity(place)
    with system_errors_told(f"could not make {output}, and nothing there has changed"), _parents(place):
        _remove_abandoned(place.parent, place.name)
        room = Path(tempfile.mkdtemp(prefix=f"{STAGING_PREFIX}{os.getpid()}-", dir=place.parent))
        try:
            yield room / place.name
            _move(room / place.name, place, before, room / "replaced")
        finally:
            shutil.rmtree(room, ignore_errors=True)


def write_whole(file: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a file beside `file`, and then gives it the name; what stood there is replaced at that moment.

    It is on the disk before it bears the name, and nothing is left beside it where that fails.
    """
    part = file.with_name(f".{file.name}{PART}")
    try:
        write(part)
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def replace_text(file: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def _parents(place: Path) -> Iterator[None]:
    """Makes the folders above `place`; those that were made go again when the block fails, as far as they are empty."""
    missing: List[Path] = [parent for parent in place.parents if not parent.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # somebody else has put something there
            for parent in missing:
                parent.rmdir()
        raise


def _identity(path: Path) -> Optional[tuple]:
    """Which file or folder stands at a path, whatever it is called."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


def _move(built: Path, place: Path, before: Optional[tuple], aside: Path) -> None:
    """Moves `built` to `place`, where nothing stands but what stood there at the start (`before`), which goes aside."""
    if before is None:
        _rename_without_replacing(built, place)
        return
    os.rename(place, aside)
    try:
        obstacle = "has changed" if _identity(aside) != before else why_not_replaceable(aside)
        if obstacle:
            raise UserError(f"output {place} {obstacle} while its successor was made, and is left as it is")
        _rename_without_replacing(built, place)
    except BaseException:
        _put_back(aside, place)
        raise


def _put_back(aside: Path, place: Path) -> None:
    """Gives what was moved aside its name again, or where that is taken by now, a place that will not be cleared
    away."""
    try:
        _rename_without_replacing(aside, place)
    except UserError as error:
        rescued = Path(tempfile.mkdtemp(prefix=f"{place.name}.before-", dir=place.parent)) / place.name
        os.rename(aside, rescued)
        raise UserError(f"{error}; what stood there before is now {rescued}") from error


def _rename_without_replacing(source: Path, target: Path) -> None:
    """os.rename, except that whatever stands at `target` makes it fail.

    Raises:
        UserError: something stands there.
    """
    try:
        if not _renamed_by_system(source, target):
            _rename_into_claimed_place(source, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise UserError(f"output {target} has come into being while this was made, and is left as it is") from error


def _renamed_by_system(source: Path, target: Path) -> bool:
    """Whether the system, and the file system of the two, know how to rename without replacing; if so, it is done."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done = (
        rename(
            AT_WORKING_DIRECTORY,
            os.fsencode(source),
            AT_WORKING_DIRECTORY,
            os.fsencode(target),
            ctypes.c_uint(NO_REPLACE),
        )
        == 0
    )
    if not done and ctypes.get_errno() not in UNSUPPORTED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))
    return done


def _rename_into_claimed_place(source: Path, target: Path) -> None:
    """Takes the name by what fails where it is taken: an empty folder, which a folder may replace, or a second name
    of the file."""
    if source.is_dir():
        target.mkdir()
        os.rename(source, target)  # fails where somebody has put something into it meanwhile
    else:
        os.link(source, target)
        source.unlink()


def _remove_abandoned(parent: Path, name: str) -> None:
    for room in parent.glob(f"{STAGING_PREFIX}*-*"):
        pid = room.name[len(STAGING_PREFIX) :].split("-")[0]
        # A room without the folder of this name belongs to another output, or is being made right now.
        if pid.isdigit() and not _alive(int(pid)) and (room / name).exists():
            if (room / "replaced").exists() and not os.path.lexists(parent / name):
                _rename_without_replacing(
                    room / "replaced", parent / name
                )  # killed between the two moves: the old folder is the one to keep
            shutil.rmtree(room, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
