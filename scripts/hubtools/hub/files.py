"""The files of a local folder and of a Hub repository as paths and hashes, and the difference between the two."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from ..errors import UserError
from ..progress import byte_bar

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CHUNK = 4 << 20


class ContentDiffers(UserError):
    """A file is not what it should be. Exit code 1, as a failed check of verify.py."""

    exit_code = 1


@dataclass(frozen=True)
class Hashes:
    """The two names that the Hub knows a content by: git's, and the sha256 of large files (None where the Hub gives
    none)."""

    size: int
    git_sha1: str
    sha256: Optional[str]


def hash_file(path: Path) -> Hashes:
    """Both hashes in one read, with a progress bar."""
    size = path.stat().st_size
    # git hashes "blob <size>\0" before the content.
    sha1, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
    with open(path, "rb") as file, byte_bar(f"hashing {path.name}", size) as advance:
        while chunk := file.read(CHUNK):
            sha1.update(chunk)
            sha256.update(chunk)
            advance(len(chunk))
    return Hashes(size, sha1.hexdigest(), sha256.hexdigest())


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def local_paths(folder: Path) -> List[Path]:
    """The paths of `folder` that belong on the Hub, relative to it and sorted. Hidden files and bytecode never do.

    Raises:
        UserError: If something in the folder is neither file nor folder, cannot be listed, or is a link that leads
            nowhere, to a folder, out of the folder, or to something hidden: what lies there was never meant to be
            published.
    """
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_listing):
        here = Path(parent).relative_to(folder)
        for path in (here / name for name in [*folders, *files]):
            if is_hidden(path):
                continue
            check_path(folder, path)
            if (folder / path).is_dir():
                continue
            if not (folder / path).is_file():
                raise UserError(f"{folder / path} is neither a file nor a folder (a broken link?); accepted: files")
            found.append(path)
        folders[:] = [name for name in folders if not is_hidden(Path(name))]
    if not found:
        raise UserError(f"{folder} holds no file to upload")
    return sorted(found)


def _refuse_listing(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be listed: {error.strerror}") from error


def check_path(folder: Path, path: Path) -> None:
    """Refuses `folder / path` where a link, itself or on the way to it, leads to anything but a visible file of
    `folder`. Opens nothing."""
    asked, root = folder / path, folder.resolve()
    try:
        target = asked.resolve()
    except (OSError, RuntimeError) as error:  # links that lead to one another; RuntimeError before Python 3.13
        raise UserError(f"{asked} is a link that leads nowhere; accepted: files") from error
    if target == root / path:
        return
    if not target.is_relative_to(root):
        raise UserError(
            f"{asked} is a link that leads out of the folder, to {target}; accepted: files (copy it in, if it is meant "
            "to be published)"
        )
    if is_hidden(target.relative_to(root)):
        raise UserError(f"{asked} is a link to {target}, which is hidden and never published; accepted: files")
    if target.is_dir():
        raise UserError(f"{asked} is a link to a folder; accepted: files, and folders themselves")


def skipped_paths(folder: Path) -> List[str]:
    """The hidden files at the top of `folder` that stay behind, for the user to know."""
    return sorted(path.name for path in folder.iterdir() if is_hidden(Path(path.name)))


def local_files(folder: Path) -> Dict[str, Hashes]:
    return {path.as_posix(): hash_file(folder / path) for path in local_paths(folder)}


def remote_files(api: "HfApi", repo_id: str, revision: Optional[str]) -> Dict[str, Hashes]:
    """The Hub's own listing of a revision."""
    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision)
    # RepoFolder has no blob_id; asking for it spares an import that moved between releases.
    files = [entry for entry in entries if hasattr(entry, "blob_id")]
    return {file.path: Hashes(file.size, file.blob_id, file.lfs.sha256 if file.lfs else None) for file in files}


def same_content(local: Hashes, remote: Hashes) -> bool:
    """A large file's git hash is that of its pointer, so where the Hub gives a sha256 that one decides."""
    return local.sha256 == remote.sha256 if remote.sha256 else local.git_sha1 == remote.git_sha1


def describe_difference(path: str, local: Hashes, remote: Optional[Hashes]) -> str:
    if remote is None:
        return f"{path} is missing on the Hub"
    kind, ours, theirs = (
        ("sha256", local.sha256, remote.sha256) if remote.sha256 else ("git sha1", local.git_sha1, remote.git_sha1)
    )
    return f"{path}: {kind} {theirs} on the Hub, {ours} here ({remote.size} and {local.size} bytes)"


def differences(
    local: Dict[str, Hashes], remote: Dict[str, Hashes], skip: Callable[[str], bool] = lambda path: False
) -> List[str]:
    """One line for every local file that the Hub lacks or holds with another content."""
    wrong = [
        path for path in local if not skip(path) and not (path in remote and same_content(local[path], remote[path]))
    ]
    return [describe_difference(path, local[path], remote.get(path)) for path in wrong]
