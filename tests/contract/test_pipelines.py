"""The pipelines take a folder's name and give answers that equal the model's own."""

import wave

import numpy as np
import pytest
import torch
import transformers
from kit import KIT, auto_image_processor, error, folder, load, run
from PIL import Image
from safetensors.torch import load_file
from test_processors import image

RELEASE = tuple(int(part) for part in transformers.__version__.split(".")[:2])


def clip(source):
    return transformers.CLIPImageProcessor.from_pretrained(str(source.path))


def assert_scores(answer, logits):
    """Labels and scores of a pipeline against the softmax of logits."""
    expected = logits.softmax(-1)[0]
    assert min(5, len(expected)) <= len(answer) <= len(expected)  # the audio pipeline's default grew from 5 to all
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)
    for entry in answer:
        index = int(entry["label"].removeprefix("label "))
        assert abs(entry["score"] - expected[index].item()) < 1e-5


def test_image_feature_extraction():
    source = folder("llava_vit_base")
    pipe = transformers.pipeline(
        "image-feature-extraction", model=str(source.path), image_processor=clip(source), trust_remote_code=True
    )
    features = torch.tensor(pipe(image()))
    assert error(features, run(load(source), dict(clip(source)(image(), return_tensors="pt"))).last_hidden_state) < 1e-5


def test_image_feature_extraction_with_the_folders_processor(not_applicable):
    source = folder("llava_vit_base")
    if RELEASE < (4, 54):
        not_applicable("pipeline() finds image processors of built-in models only; image_processor=... works")
    auto_image_processor(not_applicable)
    pipe = transformers.pipeline("image-feature-extraction", model=str(source.path), trust_remote_code=True)
    assert torch.tensor(pipe(image())).shape == (1, 16, 64)


def test_image_classification_llava_vit():
    source = folder("llava_vit_image")
    pipe = transformers.pipeline(
        "image-classification", model=str(source.path), image_processor=clip(source), trust_remote_code=True
    )
    logits = run(load(source), dict(clip(source)(image(), return_tensors="pt"))).logits
    assert_scores(pipe(image()), logits)


@pytest.mark.parametrize("kind", ["image", "path", "jpeg path"])
def test_image_classification_byteformer(kind, tmp_path):
    source = folder("byteformer_k4_w16")
    pipe = transformers.pipeline("image-classification", model=str(source.path), trust_remote_code=True)
    if kind == "jpeg path":
        image().save(tmp_path / "photo.jpg")
        ids = pipe.image_processor(Image.open(tmp_path / "photo.jpg"), return_tensors="pt")["input_ids"]
        answer = pipe(str(tmp_path / "photo.jpg"))
    else:
        ids = load_file(KIT / "processed.safetensors")["byteformer_k4_w16.image"]
        answer = pipe(Image.open(KIT / "image.png") if kind == "image" else str(KIT / "image.png"))
    assert_scores(answer, run(load(source), {"input_ids": ids}).logits)


def audio_pipeline():
    return transformers.pipeline(
        "audio-classification", model=str(folder("byteformer_k32_sinusoidal").path), trust_remote_code=True
    )


@pytest.mark.parametrize("kind", ["array", "dictionary"])
def test_audio_classification(kind):
    processed = load_file(KIT / "processed.safetensors")
    sound = processed["wave"].numpy()
    answer = audio_pipeline()(sound if kind == "array" else {"array": sound, "sampling_rate": 16000})
    model = load(folder("byteformer_k32_sinusoidal"))
    assert_scores(answer, run(model, {"input_ids": processed["byteformer_k32_sinusoidal.wave"]}).logits)


def test_audio_classification_of_a_wav_file(tmp_path):
    file = tmp_path / "sound.wav"
    encoded = load_file(KIT / "processed.safetensors")["byteformer_k32_sinusoidal.wave"][0]
    file.write_bytes(bytes(encoded.tolist()))  # the extractor's bytes are a WAV file of 16-bit samples
    with wave.open(str(file)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
    pipe = audio_pipeline()
    assert pipe(str(file)) == pipe(samples.astype(np.float32) / 32768)
