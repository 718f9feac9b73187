"""Loads the model beside this file and classifies a clip: from all patches, then from those in which most changes.

    python example_usage.py [FRAME FRAME ...]

Each FRAME is a picture, in order. Without any, the clip is a bright square that moves to the right.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForVideoClassification, CLIPImageProcessor

FOLDER = str(Path(__file__).resolve().parent)

model = AutoModelForVideoClassification.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = CLIPImageProcessor.from_pretrained(FOLDER)

frames = [Image.open(path).convert("RGB") for path in sys.argv[1:]]
if not frames:
    side = model.config.image_size
    frames = [Image.new("RGB", (side, side)) for step in range(6)]
    for step, frame in enumerate(frames):
        left, top = (1 + step) * side // 10, side // 3
        frame.paste("white", (left, top, left + side // 4, top + side // 4))

pixel_values = processor(frames, return_tensors="pt")["pixel_values"].to(model.dtype)  # (T, C, H, W)
clip = pixel_values.transpose(0, 1).unsqueeze(0)  # (1, C, T, H, W)
residual = torch.zeros_like(clip[:, :1])  # what changed since the frame before; nothing has, in the first one
residual[:, :, 1:] = clip.diff(dim=2).abs().sum(dim=1, keepdim=True)

height, width = (length // model.config.patch_size for length in clip.shape[-2:])
patches = clip.shape[2] * height * width
kept = min(model.config.max_visible_patches, patches)
ways = {f"all {patches} patches": None, f"the {kept} patches with most change": residual}
with torch.no_grad():
    for way, signal in ways.items():
        probabilities = model(clip, visible_indices=signal).logits.float().softmax(-1)[0]
        best = zip(*probabilities.topk(min(3, len(probabilities))))
        answers = [f"{model.config.id2label[int(label)]} {probability:.3f}" for probability, label in best]
        print(f"{way}: {', '.join(answers)}")
