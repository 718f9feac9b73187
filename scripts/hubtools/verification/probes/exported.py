"""Compares what an exported file gives with what the model gives."""

import importlib.util
import os
from typing import Any, Callable, Dict, List, Mapping, Sequence

import torch

from .protocol import CheckFailed, CheckSkipped
from .tensors import compare_outputs, largest_ratio

TOLERANCE = 1e-4  # of an output's largest magnitude, in float32
# Weights and activations of 8 bits differ by percents; a model that is off by half its range is another one.
QUANTIZED_TOLERANCE = 0.5
LEAST_AGREEMENT = {False: 1.0, True: 0.9}  # share of given files with the model's own label; by whether in 8 bits

Tensors = Dict[str, torch.Tensor]
Run = Callable[[Mapping[str, torch.Tensor]], Tensors]


def check_exported(path: str, model: torch.nn.Module, graphs: Sequence[Any], given: Mapping[str, Tensors]) -> str:
    """Runs a file on all of its graph's trials, and on given inputs.

    Args:
        path: of the file; its name says which graph it is, and whether it is of 8 bits.
        model: in float32 and eval mode.
        graphs: what the model is exported as.
        given: file -> inputs of the model.
    """
    stem = os.path.basename(path).rsplit(".", 1)[0]  # a program's is that of the first graph
    quantized = stem.endswith("_quantized")
    graph = next((graph for graph in graphs if graph.name == stem.removesuffix("_quantized")), None)
    if graph is None:
        raise CheckFailed(
            f"{os.path.basename(path)} is no graph of this model; known: {', '.join(g.name for g in graphs)}"
        )
    run = opened(path, graph)
    found = compare_with_model(run, model, graph, QUANTIZED_TOLERANCE if quantized else TOLERANCE)
    return found + agreement(run, model, graph, given, quantized)


def compare_with_model(run: Run, model: torch.nn.Module, graph: Any, tolerance: float = TOLERANCE) -> str:
    """Compares a function of named tensors with the model on all of the graph's trials; raises CheckFailed."""
    differences = []
    for number, sizes in enumerate(graph.trials):
        inputs = graph.make_inputs(sizes, torch.Generator().manual_seed(number))
        differences += compare_outputs(run(inputs), outputs_of(model, graph, inputs), f"trial {number}")
    worst = largest_ratio(differences, tolerance)
    return f"equals the model within {worst:.1e} on {len(graph.trials)} sizes"


def agreement(run: Run, model: torch.nn.Module, graph: Any, given: Mapping[str, Tensors], quantized: bool) -> str:
    """On how many of the given files the label is the model's own."""
    usable = {file: inputs for file, inputs in given.items() if set(inputs) >= set(graph.inputs)}
    if "logits" not in graph.outputs or not usable:
        return ""
    same = 0
    for file, inputs in usable.items():
        inputs = {name: inputs[name] for name in graph.inputs}
        try:
            own = outputs_of(model, graph, inputs)
        except ValueError as refusal:
            raise CheckFailed(f"the model cannot take {file}: {refusal}") from refusal
        same += int(run(inputs)["logits"].argmax()) == int(own["logits"].argmax())
    found = f"the model's own label on {same} of {len(usable)} given files"
    if same < LEAST_AGREEMENT[quantized] * len(usable):
        raise CheckFailed(f"{found}; allowed: {LEAST_AGREEMENT[quantized]:.0%} of them and more")
    return f"; {found}"


def outputs_of(model: torch.nn.Module, graph: Any, inputs: Mapping[str, torch.Tensor]) -> Tensors:
    with torch.inference_mode():
        outputs = model(**inputs, return_dict=True)
    return {name: outputs[name] for name in graph.outputs}


def opened(path: str, graph: Any) -> Run:
    """The file as a function of named tensors."""
    if path.endswith(".pt2"):
        program = torch.export.load(path).module()
        return lambda inputs: program(*(inputs[name] for name in graph.inputs))
    if importlib.util.find_spec("onnxruntime") is None:
        raise CheckSkipped("not run: onnxruntime is not installed (pip install onnxruntime)")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds of errors have no common name that it makes public
        raise CheckFailed(f"onnxruntime cannot read it: {error}") from error
    compare_names("inputs", [value.name for value in session.get_inputs()], graph.inputs)
    compare_names("outputs", [value.name for value in session.get_outputs()], graph.outputs)

    def run(inputs: Mapping[str, torch.Tensor]) -> Tensors:
        found = session.run(list(graph.outputs), {name: inputs[name].numpy() for name in graph.inputs})
        return dict(zip(graph.outputs, map(torch.from_numpy, found)))

    return run


def compare_names(what: str, found: List[str], expected: Mapping[str, Any]) -> None:
    if sorted(found) != sorted(expected):
        raise CheckFailed(f"{what} {', '.join(found)}, expected {', '.join(expected)}")


def read_inputs(probe: Any, file: str) -> Tensors:
    """A picture, sound or clip as the folder's processor prepares it."""
    processor, model = probe.processor, probe.model
    if probe.facts.inputs == "bytes":
        made = processor(file, return_tensors="pt")
    elif file.lower().endswith((".mp4", ".avi", ".mkv", ".mov", ".webm")):
        made = probe.video_processor(videos=file, return_tensors="pt")
    else:
        from PIL import Image

        made = processor(images=Image.open(file).convert("RGB"), return_tensors="pt")
    inputs = {name: tensor for name, tensor in made.items() if isinstance(tensor, torch.Tensor)}
    if "pixel_values" in inputs and inputs["pixel_values"].dim() == 4 and "Image" not in type(model).__name__:
        inputs["pixel_values"] = inputs["pixel_values"].unsqueeze(2)
    return inputs
