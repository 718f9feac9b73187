"""Saved folders in a fresh process that cannot see the repository: processors through the Auto classes, and both pipelines."""

import json
import os
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from byteformer import ByteFormerConfig, ByteFormerFeatureExtractor, ByteFormerForAudioClassification, ByteFormerForImageClassification, ByteFormerImageProcessor

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "conv_kernel_size": 8, "window_sizes": [32], "window_shifts": [0, 16],
    "downsample": [True, False], "max_position_embeddings": 50000,
}  # fmt: skip
RATE = 16000

# What a user does with the folders; answers go to stdout as one line of JSON.
USER = '''
import json, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, pipeline

speech = np.load("speech.npy")
answers = {"repository": [name for name in sys.modules if name.split(".")[0] == "byteformer"]}
processor = AutoImageProcessor.from_pretrained("image-model", trust_remote_code=True)
answers["ids"] = processor(Image.open("photo.jpg"), return_tensors="np")["input_ids"][0].tolist()
extractor = AutoFeatureExtractor.from_pretrained("audio-model", trust_remote_code=True)
answers["wav"] = extractor(speech, sampling_rate=16000, return_tensors="np")["input_ids"][0].tolist()

def scores(answer):
    return {entry["label"]: entry["score"] for entry in answer}

pipe = pipeline("image-classification", model="image-model", trust_remote_code=True)
answers["image"] = scores(pipe(Image.open("photo.jpg"), top_k=7))
answers["image path"] = scores(pipe("photo.jpg", top_k=7))
answers["image bytes"] = scores(pipe(Path("photo.jpg").read_bytes()[:9000], top_k=7))
answers["image batch"] = scores(pipe(["photo.jpg", "photo.jpg"], top_k=7, batch_size=2)[1])
pipe.image_processor.file_encoding = None
answers["image path undecoded"] = scores(pipe("small.png", top_k=7))
json.loads(pipe.model.config.to_json_string())
pipe.model.save_pretrained("image-model-again")
pipe.image_processor.save_pretrained("image-model-again")
again = pipeline("image-classification", model="image-model-again", trust_remote_code=True)
answers["saved again"] = scores(again("small.png", top_k=7))

pipe = pipeline("audio-classification", model="audio-model", trust_remote_code=True)
answers["array"] = scores(pipe(speech, top_k=5))
answers["dictionary"] = scores(pipe({"array": speech, "sampling_rate": 16000}, top_k=5))
answers["wav path"] = scores(pipe("speech.wav", top_k=5))
answers["wav Path"] = scores(pipe(Path("speech.wav"), top_k=5))
answers["wav bytes"] = scores(pipe(Path("speech.wav").read_bytes(), top_k=5))
try:
    pipe("no-such.wav")
except ValueError as error:
    answers["missing"] = str(error)
pipe.feature_extractor.file_encoding = "MP3"
answers["mp3 path"] = scores(pipe("word.mp3", top_k=5))
answers["files"] = sorted(path.name for path in Path("image-model-again").iterdir())
print(json.dumps(answers))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    torch.manual_seed(0)
    ByteFormerForImageClassification(ByteFormerConfig(num_labels=7, **SIZES)).save_pretrained(folder / "image-model")
    ByteFormerImageProcessor(size=64, crop_size=48, file_encoding="JPEG", quality=60).save_pretrained(folder / "image-model")
    ByteFormerForAudioClassification(ByteFormerConfig(num_labels=5, **SIZES)).save_pretrained(folder / "audio-model")
    ByteFormerFeatureExtractor().save_pretrained(folder / "audio-model")
    photo = Image.fromarray(load_sample_images().images[0])
    photo.save(folder / "photo.jpg", quality=90)
    photo.resize((16, 16)).save(folder / "small.png")
    samples = (np.sin(np.arange(RATE // 4) * 0.2) * 2**14).astype(np.int16)
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    np.save(folder / "speech.npy", (samples / 2.0**15).astype(np.float32))  # what any audio library reads from the file
    (folder / "word.mp3").write_bytes(b"ID3\x04" + bytes(range(256)) * 4)
    return folder


@pytest.fixture(scope="module")
def answers(folder):
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("HF_")}
    environment = {**kept, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""}  # no ffmpeg to lean on
    done = subprocess.run([sys.executable, "-c", USER], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@torch.no_grad()
def scores(model, inputs):
    probabilities = model.eval()(**inputs).logits.softmax(-1)[0]
    return {model.config.id2label[index]: probability for index, probability in enumerate(probabilities.tolist())}


def assert_same_scores(answer, expected):
    assert answer.keys() == expected.keys()
    assert max(abs(answer[label] - expected[label]) for label in expected) < 1e-5


def test_the_process_cannot_see_the_repository(answers):
    assert answers["repository"] == []


def test_processors_through_the_auto_classes(folder, answers):
    ids = ByteFormerImageProcessor.from_pretrained(folder / "image-model")(Image.open(folder / "photo.jpg"), return_tensors="np")["input_ids"]
    assert answers["ids"] == ids[0].tolist()
    wav = ByteFormerFeatureExtractor()(np.load(folder / "speech.npy"), return_tensors="np")["input_ids"]
    assert answers["wav"] == wav[0].tolist()


@pytest.mark.parametrize("kind", ["image", "image path", "image batch"])
def test_image_pipeline_runs_the_recipe_on_images_and_paths(folder, answers, kind):
    model = ByteFormerForImageClassification.from_pretrained(folder / "image-model")
    processor = ByteFormerImageProcessor.from_pretrained(folder / "image-model")
    assert_same_scores(answers[kind], scores(model, processor(Image.open(folder / "photo.jpg"), return_tensors="pt")))


@pytest.mark.parametrize("kind, name, length", [("image bytes", "photo.jpg", 9000), ("image path undecoded", "small.png", None), ("saved again", "small.png", None)])
def test_image_pipeline_classifies_undecoded_bytes(folder, answers, kind, name, length):
    model = ByteFormerForImageClassification.from_pretrained(folder / "image-model")
    data = (folder / name).read_bytes()[:length]
    assert_same_scores(answers[kind], scores(model, ByteFormerImageProcessor()(data, return_tensors="pt")))


@pytest.mark.parametrize("kind", ["array", "dictionary", "wav path", "wav Path", "wav bytes"])
def test_audio_pipeline_runs_the_recipe_on_arrays_and_wav_files_without_ffmpeg(folder, answers, kind):
    model = ByteFormerForAudioClassification.from_pretrained(folder / "audio-model")
    inputs = ByteFormerFeatureExtractor()(np.load(folder / "speech.npy"), sampling_rate=RATE, return_tensors="pt")
    assert_same_scores(answers[kind], scores(model, inputs))


def test_audio_pipeline_classifies_mp3_files_as_they_are(folder, answers):
    model = ByteFormerForAudioClassification.from_pretrained(folder / "audio-model")
    assert_same_scores(answers["mp3 path"], scores(model, ByteFormerFeatureExtractor()(folder / "word.mp3", return_tensors="pt")))


def test_audio_pipeline_names_a_missing_file(answers):
    assert answers["missing"].startswith("no such file: 'no-such.wav'")


def test_saving_from_a_loaded_folder_keeps_the_code(answers):
    assert {"image_processing_byteformer.py", "modeling_byteformer.py", "configuration_byteformer.py"} <= set(answers["files"])
