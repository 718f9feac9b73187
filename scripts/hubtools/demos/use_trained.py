"""What a stranger does with the two trained folders: run in a process of its own that knows transformers, folders and
files.

    python -I use_trained.py DIGITS_FOLDER MOTION_FOLDER OUTPUT

OUTPUT holds `digits/NUMBER-is-CLASS.png` and `clips.safetensors`; `trained.png` is written beside them.
"""

import sys
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, CLIPImageProcessor, pipeline

SHOWN = 8  # digits printed and drawn
BATCH = 60
TILE, GAP, CAPTION = 120, 8, 22  # pixels
SELECTED, HIDDEN, RIGHT, WRONG = (255, 200, 0), (90, 90, 90), (0, 110, 60), (190, 0, 0)
PAPER, INK = (255, 255, 255), (0, 0, 0)


def classify_digits(folder, output):
    """Classifies every PNG file by its name's sake; gives those that the picture shows as (path, truth, answer)."""
    paths = sorted((output / "digits").glob("*-is-*.png"))
    classify = pipeline("image-classification", model=folder, trust_remote_code=True)
    started = time.perf_counter()
    answers = [answer[0] for answer in classify([str(path) for path in paths], top_k=1)]
    seconds = time.perf_counter() - started
    results = [(path, path.stem.split("-is-")[1], answer) for path, answer in zip(paths, answers)]
    for path, truth, answer in results[:SHOWN]:
        print(f"  {path.name}: truth {truth}, prediction {answer['label']} ({answer['score']:.3f})")
    right = sum(truth == answer["label"] for _, truth, answer in results)
    print(
        f"digits from PNG files: {right} of {len(results)} right ({100 * right / len(results):.1f} %) in {seconds:.1f} "
        "s"
    )
    return results[:SHOWN]


def load_clips(path, processor):
    """Pixels (B, 3, T, H, W) as the image processor makes them, what changed since the frame before, and the
    classes."""
    stored = load_file(path)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (processor.image_mean, processor.image_std))
    pixels = (stored["frames"].float()[:, None] / 255 - mean) / std
    return pixels, residual_of(pixels), stored["labels"]


def residual_of(clip):
    """(B, C, T, H, W) -> (B, 1, T, H, W): by how much each pixel has changed since the frame before."""
    residual = torch.zeros_like(clip[:, :1])
    residual[:, :, 1:] = clip.diff(dim=2).abs().sum(dim=1, keepdim=True)
    return residual


@torch.inference_mode()
def classify_motion(model, pixels, residual, labels):
    """Dense and sparse in turns, so that both see the same machine; gives the sparse answers."""
    whole = pixels.shape[2] * (pixels.shape[-1] // model.config.patch_size) ** 2
    ways = {f"all {whole} patches": None, f"the {model.config.max_visible_patches} patches with most change": residual}
    model(pixels[:BATCH])  # the first call pays for set-up
    seconds, answers = dict.fromkeys(ways, 0.0), {way: [] for way in ways}
    for start in range(0, len(pixels), BATCH):
        part = slice(start, start + BATCH)
        for way, signal in ways.items():
            started = time.perf_counter()
            logits = model(pixels[part], visible_indices=None if signal is None else signal[part]).logits
            seconds[way] += time.perf_counter() - started
            answers[way].append(logits.argmax(-1))
    for way in ways:
        share = (torch.cat(answers[way]) == labels).float().mean().item()
        print(f"motion, {way}: {100 * share:.1f} % of {len(labels)} clips right in {seconds[way]:.2f} s")
    dense, sparse = seconds.values()
    print(f"motion, sparse takes {sparse / dense:.2f} of the dense time")
    return torch.cat(answers[way])


def selected_patches(residual, model):
    """The patches of one clip that its residual selects: (T, h, w) bool."""
    side = model.config.patch_size
    scores = torch.nn.functional.avg_pool2d(residual[0], side)
    chosen = scores.flatten().sort(descending=True, stable=True).indices[: model.config.max_visible_patches]
    return torch.zeros(scores.numel(), dtype=torch.bool).index_fill(0, chosen, True).view(scores.shape)


def draw(results, frames, chosen, truth, answer):
    """Row one: digits and their predictions. Row two: the frames of a clip. Row three: what the sparse model sees of
    it."""
    row = TILE + GAP + CAPTION
    picture = Image.new("RGB", (GAP + SHOWN * (TILE + GAP), 3 * row + GAP), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for column, (path, is_digit, said) in enumerate(results):
        left = GAP + column * (TILE + GAP)
        picture.paste(Image.open(path).resize((TILE, TILE), Image.Resampling.NEAREST), (left, GAP))
        colour = RIGHT if said["label"] == is_digit else WRONG
        pen.text((left, GAP + TILE + 2), f"{said['label']} ({100 * said['score']:.0f} %)", colour, font)
    for column, (frame, patches) in enumerate(zip(frames, chosen)):
        left = GAP + column * (TILE + GAP)
        picture.paste(enlarged(frame), (left, GAP + row))
        picture.paste(outlined(enlarged(frame), patches), (left, GAP + 2 * row))
    pen.text((GAP, GAP + row + TILE + 2), f"a clip of {len(frames)} frames; truth: {truth}", INK, font)
    caption = f"the {int(chosen.sum())} of {chosen.numel()} patches with most change; prediction: {answer}"
    pen.text((GAP, GAP + 2 * row + TILE + 2), caption, RIGHT if truth == answer else WRONG, font)
    return picture


def enlarged(frame):
    return Image.fromarray(frame.numpy()).convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)


def outlined(picture, patches):
    """The selected patches in a frame, the others in grey."""
    pen, side = ImageDraw.Draw(picture), TILE // len(patches)
    for row, line in enumerate(patches.tolist()):
        for column, selected in enumerate(line):
            box = (column * side, row * side, (column + 1) * side - 1, (row + 1) * side - 1)
            pen.rectangle(box, outline=SELECTED) if selected else pen.rectangle(box, fill=HIDDEN)
    return picture


def main(digits_folder, motion_folder, output):
    torch.set_num_threads(1)  # models this small: threads that wait for each other cost more than they give
    output = Path(output)
    results = classify_digits(digits_folder, output)
    model = AutoModelForVideoClassification.from_pretrained(motion_folder, trust_remote_code=True).eval()
    pixels, residual, labels = load_clips(
        output / "clips.safetensors", CLIPImageProcessor.from_pretrained(motion_folder)
    )
    answers = classify_motion(model, pixels, residual, labels)
    frames = load_file(output / "clips.safetensors")["frames"][0]
    names = model.config.id2label
    picture = draw(results, frames, selected_patches(residual[0], model), names[int(labels[0])], names[int(answers[0])])
    picture.save(output / "trained.png")
    print(f"wrote {output / 'trained.png'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
