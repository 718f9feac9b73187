"""What the card of an exported folder says: how to use the files without torch and transformers."""

import json
from pathlib import Path
from string import Template
from typing import Any

from ..facts import Graph, Package
from .onnx_files import data_file

ONNX_HEADING = "## Without torch and transformers"
PROGRAM_HEADING = "## As a program of torch.export"
ONNX = Template(
    """
$heading

`onnx/model.onnx` needs neither, nor this folder's code; sizes may vary.$others

```python
import numpy as np
import onnxruntime$imports

$inputs
session = onnxruntime.InferenceSession("onnx/model.onnx")
outputs = dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))
$shown
```
"""
)
PROGRAM = Template(
    """
$heading

torch runs `$file` without transformers and without this folder's code; sizes may vary.

```python
import torch

program = torch.export.load("$file").module()
# program($arguments) -> {$outputs}
```
"""
)


def add_onnx_section(folder: Path, package: Package, config: Any, files: "list[Path]") -> None:
    """Appends the section to the folder's card."""
    settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    inputs = package.array_lines(config, settings)
    has_labels = config.architectures != [package.models["AutoModel"]]
    values = {
        "heading": ONNX_HEADING,
        "others": described(files),
        "imports": "\nfrom PIL import Image" if "Image." in inputs else "",
        "inputs": inputs,
        "shown": labels_line(config)
        if has_labels
        else 'print(outputs["last_hidden_state"].shape)  # (1, tokens, hidden size)',
    }
    append(folder, ONNX_HEADING, ONNX.substitute(values))


def add_program_section(folder: Path, graph: Graph, file: str) -> None:
    """Appends the section to the folder's card."""
    values = {
        "heading": PROGRAM_HEADING,
        "file": file,
        "arguments": ", ".join(graph.inputs),
        "outputs": ", ".join(graph.outputs),
    }
    append(folder, PROGRAM_HEADING, PROGRAM.substitute(values))


def labels_line(config: Any) -> str:
    return 'print(int(outputs["logits"].argmax()))  # the label\'s number: "id2label" of config.json has the names'


def described(files: "list[Path]") -> str:
    """The graphs beside the first."""
    texts = {
        "model_visible_indices": "with a second input `visible_indices`, `(B, N)` int64: the patches to compute",
        "model_quantized": "the same with weights of 8 bits",
        "model_visible_indices_quantized": "both",
    }
    listed = [f"`onnx/{file.name}` ({texts[file.stem]})" for file in files if file.stem in texts]
    beside = f" Beside it: {', '.join(listed)}." if listed else ""
    data = [f"`{data_file(file).name}`" for file in files if data_file(file).exists()]
    return beside + (f" Weights stand in {', '.join(data)}, each needed beside its graph." if data else "")


def append(folder: Path, heading: str, section: str) -> None:
    """Adds a section at the card's end; one of the same heading, from an earlier export, goes."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    card.write_text(without_section(text, heading).rstrip("\n") + "\n" + section, encoding="utf-8")


def without_section(text: str, heading: str) -> str:
    """A card without the section of this heading, which ends at the next heading outside of a block of code."""
    kept, inside, in_code = [], False, False
    for line in text.splitlines(keepends=True):
        in_code ^= line.startswith("```")
        if not in_code and line.startswith(("# ", "## ")):
            inside = line.rstrip() == heading
        if not inside:
            kept.append(line)
    return "".join(kept)
