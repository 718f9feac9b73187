"""What an export needs besides the core, and how to get it."""

import importlib.util
from typing import Sequence

from ..errors import UserError, some

# Of each kind of export, and of quantisation: modules that have to be there.
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": (), "aot-inductor": ()}
HOW = "pip install -r requirements-export.txt"


def missing(modules: Sequence[str]) -> "list[str]":
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require_extras(kind: str) -> None:
    """Raises UserError where something that the export needs is not installed."""
    absent = missing(NEEDED[kind])
    if absent:
        raise UserError(f"--to {kind} needs {some(absent)}, which {'are' if absent[1:] else 'is'} not installed: {HOW}")
