"""Recorded graphs that hold for inputs of any size: torch.export's, of which ONNX files are made, and torch.compile's.

Whether a model can be recorded depends on the release, whose code takes part in it; what is made of the graph does not.
"""

from typing import Callable, Dict, NamedTuple, Sequence, Tuple

import pytest
import torch
from kit import Folder, error, folder, load, main_output
from measure import OUTPUTS
from torch.export import Dim

LAYERS = 2  # as many as show all that a layer does; recording takes time by their number
PATCH = 8
Inputs = Dict[str, torch.Tensor]


class Recording(NamedTuple):
    """A model's inputs of any size.

    make: sizes -> inputs.
    varying: for each input, in order, the axes whose sizes vary.
    sizes: to record with, and others.
    """

    source: Folder
    make: Callable[..., Inputs]
    varying: Tuple[Dict[int, object], ...]
    sizes: Sequence[Tuple[int, ...]]


def padded_bytes(batch: int, length: int) -> Inputs:
    """(B, S) ids, of which all rows but the first end in padding."""
    input_ids = torch.randint(0, 256, (batch, length))
    input_ids[1:, length * 2 // 3 :] = 256
    return {"input_ids": input_ids}


def clip_and_selection(batch: int, frames: int, rows: int, columns: int) -> Inputs:
    """A clip (B, 3, T, H, W), and a third of its patches (B, N), others in each row."""
    pixels, count = torch.randn(batch, 3, frames, rows * PATCH, columns * PATCH), frames * rows * columns
    chosen = torch.stack([torch.randperm(count)[: 1 + count // 3] for _ in range(batch)])
    return {"pixel_values": pixels, "visible_indices": chosen}


ANY = Dim.DYNAMIC
CLIPS = {0: ANY, 2: ANY, 3: PATCH * Dim("rows"), 4: PATCH * Dim("columns")}
ROWS_OF_ANY_LENGTH = {0: ANY, 1: ANY}
PIXEL_SIZES, BYTE_SIZES = [(2, 3, 4, 6), (1, 5, 2, 7), (3, 2, 6, 3)], [(2, 200), (1, 35), (3, 523)]
RECORDINGS = [
    Recording(folder("llava_vit_base"), clip_and_selection, (CLIPS, ROWS_OF_ANY_LENGTH), PIXEL_SIZES),
    Recording(folder("byteformer_k4_w16"), padded_bytes, (ROWS_OF_ANY_LENGTH,), BYTE_SIZES),
]
BOTH_MODELS = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.source.name)


class MainOutput(torch.nn.Module):
    """The model of a folder as a function of tensors to the one that a user reads first."""

    def __init__(self, source: Folder, names: Sequence[str]):
        super().__init__()
        self.model, self.names = load(source, attn_implementation="sdpa"), tuple(names)
        del getattr(self.model, source.prefix, self.model).encoder.layers[LAYERS:]

    def forward(self, *inputs):
        return main_output(self.model(**dict(zip(self.names, inputs)), return_dict=True))


@BOTH_MODELS
@torch.no_grad()
def test_recorded_graph_holds_for_other_sizes(recording):
    inputs = [recording.make(*sizes) for sizes in recording.sizes]
    model = MainOutput(recording.source, inputs[0])
    program = torch.export.export(model, tuple(inputs[0].values()), dynamic_shapes={"inputs": recording.varying})
    program._guards_code = []  # the recorder asks for more than one of everything; the graph holds for one, too
    graph = program.module()
    for sizes, given in zip(recording.sizes, inputs):
        assert error(graph(*given.values()), model(*given.values())) <= OUTPUTS, sizes


@BOTH_MODELS
@torch.no_grad()
def test_compiled_once_for_all_sizes(recording):
    """With fullgraph a part that would be left to Python is an error."""
    graphs = []

    def counting(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    given = [recording.make(2, *sizes) for _, *sizes in recording.sizes]
    model = MainOutput(recording.source, given[0])
    compiled = torch.compile(model, fullgraph=True, backend=counting)
    for inputs in given:
        for tensor, varying in zip(inputs.values(), recording.varying):
            for axis in set(varying) - {0}:
                torch._dynamo.mark_dynamic(tensor, axis)
        found = compiled(*inputs.values())
        assert error(found, model(*inputs.values())) <= OUTPUTS, [tensor.shape for tensor in inputs.values()]
    assert len(graphs) == 1
