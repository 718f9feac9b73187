"""Short clips of a real digit that moves in one of eight directions, and the residual between their frames."""

import random
from functools import lru_cache
from typing import Any, Dict, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from . import digits

FRAMES, SIDE, DIGIT_SIDE = 6, 48, 16
SPEEDS = (4.0, 6.4)  # pixels a frame along each axis that moves
# Name -> pixels (x, y) per unit of speed; y points down, as rows do.
DIRECTIONS = {
    "right": (1, 0), "down-right": (1, 1), "down": (0, 1), "down-left": (-1, 1),
    "left": (-1, 0), "up-left": (-1, -1), "up": (0, -1), "up-right": (1, -1),
}  # fmt: skip
LABELS = list(DIRECTIONS)
CLIPS_PER_EPOCH = 2048
CLIPS_PER_HELD_OUT_DIGIT = 2


def render_clip(digit: int, direction: str, generator: random.Random) -> np.ndarray:
    """Draws digit number `digit` on a straight way that stays inside the frame, at a random place and speed.

    Returns:
        (T, H, W) uint8, white on black.
    """
    speed = generator.uniform(*SPEEDS)
    way = speed * (FRAMES - 1)
    starts = []
    for sign in DIRECTIONS[direction]:
        place = generator.uniform(0, SIDE - DIGIT_SIDE - way * abs(sign))
        starts.append(place + way if sign < 0 else place)
    clip = np.zeros((FRAMES, SIDE, SIDE), np.uint8)
    for frame in range(FRAMES):
        left, top = (round(start + sign * speed * frame) for start, sign in zip(starts, DIRECTIONS[direction]))
        clip[frame, top : top + DIGIT_SIDE, left : left + DIGIT_SIDE] = _enlarged(digit)
    return clip


@lru_cache(maxsize=None)
def _enlarged(digit: int) -> np.ndarray:
    small = Image.fromarray(digits.load()[0][digit])
    return np.asarray(small.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC))


def residual_of(frames: torch.Tensor) -> torch.Tensor:
    """What changed since the frame before, the signal that chooses patches; nothing has, in the first frame.

    The channels' differences are summed up without their signs: a red square that turns green has changed.

    Args:
        frames: (B, C, T, H, W).

    Returns:
        (B, 1, T, H, W) float32.
    """
    change = frames.float().diff(dim=2).abs().sum(dim=1, keepdim=True)
    return torch.cat((torch.zeros_like(change[:, :, :1]), change), dim=2)


def residual_inputs(batch: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """What restricts the model to the patches that changed most."""
    return {"visible_indices": residual_of(batch["pixel_values"])}


def to_pixel_values(clips: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """What the CLIP image processor makes of every frame without resizing, for all frames at once.

    Args:
        clips: (B, T, H, W) uint8.
        mean, std: the processor's `image_mean` and `image_std`, one per channel.

    Returns:
        (B, C, T, H, W) float32.
    """
    grey = torch.from_numpy(clips).float()[:, None] / 255
    shape = (1, -1, 1, 1, 1)
    return (grey - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def video_processor_settings(processor: Any, config: Any) -> Dict[str, Any]:
    """What a video processor must be told to read such clips as training does: frame t at place t.

    Args:
        processor: the image processor, whose means and deviations `collate` takes.
        config: of the model, which keeps `max_visible_patches` of a residual.
    """
    return {
        "num_frames": FRAMES,
        "num_places": FRAMES,
        "size": SIDE,
        "max_visible_patches": config.max_visible_patches,
        "selection": "difference",
        "keep_first_frame": False,
        "image_mean": np.broadcast_to(processor.image_mean, 3).tolist(),
        "image_std": np.broadcast_to(processor.image_std, 3).tolist(),
    }


class TrainingClips(Dataset):
    """Clips of the training digits, new ones in every epoch, each decided by seed, epoch and index alone."""

    def __init__(self, seed: int, size: int = CLIPS_PER_EPOCH):
        self.seed, self.size, self.epoch = seed, size, 0
        self.digits = digits.split()[0]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        generator = random.Random(f"clip {self.seed} {self.epoch} {index}")
        label = index % len(LABELS)
        return {"clip": render_clip(generator.choice(self.digits), LABELS[label], generator), "labels": label}


class HeldOutClips(Dataset):
    """The same clips for everyone: every digit of a held-out split in opposite directions."""

    def __init__(self, held_out: Sequence[int]):
        self.items = [
            (digit, (place + turn * len(LABELS) // CLIPS_PER_HELD_OUT_DIGIT) % len(LABELS))
            for place, digit in enumerate(held_out)
            for turn in range(CLIPS_PER_HELD_OUT_DIGIT)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        digit, label = self.items[index]
        return {
            "clip": render_clip(digit, LABELS[label], random.Random(f"held-out clip {digit} {label}")),
            "labels": label,
        }


def collate(items: Sequence[dict], mean: Sequence[float], std: Sequence[float]) -> dict:
    """Items -> `pixel_values` (B, C, T, H, W) and `labels` (B,)."""
    pixel_values = to_pixel_values(np.stack([item["clip"] for item in items]), mean, std)
    return {"pixel_values": pixel_values, "labels": torch.tensor([item["labels"] for item in items])}
