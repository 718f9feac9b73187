"""From a training checkpoint to a Hub folder, and what the folder makes of two photographs.

The photographs are the two that scikit-learn ships. The weights are random: the point is the path, not the features.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from ..assembly.layouts import from_hub_layout, stack
from ..assembly.recipes import load_recipe
from ..packages import ROOT

RECIPE = "llava-vit-small"
USE_FOLDER = Path(__file__).with_name("use_folder.py")


def run(output: Path) -> None:
    """Makes the checkpoint, assembles it, and uses the folder in a fresh process. Leaves everything in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    photos = save_photos(output)
    checkpoint = save_training_checkpoint(output / f"{RECIPE}.pth")
    folder = output / RECIPE
    call(ROOT / "scripts" / "assemble.py", RECIPE, "--checkpoint", checkpoint, "--output", folder, "--overwrite")
    with tempfile.TemporaryDirectory() as elsewhere:  # a stranger's machine: empty cache, no repository on the path
        call("-I", USE_FOLDER, folder, output, *photos, cwd=elsewhere, HF_HOME=elsewhere, HF_HUB_OFFLINE="1")


def save_photos(output: Path) -> "list[Path]":
    sample = load_sample_images()
    paths = [output / Path(name).with_suffix(".png").name for name in sample.filenames]
    for path, pixels in zip(paths, sample.images):
        Image.fromarray(pixels).save(path)
    return paths


def save_training_checkpoint(path: Path) -> Path:
    """A checkpoint as a training loop leaves it: training layout, wrapped, with DDP prefixes and optimizer state."""
    recipe = load_recipe(RECIPE)
    torch.manual_seed(0)
    state = recipe.build_model().state_dict()
    keys = from_hub_layout(recipe.package.name, "training", state)
    training = {f"module.{key}": stack([state[name] for name in names]) for key, names in keys.items()}
    torch.save({"model": training, "optimizer": {"state": {}, "param_groups": []}, "epoch": 1}, path)
    return path


def call(*command, cwd=None, **environment) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=cwd, env={**os.environ, **environment})
