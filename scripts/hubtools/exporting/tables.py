"""Tables of which a graph reads as many rows as its input needs, in 8 bits: positions are most of a small model's file."""

from typing import Iterator, List, Optional, Tuple

import numpy as np

LARGEST_INT8 = 127
TABLE, SCALE, ROWS = "_quantized", "_scale", "_rows"  # what names of tensors get added


def quantize_tables(proto) -> None:
    """Stores float32 tables of which the graph takes the first rows as int8, with a scale of its own for each row.

    The rows that are needed are taken first, then cast and multiplied: nothing works through the whole table, and a
    runtime cannot fold it back into float32 when it loads the graph.

    Args:
        proto: an onnx.ModelProto, changed in place.
    """
    from onnx import numpy_helper

    graph = proto.graph
    known = Constants(graph)
    for node in [node for node in graph.node if node.op_type == "Slice"]:
        table = sliced_table(node, known)
        if table is None:
            continue
        values, scales = int8_rows(table)
        name = node.input[0]
        for suffix, array in ((TABLE, values), (SCALE, scales)):
            if not any(tensor.name == name + suffix for tensor in graph.initializer):
                graph.initializer.append(numpy_helper.from_array(array, name + suffix))
        replace(graph, node, list(rows_in_float32(node)))
    remove_unused(graph)


class Constants:
    """The tensors of a graph that do not depend on its inputs, as far as they are stored or are parts of stored ones."""

    def __init__(self, graph):
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}

    def value(self, name: str) -> Optional[np.ndarray]:
        from onnx import helper, numpy_helper

        if name in self._stored:
            return numpy_helper.to_array(self._stored[name])
        maker = self._makers.get(name)
        if maker is None or maker.op_type not in ("Constant", "Gather"):
            return None
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in maker.attribute}
        if maker.op_type == "Constant":
            return numpy_helper.to_array(attributes["value"]) if "value" in attributes else None
        whole, index = (self.value(given) for given in maker.input)
        if whole is None or index is None:
            return None
        return np.take(whole, index, axis=attributes.get("axis", 0))


def sliced_table(node, known: Constants) -> Optional[np.ndarray]:
    """The float32 table (P, D) of which a Slice takes rows up to a number that the input decides, or None."""
    if len(node.input) < len(("table", "starts", "ends", "axes")):
        return None
    starts, ends, axes, *steps = (known.value(name) for name in node.input[1:])
    by_rows = ends is None and axes is not None and axes.tolist() == [0] and starts is not None
    if not by_rows or any(step is None or step.tolist() != [1] for step in steps):
        return None
    table = known.value(node.input[0])
    return table if table is not None and table.ndim == 2 and table.dtype == np.float32 else None


def int8_rows(table: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(P, D) float32 -> (P, D) int8 and (P, 1) float32, whose product it is within half a step of each row."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.maximum(largest / LARGEST_INT8, np.finfo(np.float32).tiny)  # a row of zeros has a scale, too
    return np.rint(table / scales).astype(np.int8), scales


def rows_in_float32(node) -> Iterator:
    """Nodes that give what the Slice of the float32 table gave, by the same name."""
    from onnx import TensorProto, helper

    name, bounds, result = node.input[0], list(node.input[1:]), node.output[0]
    for suffix in (TABLE, SCALE):
        yield helper.make_node("Slice", [name + suffix, *bounds], [result + suffix + ROWS])
    yield helper.make_node("Cast", [result + TABLE + ROWS], [result + TABLE], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [result + TABLE, result + SCALE + ROWS], [result])


def replace(graph, node, nodes: List) -> None:
    """Puts nodes in the place of one: their order is that of the computation."""
    at = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)


def remove_unused(graph) -> None:
    """Removes nodes and stored tensors that nothing reads any more."""
    wanted = {output.name for output in graph.output}
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(read_by(node))
    for items, names in ((graph.node, lambda node: node.output), (graph.initializer, lambda tensor: [tensor.name])):
        for item in [item for item in items if not wanted.intersection(names(item))]:
            items.remove(item)


def read_by(node) -> Iterator[str]:
    """The names of all that a node reads, also inside the graphs that it chooses between or repeats."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from read_by(inner)
