"""Loads the model beside this file and encodes an image, a clip, and a quarter of the clip's patches.

    python example_usage.py [IMAGE]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, CLIPImageProcessor

FOLDER = str(Path(__file__).resolve().parent)

model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = CLIPImageProcessor.from_pretrained(FOLDER)

image = Image.open(sys.argv[1]) if len(sys.argv) > 1 else Image.effect_mandelbrot((640, 480), (-3, -2.5, 2, 2.5), 100).convert("RGB")
pixel_values = processor(image, return_tensors="pt")["pixel_values"].to(model.dtype)

patch = model.config.patch_size
side = 8 * patch
clip = torch.stack([pixel_values[..., i : i + side, i : i + side] for i in range(0, 32, 8)], dim=2)  # a pan: (1, C, 4, side, side)
quarter = torch.arange(0, 4 * 8 * 8, 4).unsqueeze(0)

with torch.no_grad():
    for name, output in (
        ("image", model(pixel_values)),
        ("clip", model(clip)),
        ("a quarter of the clip", model(clip, visible_indices=quarter)),
    ):
        print(f"{name}: {tuple(output.last_hidden_state.shape)}, finite: {bool(torch.isfinite(output.last_hidden_state).all())}")
