"""Loads the model beside this file and classifies an image from the bytes of its file.

python example_usage.py [IMAGE]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

FOLDER = str(Path(__file__).absolute().parent)

model = AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(FOLDER, trust_remote_code=True)

if processor.file_encoding is None:  # this model reads files as they are
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else bytes(range(256)) * 4
else:
    source = (
        Image.open(sys.argv[1])
        if len(sys.argv) > 1
        else Image.effect_mandelbrot((320, 240), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    )
inputs = processor(source, return_tensors="pt")
# A model for small files takes fewer bytes than this may have.
longest = model.config.max_position_embeddings * model.config.conv_kernel_size // 2
inputs = {name: values[:, :longest] for name, values in inputs.items()}
with torch.no_grad():
    probabilities = model(**inputs).logits.softmax(-1)[0]
print(f"{inputs['input_ids'].shape[1]} bytes")
for probability, label in zip(*probabilities.topk(min(3, len(probabilities)))):
    print(f"{model.config.id2label[int(label)]}: {probability:.3f}")
