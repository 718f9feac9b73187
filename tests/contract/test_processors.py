"""Processors: CLIP's for LLaVA-ViT, ByteFormer's own through the Auto classes, each with the values recorded in the kit."""

import numpy as np
import pytest
import torch
import transformers
from kit import KIT, auto_image_processor, folder, load, package_class, run
from PIL import Image
from safetensors.torch import load_file

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
BYTEFORMER_IMAGE = ("byteformer_k4_w16", "byteformer_k8_mixed_windows")


def recorded():
    return load_file(KIT / "processed.safetensors")


def image():
    return Image.open(KIT / "image.png").convert("RGB")


def check_pixels(processor):
    size = processor.size["shortest_edge"]
    square = image().crop((0, 0, size, size))  # already of the right size: resizing changes nothing
    pixels = torch.as_tensor(np.asarray(processor(square, return_tensors="np")["pixel_values"]))
    exact = (torch.as_tensor(np.array(square)).permute(2, 0, 1) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    assert pixels.shape == (1, 3, size, size)
    assert torch.allclose(pixels[0].float(), exact, atol=1e-4)
    assert processor(image(), return_tensors="np")["pixel_values"].shape == (1, 3, size, size)
    assert processor([image(), square], return_tensors="pt")["pixel_values"].shape == (2, 3, size, size)


@pytest.mark.parametrize("name", ["llava_vit_base", "llava_vit_image"])
def test_clip_image_processor(name):
    check_pixels(transformers.CLIPImageProcessor.from_pretrained(str(folder(name).path)))


def test_clip_image_processor_through_auto_class(not_applicable):
    check_pixels(auto_image_processor(not_applicable).from_pretrained(str(folder("llava_vit_image").path)))


def test_processed_image_goes_into_the_model():
    source = folder("llava_vit_image")
    inputs = transformers.CLIPImageProcessor.from_pretrained(str(source.path))(image(), return_tensors="pt")
    model = load(source)
    assert run(model, dict(inputs)).logits.shape == (1, model.config.num_labels)


@pytest.mark.parametrize("name", BYTEFORMER_IMAGE)
@pytest.mark.parametrize("origin", ["hub", "package"])
def test_byteformer_image_processor(name, origin, not_applicable):
    source = folder(name)
    if origin == "hub":
        processor = auto_image_processor(not_applicable).from_pretrained(str(source.path), trust_remote_code=True)
    else:
        processor = package_class("byteformer", "ByteFormerImageProcessor").from_pretrained(str(source.path))
    assert type(processor).__name__ == "ByteFormerImageProcessor"
    encoded = processor(image(), return_tensors="pt")
    assert torch.equal(encoded["input_ids"], recorded()[f"{name}.image"])
    file = KIT / "image.png"
    for given in (file.read_bytes(), str(file)):
        ids = processor(given, return_tensors="pt")["input_ids"][0]
        assert bytes(ids[ids < 256].tolist()).startswith(file.read_bytes()[:64])
        assert torch.equal(ids, recorded()[f"{name}.file"][0])
    assert run(load(source), dict(encoded)).logits.shape == (1, 10)


@pytest.mark.parametrize("origin", ["hub", "package"])
def test_byteformer_feature_extractor(origin):
    source = folder("byteformer_k32_sinusoidal")
    if origin == "hub":
        extractor = transformers.AutoFeatureExtractor.from_pretrained(str(source.path), trust_remote_code=True)
    else:
        extractor = package_class("byteformer", "ByteFormerFeatureExtractor").from_pretrained(str(source.path))
    assert type(extractor).__name__ == "ByteFormerFeatureExtractor"
    encoded = extractor(recorded()["wave"].numpy(), sampling_rate=16000, return_tensors="pt")
    assert torch.equal(encoded["input_ids"], recorded()["byteformer_k32_sinusoidal.wave"])
    assert run(load(source), dict(encoded)).logits.shape == (1, 12)
