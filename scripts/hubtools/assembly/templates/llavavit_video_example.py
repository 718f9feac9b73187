"""Loads the model beside this file and classifies a clip: from all patches, then from those in which most changes.

    python example_usage.py [CLIP | FRAME FRAME ...]

CLIP is a video file, which PyAV reads (pip install av). FRAMEs are pictures, in order; they need no PyAV. Without any,
the clip is a bright square that moves to the right.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForVideoClassification, AutoProcessor

FOLDER = str(Path(__file__).absolute().parent)

model = AutoModelForVideoClassification.from_pretrained(FOLDER, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(FOLDER, trust_remote_code=True)

given = sys.argv[1:]
video = given[0] if len(given) == 1 else [Image.open(path).convert("RGB") for path in given]
if not given:
    side = processor.size
    video = [Image.new("RGB", (side, side)) for step in range(6)]
    for step, frame in enumerate(video):
        left, top = (1 + step) * side // 10, side // 3
        frame.paste("white", (left, top, left + side // 4, top + side // 4))

# "codec" (the default) needs PyAV; what differs from the frame before is found without.
for selection, which in (("none", "all {} patches"), ("difference", "the {} patches with most change")):
    inputs = processor(videos=video, return_tensors="pt", selection=selection).to(model.dtype)
    with torch.no_grad():
        probabilities = model(**inputs).logits.float().softmax(-1)[0]
    best = zip(*probabilities.topk(min(3, len(probabilities))))
    answers = [f"{model.config.id2label[int(label)]} {probability:.3f}" for probability, label in best]
    print(f"{which.format(inputs['visible_indices'].shape[1])}: {', '.join(answers)}")
