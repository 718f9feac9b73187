"""A model in another form than eager float32: of lower precision, compiled, exported."""

import os
import tempfile
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional

import torch

from ..errors import UserError
from ..exporting.extras import missing
from ..exporting.onnx_files import quantize, write_onnx
from ..exporting.programs import write_program
from ..facts import Graph, Package
from ..verification.probes.exported import opened

Tensors = Dict[str, torch.Tensor]


class Form(NamedTuple):
    """How a model runs, in which precision, and what has to be installed for it."""

    way: str  # "eager", "compiled", "torch-export" or "onnx"
    precision: str  # a torch dtype's name or "int8"
    needs: str = ""

    @property
    def name(self) -> str:
        return f"{self.way}, {self.precision}"

    @property
    def obstacle(self) -> Optional[str]:
        """What keeps it from running here."""
        return f"{self.needs} is not installed" if self.needs and missing([self.needs]) else None


FLOAT32 = Form("eager", "float32")
FORMS = (
    FLOAT32,
    Form("eager", "bfloat16"),
    Form("eager", "float16"),
    Form("eager", "int8", "torchao"),
    Form("compiled", "float32"),
    Form("torch-export", "float32"),
    Form("onnx", "float32", "onnxruntime"),
    Form("onnx", "int8", "onnxruntime"),
)


class Made(NamedTuple):
    """A function of a model's keywords, and the bytes of the file that holds it."""

    run: Callable[..., Tensors]
    file_bytes: int


def make(form: Form, model: torch.nn.Module, package: Package, room: Path) -> Made:
    """Brings an eager float32 model into a form.

    Args:
        form: without an obstacle.
        model: in eval mode.
        package: the model's.
        room: an empty folder for the file.
    """
    if form.way in ("eager", "compiled"):
        model = in_precision(form.precision, model, room)
        run = torch.compile(model, fullgraph=True) if form.way == "compiled" else model
        return Made(lambda **inputs: dict(run(**inputs)), (room / "model.safetensors").stat().st_size)
    graph = package.graphs(model.config, type(model).__name__)[0]
    file = room / "model.pt2"
    if form.way == "torch-export":
        write_program(model, graph, file)
    else:
        file = write_onnx(model, graph, room)
        file = quantize(file) if form.precision == "int8" else file
    run = opened(str(file), graph)
    return Made(lambda **inputs: run(as_graph_takes(graph, inputs)), file.stat().st_size)


def in_precision(precision: str, model: torch.nn.Module, room: Path) -> torch.nn.Module:
    """The model as from_pretrained gives it in this precision; also saved in it."""
    if precision != "int8":
        model.to(getattr(torch, precision)).save_pretrained(room)
        return model
    import torchao.quantization
    from transformers import TorchAoConfig

    with tempfile.TemporaryDirectory(dir=room) as whole:
        model.save_pretrained(whole)
        settings = TorchAoConfig(torchao.quantization.Int8DynamicActivationInt8WeightConfig())
        model = type(model).from_pretrained(whole, quantization_config=settings, torch_dtype=torch.float32).eval()
    model.save_pretrained(room)
    return model


def as_graph_takes(graph: Graph, inputs: Tensors) -> Tensors:
    """A graph knows images as clips of one frame."""
    fitting = {name: inputs[name] for name in graph.inputs}
    return {
        name: tensor.unsqueeze(2) if tensor.dim() + 1 == len(graph.inputs[name]) else tensor
        for name, tensor in fitting.items()
    }


def form_named(name: str) -> Form:
    for form in FORMS:
        if form.name == name:
            return form
    raise UserError(f"unknown form {name!r}; known: {'; '.join(form.name for form in FORMS)}")


def processor_units() -> str:
    """What this processor multiplies small numbers with, by the names that Linux gives them."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown"
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx512_fp16")
    return ", ".join(name for name in known if name in flags) or os.uname().machine
