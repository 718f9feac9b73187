"""Small models, their checkpoints in every layout, and recipes for them: what the tests of the scripts are made of."""

import contextlib
import io
import resource
import signal
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Sequence

import torch
from hubtools.assembly.layouts import from_hub_layout, stack
from hubtools.assembly.recipes import Recipe, load_recipe
from hubtools.errors import run_script

LLAVA_VIT_TOML = """
package = "llavavit"
architecture = "LlavaViTModel"
checkpoint = "small.pth"

[config]
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 2
image_size = 32
patch_size = 8

[card]
license = "apache-2.0"
summary = "A small model."
"""

BYTEFORMER_TOML = """
package = "byteformer"
architecture = "ByteFormerForImageClassification"
checkpoint = "small.pt"

[config]
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 4
num_attention_heads = 2
conv_kernel_size = 4
max_position_embeddings = 400
window_sizes = [16]
window_shifts = [0, 8, 0, 8]
downsample = [true, false, true, false]
num_labels = 10

[processor]
file_encoding = "JPEG"
quality = 60

[card]
license = "apple-ascl"
summary = "A small model."
metrics = [{name = "accuracy", value = 62.43, dataset = "imagenet-1k", task = "image-classification"}]
"""


def trainable_toml(architecture: str, processor: str, **config: object) -> str:
    """The recipe of a ByteFormer that learns something within a few steps: wide initialisation, padding masked."""
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "conv_kernel_size": 4,
        "window_sizes": [16],
        "window_shifts": [0, 8],
        "downsample": "[true, false]",
        "mask_padding": "true",
        "initializer_range": 0.1,
        **config,
    }
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    head = f'package = "byteformer"\narchitecture = "{architecture}"'
    return f'{head}\n[config]\n{lines}\n[processor]\n{processor}\n[card]\nlicense = "apache-2.0"\n'


def write_recipe(folder: Path, text: str = LLAVA_VIT_TOML, name: str = "small-model") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def random_state(recipe: Recipe, seed: int = 0) -> Dict[str, torch.Tensor]:
    """A Hub-layout state dict in which no tensor is constant, so that no mix-up can go unseen."""
    torch.manual_seed(seed)
    model = recipe.build_model()
    return {name: tensor + 0.02 * torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def in_layout(recipe: Recipe, state: Dict[str, torch.Tensor], layout: str) -> Dict[str, torch.Tensor]:
    keys = from_hub_layout(recipe.package.name, layout, state)
    return {key: stack([state[name] for name in names]).clone() for key, names in keys.items()}


def save_checkpoint(path: Path, toml: str = LLAVA_VIT_TOML, layout: str = "hub") -> Path:
    recipe = load_recipe(str(write_recipe(path.parent, toml)))
    torch.save(in_layout(recipe, random_state(recipe), layout), path)
    return path


class Result(NamedTuple):
    code: int
    out: str
    err: str


def call(main, *arguments: object) -> Result:
    """Runs a script's `main` as its command line would, and catches what it prints and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    argv: Sequence[str] = [str(argument) for argument in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_script(main, argv)
        except SystemExit as end:
            code = end.code
    return Result(code, out.getvalue(), err.getvalue())


def files_up_to(size: int) -> Callable[[], None]:
    """For `preexec_fn`: to a process that runs it, every disk is full once a file has so many bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return limit
