"""Makes the copy of a Hub folder that holds the exported files."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional

import torch

from ..errors import UserError
from ..facts import Graph, Package
from ..packages import package_of_type
from ..staging import staged
from ..verification import Check, failures, verify_folder
from ..verification.exported import ONNX_FOLDER, PROGRAM
from ..verification.files import IGNORED_FOLDERS, read_config
from . import card
from .onnx_files import OPSET, quantize, write_onnx
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
    """Writes a copy of `folder` with the exported files to `output`.

    Returns:
        The exported files, by their path in the copy, and their sizes in bytes.

    Raises:
        UserError: the folder does not pass verify, the model cannot be exported, or the output may not be made.
    """
    checks = verify_folder(folder)
    if failures(checks):
        first = failures(checks)[0]
        raise VerificationFailed(f"{folder} does not pass verify: {first.name}: {first.summary}; {output} was not made")
    model, package = load(folder)
    graphs = package.graphs(model.config, type(model).__name__)
    with staged(output, overwrite, [folder]) as copy:
        ignored = shutil.ignore_patterns(*IGNORED_FOLDERS, "__pycache__", ONNX_FOLDER, PROGRAM.split("/")[0])
        shutil.copytree(folder, copy, ignore=ignored)
        files = write(copy, model, package, graphs, wanted)
        checks = verify_folder(copy, progress=progress)
        if failures(checks):
            raise VerificationFailed(
                f"the exported files do not pass verify: {failures(checks)[0].summary}; {output} was not made"
            )
        return {file.relative_to(copy).as_posix(): file.stat().st_size for file in files}


def load(folder: Path) -> "tuple[torch.nn.Module, Package]":
    """The folder's model, in float32, by this repository's code: verify has found the folder's the same."""
    config = read_config(folder)
    package = package_of_type(config["model_type"])
    model = getattr(package.load(), config["architectures"][0]).from_pretrained(folder)
    return model.float().eval(), package


def write(
    copy: Path, model: torch.nn.Module, package: Package, graphs: "tuple[Graph, ...]", wanted: Wanted
) -> List[Path]:
    if wanted.to == "torch-export":
        file = copy / PROGRAM
        file.parent.mkdir()
        write_program(model, graphs[0], file)
        card.add_program_section(copy, graphs[0], PROGRAM)
        return [file]
    room = copy / ONNX_FOLDER
    room.mkdir()
    files = [write_onnx(model, graph, room, wanted.opset or OPSET) for graph in graphs]
    if wanted.quantized:
        files += [quantize(file) for file in list(files)]
    card.add_onnx_section(copy, package, model.config, files)
    return files
