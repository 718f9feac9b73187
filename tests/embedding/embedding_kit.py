"""Collections to embed, small enough for a test, and what a user sees of an output folder."""

import hashlib
import os
from pathlib import Path
from typing import Dict, List

import embed
import numpy as np
import pyarrow.parquet as pq
from hubtools.packages import ROOT
from PIL import Image
from small import Result, call
from video_clips import moving_object, write_video

MOTION = ROOT / "hub_repos" / "llava-vit-moving-digits"
DIGITS = ROOT / "hub_repos" / "byteformer-digits"
SCRIPT = ROOT / "scripts" / "embed.py"


def embedded(model: Path, *arguments: object, workers: int = 0) -> Result:
    """embed.py as its command line would run it, in this process."""
    return call(embed.main, model, *arguments, "--workers", workers, "--threads", 1)


def save_pictures(folder: Path, count: int, seed: int = 0) -> List[Path]:
    """Noise of several sizes as PNG files, of which every third lies in a sub-folder."""
    generator = np.random.default_rng(seed)
    (folder / "more").mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        height, width = generator.integers(20, 70, 2)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append((folder / "more" if number % 3 == 0 else folder) / f"{number:04d}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def save_clips(folder: Path, count: int) -> List[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_video(folder / f"{number}.mp4", moving_object(number, frames=8 + number, size=64).frames)
        for number in range(count)
    ]


def rows_of(output: Path) -> List[dict]:
    """The rows of all shards, in order."""
    return [row for file in sorted((output / "data").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def failed_of(output: Path) -> Dict[str, str]:
    return {row["path"]: row["reason"] for row in pq.read_table(output / "failed.parquet").to_pylist()}


def hashes(output: Path) -> Dict[str, str]:
    """Every file of an output, hidden ones too, by its bytes."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def times(output: Path) -> Dict[str, int]:
    return {name: os.stat(output / name).st_mtime_ns for name in hashes(output)}
