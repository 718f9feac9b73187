"""Loads the model beside this file and encodes an image, a clip, and a quarter of the clip's patches.

python example_usage.py [IMAGE]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, CLIPImageProcessor

FOLDER = str(Path(__file__).absolute().parent)

model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = CLIPImageProcessor.from_pretrained(FOLDER)

image = Image.open(sys.argv[1]) if len(sys.argv) > 1 else Image.effect_mandelbrot((640, 480), (-3, -2.5, 2, 2.5), 100)
pixel_values = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"].to(model.dtype)

patch = model.config.patch_size
side = patch * min(8, *(length // patch for length in pixel_values.shape[-2:]))
frames = [pixel_values.roll(-2 * step * patch, dims=-1)[..., :side, :side] for step in range(4)]
clip = torch.stack(frames, dim=2)  # the image pushed to the left, two patches a frame: (1, C, 4, side, side)
quarter = torch.arange(0, 4 * (side // patch) ** 2, 4).unsqueeze(0)

with torch.no_grad():
    for name, output in (
        ("image", model(pixel_values)),
        ("clip", model(clip)),
        ("a quarter of the clip", model(clip, visible_indices=quarter)),
    ):
        patches = output.last_hidden_state
        print(f"{name}: {tuple(patches.shape)}, finite: {bool(torch.isfinite(patches).all())}")
