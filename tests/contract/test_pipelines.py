"""The pipelines take a folder's name and give answers that equal the model's own."""

import pytest
import torch
import transformers
from kit import KIT, error, folder, load, run
from PIL import Image
from safetensors.torch import load_file
from test_processors import auto_image_processor, image


def clip(source):
    return transformers.CLIPImageProcessor.from_pretrained(str(source.path))


def assert_scores(answer, logits):
    """Labels and scores of a pipeline against the softmax of logits."""
    expected = logits.softmax(-1)[0]
    assert min(5, len(expected)) <= len(answer) <= len(expected)  # the audio pipeline's default grew from 5 to all
    for entry, index in zip(answer, expected.argsort(descending=True).tolist()):
        assert entry["label"] == f"label {index}"
        assert abs(entry["score"] - expected[index].item()) < 1e-5


def test_image_feature_extraction():
    source = folder("llava_vit_base")
    pipe = transformers.pipeline("image-feature-extraction", model=str(source.path), image_processor=clip(source), trust_remote_code=True)
    features = torch.tensor(pipe(image()))
    assert error(features, run(load(source), dict(clip(source)(image(), return_tensors="pt"))).last_hidden_state) < 1e-5


def test_image_feature_extraction_with_the_folders_processor(not_applicable):
    source = folder("llava_vit_base")
    auto_image_processor(source, not_applicable)
    pipe = transformers.pipeline("image-feature-extraction", model=str(source.path), trust_remote_code=True)
    assert torch.tensor(pipe(image())).shape == (1, 16, 64)


def test_image_classification_llava_vit():
    source = folder("llava_vit_image")
    pipe = transformers.pipeline("image-classification", model=str(source.path), image_processor=clip(source), trust_remote_code=True)
    logits = run(load(source), dict(clip(source)(image(), return_tensors="pt"))).logits
    assert_scores(pipe(image()), logits)


@pytest.mark.parametrize("kind", ["image", "path"])
def test_image_classification_byteformer(kind):
    source = folder("byteformer_k4_w16")
    pipe = transformers.pipeline("image-classification", model=str(source.path), trust_remote_code=True)
    ids = load_file(KIT / "processed.safetensors")["byteformer_k4_w16.image"]
    answer = pipe(Image.open(KIT / "image.png") if kind == "image" else str(KIT / "image.png"))
    assert_scores(answer, run(load(source), {"input_ids": ids}).logits)


@pytest.mark.parametrize("kind", ["array", "dictionary"])
def test_audio_classification(kind):
    source = folder("byteformer_k32_sinusoidal")
    pipe = transformers.pipeline("audio-classification", model=str(source.path), trust_remote_code=True)
    processed = load_file(KIT / "processed.safetensors")
    wave = processed["wave"].numpy()
    answer = pipe(wave if kind == "array" else {"array": wave, "sampling_rate": 16000})
    assert_scores(answer, run(load(source), {"input_ids": processed["byteformer_k32_sinusoidal.wave"]}).logits)
