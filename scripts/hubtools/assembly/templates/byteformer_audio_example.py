"""Loads the model beside this file and classifies a sound from the bytes of its file.

    python example_usage.py [SOUND]

Without one, the sound is a second of a tone, or of silence where the model reads MP3.
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
    tone = torch.sin(torch.arange(rate) * (440 * 6.2832 / rate)).numpy()
    inputs = feature_extractor(tone, sampling_rate=rate, return_tensors="pt")
else:
    silence = b"\xff\xfb\x90\x00" + bytes(413)  # a frame of an MP3 file, 26 ms: its header, and nothing to hear
    inputs = feature_extractor(38 * silence, return_tensors="pt")
# A model for small files takes fewer bytes than this may have.
longest = model.config.max_position_embeddings * model.config.conv_kernel_size // 2
inputs = {name: values[:, :longest] for name, values in inputs.items()}
with torch.no_grad():
    probabilities = model(**inputs).logits.softmax(-1)[0]
print(f"{inputs['input_ids'].shape[1]} bytes")
for probability, label in zip(*probabilities.topk(min(3, len(probabilities)))):
    print(f"{model.config.id2label[int(label)]}: {probability:.3f}")
