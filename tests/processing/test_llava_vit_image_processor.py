"""LLaVA-ViT's processor of native resolution: sizes, packs, what it takes, what it refuses, and how it is kept."""

import json
import math

import numpy as np
import pytest
import torch
from hubtools.errors import UserError
from hubtools.finetuning.inputs import open_picture
from measure import assert_outputs_close
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from byteformer import image_processing_byteformer
from llavavit import LlavaViTConfig, LlavaViTImageProcessor, LlavaViTModel, LlavaViTVideoProcessor
from llavavit.image_processing_llava_vit import fitting_grid

SMALL = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, patch_size=8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("merger", [{}, {"out_hidden_size": 32}, {"out_hidden_size": 32, "spatial_merge_size": 3}])
def test_images_in_whole_patches_are_packed_as_the_model_packs_them(merger):
    config = LlavaViTConfig(**SMALL, **merger)
    model = LlavaViTModel(config).eval()
    merge = config.spatial_merge_size if merger else 1
    processor = LlavaViTImageProcessor(patch_size=8, merge_size=merge)
    images = [noise(8 * merge * rows, 8 * merge * columns) for rows, columns in ((2, 3), (4, 1), (1, 1))]
    made = processor(images, return_tensors="pt")
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    packed = model.pack([(torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std for image in images])
    assert list(made) == ["pixel_values", "patch_positions", "grid_thw"]
    for name, expected in packed.items():
        assert made[name].dtype == expected.dtype
        assert_outputs_close(made[name], expected)
    with torch.no_grad():
        assert model(**made).pooler_output.shape == (3, 64)


def test_grids_keep_to_the_bound_and_to_the_images_own_shape():
    generator = np.random.default_rng(0)
    for _ in range(2000):
        height, width = (int(extent) for extent in np.exp(generator.uniform(0, math.log(6000), 2)))
        side, most = int(generator.integers(4, 40)), int(generator.integers(1, 2000))
        rows, columns = fitting_grid(height, width, side, most)
        assert 1 <= rows * columns <= most
        scale = min(1, side * math.sqrt(most / (height * width)))
        if min(height, width) * scale >= side and max(height, width) * scale / side <= most:
            # Each side is within a patch of where the image's own shape would have it.
            assert abs(rows - height * scale / side) < 1 and abs(columns - width * scale / side) < 1
            assert rows * columns > 0.4 * min(most, height * width / side**2)
    assert fitting_grid(448, 672, 16, 1176) == (28, 42)  # whole patches within the bound stay as they are
    assert fitting_grid(1000, 1500, 16, 1024) == (26, 39)
    assert fitting_grid(1, 5000, 16, 256) == (1, 256)


def test_an_image_is_the_same_in_every_form_it_comes_in(tmp_path):
    pixels, processor = noise(24, 40), LlavaViTImageProcessor(patch_size=8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")
    lying = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    expected = processor(image)["pixel_values"]
    forms = (
        [image],
        pixels,
        pixels.transpose(2, 0, 1),
        torch.from_numpy(pixels),
        pixels[None],
        str(tmp_path / "image.png"),
        tmp_path / "lying.png",
        Image.open(tmp_path / "lying.png"),
    )
    for form in forms:
        assert np.array_equal(processor(form)["pixel_values"], expected)
    grey = processor(np.full((8, 8), 200, np.uint8), image_mean=(0, 0, 0), image_std=(1, 1, 1))["pixel_values"]
    assert grey.shape == (1, 192) and np.allclose(grey, 200 / 255)
    both = processor([image, pixels[:8]], return_tensors="pt")
    assert both["grid_thw"].tolist() == [[1, 3, 5], [1, 1, 5]] and both["pixel_values"].shape == (20, 192)
    assert processor.preprocess(image, max_num_patches=4)["grid_thw"].tolist() == [[1, 1, 3]]


REFUSED = {
    "a patch size that is none": (lambda make: make(patch_size=0), "patch_size must be a positive integer, got 0"),
    "a bound that is none": (lambda make: make(max_num_patches=2.5), "max_num_patches must be a positive integer"),
    "a bound below a block": (
        lambda make: make(max_num_patches=3, merge_size=2),
        "at least a block of merge_size 2, 4",
    ),
    "a mean of one number": (lambda make: make(image_mean=0.5), "image_mean must be three numbers"),
    "a deviation of zero": (lambda make: make(image_std=(1, 1, 0)), "image_std must be three numbers"),
    "a misspelt argument": (lambda make: make(max_patches=9), "does not know max_patches; known: patch_size"),
    "a misspelt argument of a call": (lambda make: make()(noise(8, 8), size=9), "does not know size"),
    "no images": (lambda make: make()([]), "the list is empty"),
    "a number": (lambda make: make()(7), "must be a PIL image, a file's path, an array or a tensor, got int"),
    "floating point": (lambda make: make()(noise(8, 8) / 255), "pixels must be uint8"),
    "four channels": (lambda make: make()(np.zeros((8, 8, 4), np.uint8)), "pixels must be uint8 (H, W), (H, W, 3)"),
    "16 bits a channel": (lambda make: make()(Image.new("I;16", (8, 8))), "mode 'I;16' has more than 8 bits"),
    "an empty image": (lambda make: make()(Image.new("RGB", (0, 8))), "must not be empty, got 0 x 8"),
    "half precision": (lambda make: make()(torch.zeros(8, 8, 3, dtype=torch.bfloat16)), "pixels must be uint8"),
    "no such file": (lambda make: make()("nowhere.png"), "nowhere.png: cannot be read as an image"),
    "another processor's file": (
        lambda make: LlavaViTImageProcessor.from_dict({"image_processor_type": "CLIPImageProcessor", "size": 224}),
        "preprocessor_config.json is of CLIPImageProcessor, which reads images otherwise",
    ),
}


def test_damaged_files_are_refused_by_name_however_they_are_opened(tmp_path):
    for suffix in ("jpg", "png", "webp"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(noise(64, 64)).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        forms = [path] if suffix == "webp" else [path, Image.open(path)]  # Pillow opens no half of a WebP file
        for form in forms:
            with pytest.raises(ValueError, match=rf"cut\.{suffix}: cannot be (read|decoded)"):
                LlavaViTImageProcessor(patch_size=8)([form])


@pytest.mark.parametrize("error", image_processing_byteformer.PICTURE_ERRORS)
def test_whatever_a_decoder_raises_is_a_refusal_of_the_file(tmp_path, monkeypatch, error):
    def decode(*_):
        raise error("broken")

    noise_file = tmp_path / "noise.png"
    Image.fromarray(noise(8, 8)).save(noise_file)
    monkeypatch.setattr(PngImageFile, "load", decode)
    for form, word in ((noise_file, "read"), (Image.open(noise_file), "decoded")):
        with pytest.raises(ValueError, match=f"noise.png: cannot be {word}.*broken"):
            LlavaViTImageProcessor(patch_size=8)(form)
    with pytest.raises(UserError, match="noise.png cannot be read as a picture"):
        open_picture(noise_file)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError) as error:
        call(LlavaViTImageProcessor)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_saved_alone_and_by_the_video_processor_it_stays_what_it_is(tmp_path):
    processor = LlavaViTImageProcessor(patch_size=8, max_num_patches=7, image_mean=(0.5, 0.5, 0.5))
    processor.save_pretrained(tmp_path / "alone")
    content = json.loads((tmp_path / "alone" / "preprocessor_config.json").read_text())
    both = LlavaViTVideoProcessor(size=16, patch_size=8, image_settings=content)
    both.save_pretrained(tmp_path / "both")
    assert (tmp_path / "both" / "image_processing_llava_vit.py").is_file()
    stated = json.loads((tmp_path / "both" / "preprocessor_config.json").read_text())
    assert stated["auto_map"] == {
        "AutoImageProcessor": "image_processing_llava_vit.LlavaViTImageProcessor",
        "AutoProcessor": "video_processing_llava_vit.LlavaViTVideoProcessor",
    }
    expected = processor(noise(33, 20))
    for name in ("alone", "both"):
        again = LlavaViTImageProcessor.from_pretrained(tmp_path / name)
        assert np.array_equal(again(noise(33, 20))["pixel_values"], expected["pixel_values"])
    images = LlavaViTVideoProcessor.from_pretrained(tmp_path / "both")(images=noise(33, 20))
    assert np.array_equal(images["pixel_values"], expected["pixel_values"])
    assert images["grid_thw"].tolist() == expected["grid_thw"].tolist()
