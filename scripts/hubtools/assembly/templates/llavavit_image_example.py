"""Loads the model beside this file and classifies an image.

python example_usage.py [IMAGE]
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageClassification, CLIPImageProcessor

FOLDER = str(Path(__file__).absolute().parent)

model = AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = CLIPImageProcessor.from_pretrained(FOLDER)

image = Image.open(sys.argv[1]) if len(sys.argv) > 1 else Image.effect_mandelbrot((640, 480), (-3, -2.5, 2, 2.5), 100)
pixel_values = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"].to(model.dtype)
with torch.no_grad():
    probabilities = model(pixel_values).logits.float().softmax(-1)[0]
for probability, label in zip(*probabilities.topk(min(3, len(probabilities)))):
    print(f"{model.config.id2label[int(label)]}: {probability:.3f}")
