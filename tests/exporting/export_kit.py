"""Small folders, and what is exported of them: made once for all tests of a run, since recording a model takes long."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import export
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from measure import assert_outputs_close
from safetensors.torch import load_file, save_file
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, call, random_state, write_recipe

EXTRAS = ("onnx", "onnxscript", "onnxruntime")
ABSENT = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (requirements-export.txt)")
# As small as shows all there is: two layers, of which one shifts its windows and one merges.
BYTES = BYTEFORMER_TOML.replace("num_hidden_layers = 4", "num_hidden_layers = 2").replace(
    "window_shifts = [0, 8, 0, 8]\ndownsample = [true, false, true, false]",
    "window_shifts = [0, 8]\ndownsample = [true, false]",
)
PIXELS = LLAVA_VIT_TOML.replace("num_hidden_layers = 2", "num_hidden_layers = 1")
AUDIO = BYTES.replace("ForImageClassification", "ForAudioClassification").replace(
    'file_encoding = "JPEG"\nquality = 60', 'file_encoding = "WAV"\nsample_dtype = "int16"'
)
TOWER = PIXELS.replace("[config]", "[config]\nuse_head = false\nspatial_merge_size = 2\nout_hidden_size = 48")
# One layer that does both.
MASKED = (
    BYTES.replace("num_hidden_layers = 2", "num_hidden_layers = 1\nmask_padding = true")
    .replace("[0, 8]", "[8]")
    .replace("[true, false]", "[true]")
)


def small_folder(room: Path, toml: str, name: str) -> Path:
    """A Hub folder of a recipe, with weights of which none are constant."""
    recipe = load_recipe(str(write_recipe(room, toml, name)))
    save_file(random_state(recipe), room / "weights.safetensors", {"format": "pt"})
    build_folder(room / name, recipe, room / "weights.safetensors")
    return room / name


def exported(folder: Path, *arguments: object) -> Path:
    output = folder.with_name(f"{folder.name}-exported")
    result = call(export.main, folder, "--output", output, *arguments)
    assert result.code == 0, result.err
    return output


def session_of(folder: Path, name: str = "model"):
    """A graph of a folder in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(folder / f"onnx/{name}.onnx", options)


def padded_bytes(batch: int, length: int) -> torch.Tensor:
    ids = torch.randint(0, 256, (batch, length))
    ids[1:, length * 3 // 5 :] = 256
    return ids


# To be completed by the expression that opens the file.
WITHOUT_TRANSFORMERS = """
import sys
sys.modules["transformers"] = None
import torch
from safetensors.torch import load_file, save_file
program = %s
save_file({name: program(ids)["logits"] for name, ids in load_file("inputs.safetensors").items()}, "outputs.safetensors")
"""


def assert_runs_without_transformers(room: Path, opening: str, model: torch.nn.Module, inputs: dict) -> None:
    """What the expression `opening` gives in `room`, in a process of its own, gives the model's logits of all inputs."""
    save_file(inputs, room / "inputs.safetensors")
    command = [sys.executable, "-c", WITHOUT_TRANSFORMERS % opening]
    run = subprocess.run(command, cwd=room, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    outputs = load_file(room / "outputs.safetensors")
    assert outputs.keys() == inputs.keys()
    with torch.no_grad():
        for name, found in outputs.items():
            assert_outputs_close(found, model(inputs[name]).logits, name)
