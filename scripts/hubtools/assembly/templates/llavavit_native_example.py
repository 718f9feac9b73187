"""Loads the model beside this file and classifies images at their own size and aspect, all of them in one forward.

python example_usage.py [IMAGE ...]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageClassification, AutoProcessor

FOLDER = str(Path(__file__).absolute().parent)

model = AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(FOLDER, trust_remote_code=True)

images = [Image.open(path) for path in sys.argv[1:]]
if not images:
    images = [Image.effect_mandelbrot(size, (-3, -2.5, 2, 2.5), 100) for size in ((640, 320), (200, 300))]
inputs = processor(images=images, return_tensors="pt").to(model.dtype)
with torch.no_grad():
    probabilities = model(**inputs).logits.float().softmax(-1)
for image, (_, rows, columns), row in zip(images, inputs["grid_thw"].tolist(), probabilities):
    best = zip(*row.topk(min(3, len(row))))
    answers = ", ".join(f"{model.config.id2label[int(label)]} {probability:.3f}" for probability, label in best)
    print(f"{image.width} x {image.height} pixels, {rows} x {columns} patches: {answers}")
