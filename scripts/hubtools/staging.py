"""All or nothing: what is built appears at its place whole, or not at all."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator, Sequence

from .errors import UserError, system_errors_told

STAGING_PREFIX = ".partial-"
# What makes a folder ours to replace: overwriting is for Hub folders, never for someone's home.
HUB_FOLDER_MARK = "config.json"


def check_output(output: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses an output that exists (unless it is a Hub folder and `overwrite`), or that holds an input."""
    for path in inputs:
        if output.resolve() == path.resolve() or output.resolve() in path.resolve().parents:
            raise UserError(f"output {output} would replace the input {path}; name another --output")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UserError(f"output {output} exists; name another --output, or --overwrite to replace it")
    if output.is_symlink() or (output.is_dir() and any(output.iterdir()) and not (output / HUB_FOLDER_MARK).is_file()):
        raise UserError(f"output {output} is not a Hub folder (it has no {HUB_FOLDER_MARK}), so --overwrite leaves it alone")


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Gives a path of the same name beside `output`; what is built there moves to `output` when the block ends well.

    The folder in between is hidden and removed in every other case. After a kill it may stay behind; the next run for the same
    output removes it. An existing output is replaced only at the end, and put back if that fails.

    Raises:
        UserError: the disk is full, or the system refuses something else.
    """
    parent = output.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent, output.name)
    room = Path(tempfile.mkdtemp(prefix=f"{STAGING_PREFIX}{os.getpid()}-", dir=parent))
    try:
        with system_errors_told(f"could not make {output}, and nothing there has changed"):
            yield room / output.name
            _move(room / output.name, output.absolute(), room / "replaced")
    finally:
        shutil.rmtree(room, ignore_errors=True)


def replace_text(file: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


def _move(built: Path, output: Path, aside: Path) -> None:
    built.chmod(0o755 if built.is_dir() else 0o644)
    replacing = os.path.lexists(output)
    if replacing:
        os.rename(output, aside)
    try:
        os.rename(built, output)
    except OSError:
        if replacing:
            os.rename(aside, output)
        raise


def _remove_abandoned(parent: Path, name: str) -> None:
    for room in parent.glob(f"{STAGING_PREFIX}*-*"):
        pid = room.name[len(STAGING_PREFIX) :].split("-")[0]
        # A room without the folder of this name belongs to another output, or is being made right now.
        if pid.isdigit() and not _alive(int(pid)) and (room / name).exists():
            if (room / "replaced").exists() and not os.path.lexists(parent / name):
                os.rename(room / "replaced", parent / name)  # killed between the two moves: the old folder is the one to keep
            shutil.rmtree(room, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
