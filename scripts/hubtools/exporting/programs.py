"""A model as torch.export's program: a recorded graph that holds for inputs of any size."""

import io
from pathlib import Path
from typing import Any, Dict, Optional

import torch

from ..errors import UserError
from ..facts import Graph

SEED = 0


class Named(torch.nn.Module):
    """A model as a function of the one or two tensors that a graph names, which gives those that it names."""

    def __init__(self, model: torch.nn.Module, graph: Graph):
        super().__init__()
        self.model = model
        self.inputs, self.outputs = tuple(graph.inputs), tuple(graph.outputs)

    def forward(self, first: torch.Tensor, second: Optional[torch.Tensor] = None) -> Dict[str, torch.Tensor]:
        given = (first,) if second is None else (first, second)
        outputs = self.model(**dict(zip(self.inputs, given)), return_dict=True)
        return {name: outputs[name] for name in self.outputs}


def trial_inputs(graph: Graph, number: int) -> Dict[str, torch.Tensor]:
    """Inputs of one of the graph's trials, the same every time."""
    return graph.make_inputs(graph.trials[number], torch.Generator().manual_seed(SEED + number))


def dynamic_sizes(graph: Graph) -> Dict[str, Dict[int, Any]]:
    """For torch.export: which sizes of which inputs vary, and in what steps."""
    steps = {name: step * torch.export.Dim(f"{name}_steps") for name, step in graph.steps.items() if step > 1}
    return {
        name: {
            axis: steps.get(size, torch.export.Dim.DYNAMIC) for axis, size in enumerate(sizes) if isinstance(size, str)
        }
        for name, sizes in graph.inputs.items()
    }


def export_program(model: torch.nn.Module, graph: Graph) -> torch.export.ExportedProgram:
    """Records the model.

    Args:
        model: in eval mode and of the type that is to be exported.
        graph: which function of it.

    Raises:
        UserError: this torch cannot follow the model.
    """
    model.config._attn_implementation = "sdpa"  # every exporter knows it
    sizes, inputs = tuple(dynamic_sizes(graph).values()), tuple(trial_inputs(graph, 0).values())
    try:
        with torch.no_grad():
            program = torch.export.export(Named(model, graph), inputs, dynamic_shapes=sizes)
    except (torch._dynamo.exc.UserError, torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode) as error:
        raise UserError(
            f"torch {torch.__version__} cannot export {type(model).__name__}: {error}; known to work: torch 2.13"
        ) from error
    # The recorder's assertions ask for more than one of everything (memory layouts of sizes of 1 are ambiguous), though
    # what it recorded holds for one, too; that it does, the trials show.
    program._guards_code = []
    return program


def write_program(model: torch.nn.Module, graph: Graph, file: Path) -> None:
    """Writes the program as torch.export.load reads it, without the inputs of its recording, which would be pickled."""
    program = export_program(model, graph)
    program._example_inputs = None
    content = io.BytesIO()  # torch's own writing of a file ends the process where the disk is full
    torch.export.save(program, content)
    file.write_bytes(content.getbuffer())
