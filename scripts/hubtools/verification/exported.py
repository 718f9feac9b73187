"""The exported files that a folder may hold, and what can be said of them without running them."""

import json
import re
import zipfile
from pathlib import Path
from typing import List, Optional

ONNX_FOLDER = "onnx"
PROGRAM = "torch_export/model.pt2"
# Graphs as the Hub's models call them; their weights stand beside those that one protobuf cannot hold.
GRAPH = re.compile(r"model(_visible_indices)?(_quantized)?\.onnx")
ONNX_FILE = re.compile(rf"{ONNX_FOLDER}/{GRAPH.pattern}(_data)?")
# What `export.py --to` writes into a folder. Machine code it does not: that is a file of its own.
KINDS = {"onnx": ONNX_FILE, "torch-export": re.compile(re.escape(PROGRAM))}
# What torch.export.save writes that is no pickle: JSON, and tensors as bare bytes.
PLAIN_MEMBER = re.compile(
    r"\w+/(data/(weights/weight_\d+|constants/tensor_\d+|(weights|constants)/model_\w+_config\.json|sample_inputs/model\.pt)"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/\w+)"
)
MOST_JSON = 10**8  # bytes


def exported_files(folder: Path) -> List[str]:
    """The exported files of a folder, by their paths in it."""
    graphs = sorted(path.name for path in folder.glob(f"{ONNX_FOLDER}/*.onnx") if GRAPH.fullmatch(path.name))
    programs = [PROGRAM] if (folder / PROGRAM).is_file() else []
    return [*(f"{ONNX_FOLDER}/{name}" for name in graphs), *programs]


def is_exported(name: str) -> bool:
    return any(is_export_of(kind, name) for kind in KINDS)


def is_export_of(kind: str, name: str) -> bool:
    """Whether a file of a folder, by its path in it, is what `export.py --to KIND` writes."""
    return kind in KINDS and KINDS[kind].fullmatch(name) is not None


def why_not_plain(program: Path) -> Optional[str]:
    """Why a program's archive holds more than a graph in JSON and tensors as bare bytes; None where it does not."""
    try:
        with zipfile.ZipFile(program) as archive:
            for member in archive.infolist():
                if not PLAIN_MEMBER.fullmatch(member.filename):
                    return f"holds {member.filename}, which torch.export does not write"
                if member.filename.endswith("sample_inputs/model.pt") and member.file_size:
                    return "holds sample inputs, which are pickled"
                if member.filename.endswith("_config.json") and (
                    member.file_size > MOST_JSON or holds_pickles(json.loads(archive.read(member)))
                ):
                    return "holds pickled tensors"
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        return f"is no program of torch.export ({error})"
    return None


def holds_pickles(config: dict) -> bool:
    return any(entry.get("use_pickle", True) for entry in config.get("config", {}).values())
