"""Makes the copy of a Hub folder that holds the exported files."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Set

import torch
import transformers

from ..errors import UserError
from ..facts import Graph, Package
from ..packages import package_of_type
from ..staging import check_output, staged
from ..verification import Check, failures, verify_folder
from ..verification.exported import ONNX_FOLDER, PROGRAM, is_export_of
from ..verification.files import EXAMPLE_NAME, IGNORED_FOLDERS, code_files, read_config
from . import card
from .onnx_files import data_file, quantize, write_onnx
from .programs import write_program


@dataclass(frozen=True)
class Wanted:
    """What to write: "onnx" or "torch-export", whether in 8 bits too, and with which version of the operators."""

    to: str
    quantized: bool = False
    opset: Optional[int] = None


class VerificationFailed(UserError):
    """The folder, or what became of it, is not good. Exit code 1, as verify.py's own."""

    exit_code = 1


def export_folder(
    folder: Path, output: Path, wanted: Wanted, overwrite: bool, progress: Callable[[Check], None]
) -> Dict[str, int]:
    """Writes a copy of `folder` with the exported files to `output`. Earlier exports of the same kind are not copied.

    Returns:
        The exported files, by their path in the copy, and their sizes in bytes.

    Raises:
        UserError: the folder does not pass verify, the model cannot be exported, or the output may not be made there.
    """
    check_output(output, overwrite, [folder])  # before the minutes that all else takes
    if folder.resolve() in output.resolve().parents:
        raise UserError(f"output {output} lies in {folder}, and would be copied into itself; name one outside of it")
    model, package, graphs = ready(folder, wanted.to)
    with staged(output, overwrite, [folder]) as copy:
        shutil.copytree(folder, copy, ignore=left_behind(folder, wanted.to))
        files = write(copy, model, package, graphs, wanted)
        checks = verify_folder(copy, progress=progress)
        if failures(checks):
            raise VerificationFailed(
                f"the exported files do not pass verify: {failures(checks)[0].summary}; {output} was not made"
            )
        written = [path for file in files for path in (file, data_file(file)) if path.exists()]
        return {path.relative_to(copy).as_posix(): path.stat().st_size for path in written}


def left_behind(folder: Path, kind: str) -> Callable[[str, List[str]], Set[str]]:
    """For shutil.copytree: what the copy does without, among it earlier exports of this kind."""
    usual = shutil.ignore_patterns(*IGNORED_FOLDERS, "__pycache__")

    def ignored(parent: str, names: List[str]) -> Set[str]:
        inside = Path(parent).relative_to(folder)
        return {*usual(parent, names), *(name for name in names if is_export_of(kind, (inside / name).as_posix()))}

    return ignored


def ready(folder: Path, kind: str) -> "tuple[torch.nn.Module, Package, tuple[Graph, ...]]":
    """The folder's model, in float32, and its graphs, by this repository's code: verify finds the folder's the same.

    Earlier exports of the same kind may be of other weights: they are about to be made anew.
    """
    checks = [
        check
        for check in failures(verify_folder(folder))
        if not is_export_of(kind, check.name.removeprefix("exported: "))
    ]
    if checks:
        raise VerificationFailed(
            f"{folder} does not pass verify: {checks[0].name}: {checks[0].summary}; nothing was made"
        )
    stated = read_config(folder)
    package, architecture = package_of_type(stated["model_type"]), stated["architectures"][0]
    refuse_links(folder, package)
    own = package.load()
    graphs = package.graphs(getattr(own, package.config_class).from_pretrained(folder), architecture)
    if not graphs:
        raise UserError(f"{architecture} cannot be exported: nothing says of which sizes its inputs may be")
    transformers.utils.logging.disable_progress_bar()  # of a model that loads in seconds
    return getattr(own, architecture).from_pretrained(folder).float().eval(), package, graphs


def refuse_links(folder: Path, package: Package) -> None:
    """Raises UserError for a link out of the folder, but to code that verify has read: the copy would hold what it leads to."""
    inside, code = folder.resolve(), {*code_files(package), EXAMPLE_NAME}
    linked = [path for path in folder.rglob("*") if path.is_symlink() and inside not in path.resolve().parents]
    for name in (path.relative_to(folder) for path in linked):
        if name.as_posix() not in code and not set(IGNORED_FOLDERS).intersection(name.parts):
            raise UserError(f"{folder / name} is a link out of the folder; accepted: what it leads to, itself")


def write(
    copy: Path, model: torch.nn.Module, package: Package, graphs: "tuple[Graph, ...]", wanted: Wanted
) -> List[Path]:
    if wanted.to == "torch-export":
        file = copy / PROGRAM
        file.parent.mkdir(exist_ok=True)
        write_program(model, graphs[0], file)
        card.add_program_section(copy, graphs[0], PROGRAM)
        return [file]
    room = copy / ONNX_FOLDER
    room.mkdir(exist_ok=True)
    files = [write_onnx(model, graph, room, wanted.opset) for graph in graphs]
    if wanted.quantized:
        files += [quantize(file) for file in list(files)]
    card.add_onnx_section(copy, package, model.config, files)
    return files
