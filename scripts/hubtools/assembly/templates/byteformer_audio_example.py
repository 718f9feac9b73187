"""Loads the model beside this file and classifies a sound from the bytes of its file.

    python example_usage.py [SOUND]
"""

import sys
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

FOLDER = str(Path(__file__).resolve().parent)

model = AutoModelForAudioClassification.from_pretrained(FOLDER, trust_remote_code=True).eval()
feature_extractor = AutoFeatureExtractor.from_pretrained(FOLDER, trust_remote_code=True)

if len(sys.argv) > 1:
    inputs = feature_extractor(Path(sys.argv[1]), return_tensors="pt")
elif feature_extractor.file_encoding == "WAV":
    rate = feature_extractor.sampling_rate
    inputs = feature_extractor(torch.sin(torch.arange(rate) * (440 * 6.2832 / rate)).numpy(), sampling_rate=rate, return_tensors="pt")
else:  # this model reads files as they are
    inputs = feature_extractor(bytes(range(256)) * 4, return_tensors="pt")
with torch.no_grad():
    probabilities = model(**inputs).logits.softmax(-1)[0]
print(f"{inputs['input_ids'].shape[1]} bytes")
for probability, label in zip(*probabilities.topk(min(3, len(probabilities)))):
    print(f"{model.config.id2label[int(label)]}: {probability:.3f}")
