"""What a stranger does with the Hub folder: run in a process of its own that knows transformers and the folder, nothing
else.

python -I use_folder.py FOLDER OUTPUT PHOTO...
"""

import sys
import time
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, CLIPImageProcessor

FRAMES, SIDE = 16, 224


def load(folder):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    return model, CLIPImageProcessor.from_pretrained(folder)


@torch.no_grad()
def encode_photos(model, processor, photos, output):
    """Prints shapes and pooled similarity, and writes a picture of the features beside each photograph."""
    images = [Image.open(path).convert("RGB") for path in photos]
    pixel_values = processor(images, return_tensors="pt")["pixel_values"]
    result = model(pixel_values)
    print(
        f"photographs: pixels {tuple(pixel_values.shape)} -> patches {tuple(result.last_hidden_state.shape)}, pooled "
        f"{tuple(result.pooler_output.shape)}"
    )
    print(f"pooled similarity of {photos[0].stem} and {photos[1].stem}: {similarity(*result.pooler_output):.4f}")
    for path, pixels, patches in zip(photos, pixel_values, result.last_hidden_state):
        picture = output / f"{path.stem}_features.png"
        beside(processor, pixels, patches, model.config.patch_size).save(picture)
        print(f"wrote {picture}")
    return pixel_values, result.pooler_output


@torch.no_grad()
def encode_pan(model, photo, pooled):
    """A pan over a photograph as video: all patches, then only those in which most changes from frame to frame."""
    clip = pan(photo)
    side = SIDE // model.config.patch_size
    total = FRAMES * side**2
    positions = grid_positions(side)
    residual = residual_of(clip)
    dense, dense_time = timed(lambda: model(clip, patch_positions=positions))
    model.config.max_visible_patches = total // 4
    sparse, sparse_time = timed(lambda: model(clip, visible_indices=residual))
    print(f"pan, dense: {tuple(clip.shape)} -> {tuple(dense.last_hidden_state.shape)} in {dense_time:.2f} s")
    print(f"pan, quarter with most change: -> {tuple(sparse.last_hidden_state.shape)} in {sparse_time:.2f} s")
    print(f"pooled similarity, dense and sparse pan: {similarity(dense.pooler_output[0], sparse.pooler_output[0]):.4f}")
    print(f"pooled similarity, dense pan and its photograph: {similarity(dense.pooler_output[0], pooled):.4f}")


def pan(photo):
    """(C, H, W) -> (1, C, FRAMES, SIDE, SIDE): a window that moves over the photograph from its left to its right
    edge."""
    lefts = torch.linspace(0, photo.shape[-1] - SIDE, FRAMES).long().tolist()
    top = (photo.shape[-2] - SIDE) // 2
    return torch.stack([photo[:, top : top + SIDE, left : left + SIDE] for left in lefts], dim=1).unsqueeze(0)


def residual_of(clip):
    """(B, C, T, H, W) -> (B, 1, T, H, W): by how much each pixel has changed since the frame before."""
    residual = torch.zeros_like(clip[:, :1])
    residual[:, :, 1:] = clip.diff(dim=2).abs().sum(dim=1, keepdim=True)
    return residual


def grid_positions(side):
    """(1, FRAMES * side * side, 3): (t, row, column) with the frames spread over the virtual grid of 64."""
    axes = (torch.linspace(0, 63, FRAMES).long(), torch.arange(side), torch.arange(side))
    return torch.cartesian_prod(*axes).unsqueeze(0)


def similarity(first, second):
    return torch.nn.functional.cosine_similarity(first, second, dim=0).item()


def timed(function):
    started = time.perf_counter()
    return function(), time.perf_counter() - started


def beside(processor, pixels, patches, patch_size):
    """The photograph, and the first three principal components of its patch features as red, green and blue."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    photo = to_image(pixels * std + mean)
    centred = patches - patches.mean(dim=0)
    components = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:3].T
    low, high = components.quantile(0.02, dim=0), components.quantile(0.98, dim=0)
    rows, columns = (size // patch_size for size in pixels.shape[-2:])
    colours = ((components - low) / (high - low)).T.reshape(3, rows, columns)
    picture = Image.new("RGB", (2 * photo.width, photo.height))
    picture.paste(photo, (0, 0))
    picture.paste(to_image(colours).resize(photo.size, Image.Resampling.NEAREST), (photo.width, 0))
    return picture


def to_image(channels):
    """(3, H, W) in [0, 1] -> PIL."""
    return Image.fromarray((channels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def main(folder, output, *photos):
    model, processor = load(folder)
    pixel_values, pooled = encode_photos(model, processor, [Path(photo) for photo in photos], Path(output))
    encode_pan(model, pixel_values[0], pooled[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
