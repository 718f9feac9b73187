"""Case video-digits: what a selection is worth to a model, when the camera pans.

The moving digits of `finetune.py` before a texture that pans 2 to 6 pixels a frame, in any direction. The same small model
is trained on an eighth of the patches, once with each selection, with the same weights, clips, order and steps; then it
tells the direction of digits that it has not seen.
"""

import random
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch

from ..assembly.recipes import load_recipe
from ..clips import direction, texture
from ..finetuning import digits, moving_digits
from ..packages import package_named

RECIPE = "llava-vit-moving-digits"
SELECTIONS = ("codec", "difference", "random")
BATCH, LEARNING_RATE, WARMUP = 64, 3e-3, 0.1

Clips = Tuple[np.ndarray, torch.Tensor]  # (N, T, S, S) uint8 and labels (N,)
Chosen = Dict[str, torch.Tensor]  # what else the model takes, (N, ...)


def measure(repeats: int, threads: int, clips: int = 4096, steps: int = 800, held_out: int = 720) -> Dict[str, object]:
    """Accuracy with each selection, on the same held-out clips. Nothing is timed or repeated."""
    torch.set_num_threads(threads)
    train = panned(list(moving_digits.TrainingClips(0, clips)[index] for index in range(clips)), seed=1)
    test = panned(list(moving_digits.HeldOutClips(digits.split()[2]))[:held_out], seed=2)
    budget = train[0][0].size // load_recipe(RECIPE).build_model().config.patch_size ** 2 // 8
    accuracy = {}
    for selection in SELECTIONS:
        model = trained(train, chosen_patches(train[0], selection, budget), steps)
        accuracy[selection] = accuracy_of(model, test, chosen_patches(test[0], selection, budget))
    return {"clips": clips, "steps": steps, "held_out": len(test[1]), "patches": budget, "accuracy": accuracy}


def panned(items: Sequence[dict], seed: int) -> Clips:
    """Puts a panning texture behind each clip's digit."""
    generator = np.random.default_rng(seed)
    clips = np.stack([panned_clip(item["clip"], generator) for item in items])
    return clips, torch.tensor([item["labels"] for item in items])


def panned_clip(clip: np.ndarray, generator) -> np.ndarray:
    frames, size = clip.shape[:2]
    velocity = direction(generator) * generator.uniform(2, 6)
    reach = 3 * frames + 1
    wide = texture(generator, size + 2 * reach, size + 2 * reach, generator.uniform(1, 3))[..., 0]
    behind = np.empty(clip.shape)
    for number in range(frames):
        top, left = np.rint(reach + velocity * (number - frames / 2)).astype(int)
        behind[number] = wide[top : top + size, left : left + size]
    ink = clip / 255
    return np.rint(behind * (1 - ink) + clip * ink).astype(np.uint8)


def chosen_patches(clips: np.ndarray, selection: str, budget: int) -> Chosen:
    """`visible_indices` (N, n) and `patch_positions` (N, n, 3) of each clip; by lot where the selection is "random"."""
    patch_size = load_recipe(RECIPE).build_model().config.patch_size
    processor = package_named("llavavit").load().LlavaViTVideoProcessor(
        num_frames=clips.shape[1], size=clips.shape[2], patch_size=patch_size, max_visible_patches=budget,
        selection="none" if selection == "random" else selection,
    )  # fmt: skip
    lots, found = random.Random(3), []
    for clip in clips:
        made = processor(videos=np.repeat(clip[..., None], 3, axis=-1), return_tensors="pt")
        made = {name: made[name][0] for name in ("visible_indices", "patch_positions")}
        if selection == "random":
            places = sorted(lots.sample(range(len(made["visible_indices"])), budget))
            made = {name: values[places] for name, values in made.items()}
        found.append(made)
    return {name: torch.stack([made[name] for made in found]) for name in found[0]}


def batch_of(clips: np.ndarray, chosen: Chosen, indices: List[int]) -> Dict[str, torch.Tensor]:
    processor = package_named("llavavit").load().LlavaViTVideoProcessor()
    pixels = moving_digits.to_pixel_values(clips[indices], processor.image_mean, processor.image_std)
    return {"pixel_values": pixels, **{name: values[indices] for name, values in chosen.items()}}


def trained(train: Clips, chosen: Chosen, steps: int) -> torch.nn.Module:
    """Weights, order of the clips and steps are the same whatever is chosen."""
    clips, labels = train
    torch.manual_seed(0)
    model = load_recipe(RECIPE).build_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARMUP)
    order = random.Random(4)
    for _ in range(steps):
        indices = order.sample(range(len(clips)), min(BATCH, len(clips)))
        loss = model(**batch_of(clips, chosen, indices), labels=labels[indices]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy_of(model: torch.nn.Module, test: Clips, chosen: Chosen) -> float:
    clips, labels = test
    right = 0
    for start in range(0, len(clips), BATCH):
        indices = list(range(start, min(start + BATCH, len(clips))))
        right += int((model(**batch_of(clips, chosen, indices)).logits.argmax(-1) == labels[indices]).sum())
    return right / len(clips)


def describe(result: Dict[str, object]) -> str:
    shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in result["accuracy"].items())
    return (
        f"video-digits: {result['patches']} patches of a clip, {result['steps']} steps on {result['clips']} panned clips; "
        f"right of {result['held_out']} held-out clips: {shares}"
    )
