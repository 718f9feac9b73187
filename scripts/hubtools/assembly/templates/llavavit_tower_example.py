"""Loads the model beside this file and encodes an image, a wide part of it and a clip in one forward.

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
pixel_values = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0].to(model.dtype)

merges = model.config.out_hidden_size is not None
block = model.config.patch_size * (model.config.spatial_merge_size if merges else 1)
wide = pixel_values[:, :block]
clip = torch.stack([pixel_values.roll(-2 * step * block, dims=-1)[:, :block, :block] for step in range(6)], dim=1)
packed = model.pack([pixel_values, wide, clip])  # each attends to itself alone

with torch.no_grad():
    output = model(**packed)
for name, patches in zip(("image", "wide part", "clip"), model.unpack(output.last_hidden_state, packed)):
    print(f"{name}: {tuple(patches.shape)}, finite: {bool(torch.isfinite(patches).all())}")
if merges:
    print(f"merged: {tuple(output.merged_states.shape)}, finite: {bool(torch.isfinite(output.merged_states).all())}")
