"""The demo's photographs, clips and digits through scripts/embed.py, and the nearest neighbours of three of them.

Photographs and clips go through the model of motion, digits through the model of bytes: one collection for each.
"""

from pathlib import Path
from typing import Dict, List

import av
import numpy as np
import pyarrow.dataset as parquet
from PIL import Image, ImageDraw, ImageFont

from ..finetuning import digits, moving_digits
from .photos import call, save_photos
from .trained import DIGITS_MODEL, MOTION_MODEL, ROOT, save_digits

CLIPS, TILE_PIXELS = 120, 160
NEIGHBOURS, SHOWN, GAP, CAPTION = 5, 120, 8, 22  # pixels but for the first
PAPER, INK = (255, 255, 255), (0, 0, 0)


def run(output: Path) -> None:
    """Embeds three collections and draws `neighbours.png`: a row each, the input first."""
    room = output / "collection"
    save_digits(room / "digits")
    save_tiles(room)
    save_clip_files(room / "clips")
    embed = ROOT / "scripts" / "embed.py"
    call(embed, MOTION_MODEL, room / "photographs", room / "clips", "--output", output / "embeddings")
    call(embed, DIGITS_MODEL, room / "digits", "--output", output / "digit_embeddings")
    seen, digit = read_vectors(output / "embeddings"), read_vectors(output / "digit_embeddings")
    parts = [
        nearest(digit, next(iter(digit))),
        nearest(seen, next(path for path in seen if "photographs" in path)),
        nearest(seen, next(path for path in seen if "clips" in path)),
    ]
    for row in parts:
        print(f"{Path(row[0]).name}: {', '.join(Path(path).name for path in row[1:])}")
    draw(parts).save(output / "neighbours.png")
    print(f"wrote {output / 'neighbours.png'}")


def save_tiles(room: Path) -> None:
    """The two photographs in pieces: each piece is a photograph of its own."""
    (room / "photographs").mkdir(parents=True, exist_ok=True)
    for path in save_photos(room):
        with Image.open(path) as photo:
            for top in range(0, photo.height - TILE_PIXELS + 1, TILE_PIXELS // 2):
                for left in range(0, photo.width - TILE_PIXELS + 1, TILE_PIXELS // 2):
                    piece = photo.crop((left, top, left + TILE_PIXELS, top + TILE_PIXELS))
                    piece.save(room / "photographs" / f"{path.stem}-{top:03d}-{left:03d}.png")


def save_clip_files(folder: Path) -> None:
    """Held-out clips as files without loss: `001-is-left.mkv`."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = moving_digits.HeldOutClips(digits.split()[2])
    for number in range(min(CLIPS, len(clips))):
        item = clips[number]
        with av.open(str(folder / f"{number:03d}-is-{moving_digits.LABELS[item['labels']]}.mkv"), "w") as file:
            stream = file.add_stream("ffv1", rate=5)
            stream.height, stream.width = item["clip"].shape[1:]
            stream.pix_fmt = "gray"
            for frame in item["clip"]:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray")))
            file.mux(stream.encode())


def read_vectors(folder: Path) -> Dict[str, np.ndarray]:
    """Path -> vector of unit length."""
    rows = parquet.dataset(folder / "data", format="parquet").to_table(columns=["path", "vector"]).to_pylist()
    return {row["path"]: np.asarray(row["vector"]) / np.linalg.norm(row["vector"]) for row in rows}


def nearest(vectors: Dict[str, np.ndarray], path: str) -> List[str]:
    """The path, and those whose vectors are nearest by cosine."""
    paths = [other for other in vectors if other != path]
    order = np.argsort([-vectors[other] @ vectors[path] for other in paths], kind="stable")
    return [path, *(paths[place] for place in order[:NEIGHBOURS])]


def draw(rows: List[List[str]]) -> Image.Image:
    row_height = SHOWN + CAPTION + GAP
    picture = Image.new("RGB", (GAP + (NEIGHBOURS + 1) * (SHOWN + GAP), GAP + len(rows) * row_height), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, row in enumerate(rows):
        for column, path in enumerate(row):
            left, top = GAP + column * (SHOWN + GAP), GAP + number * row_height
            picture.paste(look_of(Path(path)).resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (left, top))
            pen.text((left, top + SHOWN + 2), Path(path).stem, INK, font)
    return picture


def look_of(path: Path) -> Image.Image:
    """A picture as it is; a clip as all of its frames in one, the later the brighter."""
    if path.suffix != ".mkv":
        with Image.open(path) as picture:
            return picture.convert("RGB")
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="gray").astype(np.float32) for frame in file.decode(video=0)]
    shades = [frame * (number + 1) / len(frames) for number, frame in enumerate(frames)]
    return Image.fromarray(np.max(shades, axis=0).astype(np.uint8)).convert("RGB")
