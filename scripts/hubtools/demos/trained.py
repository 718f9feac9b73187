"""The two trained models of hub_repos/ on data they have never seen: digits from the bytes of PNG files, motion from
clips."""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..errors import UserError
from ..finetuning import digits, moving_digits
from ..packages import ROOT

DIGITS_MODEL, MOTION_MODEL = (ROOT / "hub_repos" / name for name in ("byteformer-digits", "llava-vit-moving-digits"))
USE_TRAINED = Path(__file__).with_name("use_trained.py")


def run(output: Path) -> None:
    """Writes the held-out data as files, then lets a fresh process that knows only them and the folders classify
    them."""
    for folder in (DIGITS_MODEL, MOTION_MODEL):
        if not (folder / "model.safetensors").is_file():
            raise UserError(
                f"{folder} has no model.safetensors; {folder.name}.toml beside it tells the command that trains it"
            )
    files = save_digits(output / "digits")
    clips = save_clips(output / "clips.safetensors")
    print(f"wrote {len(files)} held-out digits to {output / 'digits'} and held-out clips to {clips}", flush=True)
    with tempfile.TemporaryDirectory() as elsewhere:  # a stranger's machine: empty cache, no repository on the path
        environment = {**os.environ, "HF_HOME": elsewhere, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-I", USE_TRAINED, DIGITS_MODEL, MOTION_MODEL, output]
        subprocess.run(list(map(str, command)), check=True, cwd=elsewhere, env=environment)


def save_digits(folder: Path) -> "list[Path]":
    """Every test digit as a PNG file, in an order that mixes the classes: `0001-is-7.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = list(digits.split()[2])
    random.Random(0).shuffle(held_out)
    paths = [folder / f"{place:04d}-is-{digits.load()[1][index]}.png" for place, index in enumerate(held_out)]
    for path, index in zip(paths, held_out):
        path.write_bytes(digits.png_bytes(index))
    return paths


def save_clips(path: Path) -> Path:
    """The test clips as frames (B, T, H, W) uint8, and their classes (B,)."""
    items = list(moving_digits.HeldOutClips(digits.split()[2]))
    frames = torch.stack([torch.from_numpy(item["clip"]) for item in items])
    save_file({"frames": frames, "labels": torch.tensor([item["labels"] for item in items])}, path)
    return path
