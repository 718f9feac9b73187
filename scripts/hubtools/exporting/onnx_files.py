"""Exported programs as ONNX files, in float32 and with weights of 8 bits."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Iterator, Optional

import torch

from ..errors import UserError
from ..facts import Graph
from .programs import export_program
from .tables import quantize_tables

QUANTIZED = "_quantized"  # what the Hub's models add to the name
# Bytes of weights; more of them go to a file beside the graph. A protobuf holds 2**31, of which the graph needs some.
LARGEST = 2**31 - 2**25


def write_onnx(model: torch.nn.Module, graph: Graph, folder: Path, opset: Optional[int] = None) -> Path:
    """Writes `folder/NAME.onnx`, and `NAME.onnx_data` beside it where the weights do not fit into one protobuf.

    Args:
        model: in eval mode and float32.
        graph: which function of it.
        folder: exists.
        opset: version of ONNX's operators; None for the graph's own.
    """
    import onnx

    with quiet():
        proto = converted(export_program(model, graph), graph, opset or graph.opset)
    tidy(proto, graph)
    file = folder / f"{graph.name}.onnx"
    save(onnx, proto, file)
    return file


def converted(program: torch.export.ExportedProgram, graph: Graph, opset: int):
    """The program as ONNX's protobuf."""
    names = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    try:
        return torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False, **names).model_proto
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"torch {torch.__version__} cannot write {graph.name} as ONNX {opset}: {error}") from error


def data_file(file: Path) -> Path:
    """Where the weights of a graph stand that do not fit into it."""
    return file.with_name(f"{file.name}_data")


def save(onnx, proto, file: Path) -> None:
    """Writes a graph, and beside it the weights that one protobuf cannot hold, for the same people to read."""
    beside = sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > LARGEST
    options = {"save_as_external_data": True, "location": data_file(file).name} if beside else {}
    onnx.save_model(proto, file, **options)
    if beside:  # the library writes it for its owner alone
        data_file(file).chmod(file.stat().st_mode)


def tidy(proto, graph: Graph) -> None:
    """Names the sizes that vary, and removes what says where and from which lines the graph was made."""
    proto.producer_version, proto.doc_string = torch.__version__.split("+")[0], ""
    del proto.metadata_props[:]
    del proto.graph.value_info[:]  # shapes in between, in the recorder's symbols; runtimes infer their own
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for values, named in ((proto.graph.input, graph.inputs), (proto.graph.output, graph.outputs)):
        for value in values:
            for dimension, size in zip(value.type.tensor_type.shape.dim, named[value.name]):
                dimension.Clear()
                setattr(dimension, "dim_param" if isinstance(size, str) else "dim_value", size)


def quantize(file: Path) -> Path:
    """Writes `NAME_quantized.onnx` beside `NAME.onnx`, and `NAME_quantized.onnx_data` where that has weights beside it.

    Products by weights are in 8 bits, activations in 8 bits as they come; so are tables of positions.

    Weights of products use seven of the eight bits: without the newest instructions two products of full range would not
    fit into the sixteen bits that x86 adds them up in, and the result would be wrong without a word.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target, beside = file.with_name(f"{file.stem}{QUANTIZED}.onnx"), data_file(file).exists()
    with quiet():
        quantize_dynamic(
            file,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=beside,
        )
    proto = onnx.load(target)
    if beside:  # onnxruntime has a name of its own for the weights beside a graph
        target.with_name(f"{target.name}.data").unlink()
    quantize_tables(proto)
    save(onnx, proto, target)
    return target


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporters' remarks about themselves from the terminal; their errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
