"""Loads the model beside this file and encodes an image from the bytes of its file.

python example_usage.py [IMAGE]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

FOLDER = str(Path(__file__).absolute().parent)

model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(FOLDER, trust_remote_code=True)

image = Image.open(sys.argv[1]) if len(sys.argv) > 1 else Image.effect_mandelbrot((320, 240), (-3, -2.5, 2, 2.5), 100)
inputs = processor(image.convert("RGB"), return_tensors="pt")
# A model for small files takes fewer bytes than this may have.
longest = model.config.max_position_embeddings * model.config.conv_kernel_size // 2
inputs = {name: values[:, :longest] for name, values in inputs.items()}
with torch.no_grad():
    output = model(**inputs)
print(f"{inputs['input_ids'].shape[1]} bytes")
print(f"tokens: {tuple(output.last_hidden_state.shape)}, pooled: {tuple(output.pooler_output.shape)}")
