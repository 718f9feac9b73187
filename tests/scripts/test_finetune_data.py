"""The data that models are fine-tuned on: real digits and their clips, and folders of files."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.finetuning import digits, moving_digits
from hubtools.finetuning.datasets import build_data
from hubtools.finetuning.folders import read_folder
from hubtools.finetuning.inputs import pad_bytes
from hubtools.finetuning.saving import training_section
from hubtools.packages import PACKAGES, ROOT
from measure import assert_outputs_close
from PIL import Image, PngImagePlugin
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, write_recipe

TRAINED = ROOT / "hub_repos"


@pytest.fixture
def digit_processor():
    """The processor of the recipe for digits."""
    return PACKAGES["byteformer"].load().ByteFormerImageProcessor(**load_recipe("byteformer-digits").processor)


def test_splits_are_disjoint_complete_and_hold_every_class_in_proportion():
    parts, classes = digits.split(), digits.load()[1]
    assert sorted(index for part in parts for index in part) == list(range(1797))
    for part, fraction in zip(parts[1:], (digits.VALIDATION_FRACTION, digits.TEST_FRACTION)):
        for label in range(10):
            share = np.count_nonzero(classes[part] == label) / np.count_nonzero(classes == label)
            assert abs(share - fraction) < 0.01


def test_a_digits_file_and_its_picture_give_the_same_bytes(tmp_path, digit_processor):
    """Training sees what a pipeline makes of the opened file, and that is the file itself."""
    path = tmp_path / "digit.png"
    path.write_bytes(digits.png_bytes(5))
    from_picture = digit_processor(Image.open(path).convert("RGB"), return_tensors="pt")["input_ids"]
    assert from_picture[0].tolist() == list(path.read_bytes())


def test_variations_repeat_with_the_epoch_and_keep_the_grey_levels():
    recipe = load_recipe("byteformer-digits")
    data = build_data(
        "digits",
        recipe,
        recipe.build_config(),
        PACKAGES["byteformer"].load().ByteFormerImageProcessor(**recipe.processor),
        seed=1,
    )
    epochs = []
    for epoch in (0, 1, 0):
        data.train.set_epoch(epoch)
        epochs.append(torch.stack([data.train[index]["input_ids"] for index in range(20)]))
    assert torch.equal(epochs[0], epochs[2])
    assert (epochs[0] != epochs[1]).any(dim=1).sum() > 10
    levels = {int(level) for level in digits.grey_levels(np.arange(17))}
    seen = {int(value) for index in range(20) for value in np.unique(digits.varied(index, random.Random(index)))}
    assert seen <= levels and len(seen) > 10


@pytest.mark.parametrize("direction", moving_digits.LABELS)
def test_clips_show_the_whole_digit_moving_as_labelled(direction):
    clip = moving_digits.render_clip(7, direction, random.Random(direction)).astype(float)
    ink = clip.sum(axis=(1, 2))
    assert ink[0] > 0 and np.all(ink == ink[0])  # nothing is cut off at the border
    grid = np.arange(moving_digits.SIDE)
    centres = np.stack([(clip * grid).sum(axis=(1, 2)) / ink, (clip * grid[:, None]).sum(axis=(1, 2)) / ink])
    moved = np.diff(centres, axis=1)
    expected = np.array(moving_digits.DIRECTIONS[direction])[:, None]
    assert np.all(np.abs(np.where(np.abs(moved) < 0.5, 0, np.sign(moved)) - expected) < 1e-9)


def test_clip_pixels_are_those_of_the_image_processor():
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": moving_digits.SIDE}, crop_size=moving_digits.SIDE)
    batch = moving_digits.collate([moving_digits.HeldOutClips([3])[0]], processor.image_mean, processor.image_std)
    frames = [Image.fromarray(frame).convert("RGB") for frame in moving_digits.HeldOutClips([3])[0]["clip"]]
    expected = processor(frames, return_tensors="pt")["pixel_values"]  # (T, C, H, W)
    assert_outputs_close(batch["pixel_values"][0].transpose(0, 1), expected)


def test_residual_is_where_frames_differ():
    pixels = torch.zeros(1, 3, 3, 4, 4)
    pixels[0, :, 1, 2, 3] = 1.0
    residual = moving_digits.residual_of(pixels)
    expected = torch.zeros(1, 1, 3, 4, 4)
    expected[0, 0, 1:, 2, 3] = 3.0  # one of each channel: it comes in the second frame and goes in the third
    assert_outputs_close(residual, expected)


def test_held_out_clips_are_of_held_out_digits_and_cover_every_direction():
    clips = moving_digits.HeldOutClips(digits.split()[2])
    assert {digit for digit, _ in clips.items} == set(digits.split()[2])
    assert {label for _, label in clips.items} == set(range(8))
    assert not set(moving_digits.TrainingClips(seed=0).digits) & set(digits.split()[2])


def test_padding_goes_to_the_end_and_fills_the_kernel():
    items = [{"input_ids": torch.tensor([1, 2, 3]), "labels": 0}, {"input_ids": torch.tensor([4]), "labels": 1}]
    batch = pad_bytes(items, padding_id=256, at_least=4)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 256], [4, 256, 256, 256]]
    assert batch["labels"].tolist() == [0, 1]


def make_classes(folder, counts, write):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            write(folder / name / f"{index}.dat", index)
    return folder


def write_bytes(path, index):
    path.write_bytes(bytes([index % 256]) * 20)


def write_picture(path, index):
    Image.new("RGB", (20, 20), (index, 0, 0)).save(path, "PNG")


def small_recipe(tmp_path, toml):
    return load_recipe(str(write_recipe(tmp_path, toml)))


def test_a_folder_is_split_class_by_class(tmp_path):
    splits = read_folder(make_classes(tmp_path / "data", {"b": 10, "a": 20}, write_bytes), seed=0)
    assert splits.labels == ["a", "b"]
    assert [len(part.paths) for part in (splits.train, splits.validation, splits.test)] == [21, 3, 6]
    assert len(set(splits.all_files)) == 30
    assert all(path.parent.name == splits.labels[label] for path, label in zip(splits.test.paths, splits.test.labels))


def test_a_test_split_of_its_own_is_kept(tmp_path):
    make_classes(tmp_path / "data" / "train", {"a": 10, "b": 10}, write_bytes)
    make_classes(tmp_path / "data" / "test", {"a": 2, "b": 3}, write_bytes)
    splits = read_folder(tmp_path / "data", seed=0)
    assert {path.parents[1].name for path in splits.test.paths} == {"test"} and len(splits.test.paths) == 5
    assert {path.parents[1].name for path in splits.train.paths + splits.validation.paths} == {"train"}


@pytest.mark.parametrize(
    "counts, message",
    [({}, "at least two; found 0"), ({"a": 5}, "at least two; found 1"), ({"a": 5, "b": 2}, "b (2)")],
)
def test_a_folder_without_classes_is_refused(tmp_path, counts, message):
    (tmp_path / "data").mkdir()
    make_classes(tmp_path / "data", counts, write_bytes)
    with pytest.raises(UserError) as error:
        read_folder(tmp_path / "data", seed=0)
    assert message in str(error.value)


def test_splits_with_other_classes_are_refused(tmp_path):
    make_classes(tmp_path / "data" / "train", {"a": 5, "b": 5}, write_bytes)
    make_classes(tmp_path / "data" / "val", {"a": 5, "c": 5}, write_bytes)
    with pytest.raises(UserError, match="same classes.*b, c"):
        read_folder(tmp_path / "data", seed=0)


def test_a_picture_with_too_much_text_is_named(tmp_path):
    """Pillow refuses to unpack the text chunk with an error of its own kind."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", " " * 2 * PngImagePlugin.MAX_TEXT_CHUNK, zip=True)
    folder = make_classes(tmp_path / "data", {"a": 4, "b": 4}, write_picture)
    Image.new("RGB", (8, 8)).save(folder / "a" / "talkative.png", pnginfo=text)
    recipe = small_recipe(tmp_path, LLAVA_VIT_TOML)
    with pytest.raises(UserError, match="1 of 9 files are not pictures that Pillow knows: .*talkative.png"):
        build_data(str(folder), recipe, recipe.build_config(), None, 0)


@pytest.mark.parametrize("write, decoded", [(write_bytes, False), (write_picture, True)])
def test_byteformer_reads_pictures_by_its_recipe_and_other_files_as_they_are(tmp_path, write, decoded):
    folder = make_classes(tmp_path / "data", {"a": 4, "b": 4}, write)
    recipe = load_recipe("byteformer-digits")
    processor = PACKAGES["byteformer"].load().ByteFormerImageProcessor(**recipe.processor)
    item = build_data(str(folder), recipe, recipe.build_config(), processor, seed=0).train[0]
    own = list(read_folder(folder, seed=0).train.paths[0].read_bytes())
    assert (item["input_ids"].tolist() == own) is not decoded
    if decoded:
        assert len(item["input_ids"]) == 268  # an 8x8 picture as uncompressed PNG
        assert (
            build_data(str(folder), recipe, recipe.build_config(), processor, 0, "bytes").train[0]["input_ids"].tolist()
            == own
        )


def test_what_a_model_cannot_take_is_refused(tmp_path):
    byteformer, llava_vit = (small_recipe(tmp_path, toml) for toml in (BYTEFORMER_TOML, LLAVA_VIT_TOML))
    with pytest.raises(UserError, match="clips, which byteformer cannot take"):
        build_data("moving-digits", byteformer, byteformer.build_config(), None, 0)
    folder = make_classes(tmp_path / "data", {"a": 4, "b": 4}, write_bytes)
    with pytest.raises(UserError, match="8 of 8 files are neither pictures nor videos"):
        build_data(str(folder), llava_vit, llava_vit.build_config(), None, 0)
    with pytest.raises(UserError, match="not a folder; accepted: digits, moving-digits"):
        build_data("numbers", llava_vit, llava_vit.build_config(), None, 0)


@pytest.mark.parametrize("content, message", [(b"", "empty"), (bytes(5000), "at most")])
def test_a_file_without_bytes_or_with_too_many_is_named(tmp_path, content, message):
    folder = make_classes(tmp_path / "data", {"a": 4, "b": 4}, lambda path, index: path.write_bytes(content))
    recipe = load_recipe("byteformer-digits")
    processor = PACKAGES["byteformer"].load().ByteFormerImageProcessor(**recipe.processor)
    data = build_data(str(folder), recipe, recipe.build_config(), processor, seed=0)
    with pytest.raises(UserError) as error:
        data.train[0]
    assert "/data/a/" in str(error.value) and message in str(error.value)


def test_a_truncated_picture_is_named(tmp_path):
    from hubtools.finetuning.inputs import open_picture

    write_picture(tmp_path / "whole.png", 3)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(UserError, match="cut.png cannot be read as a picture"):
        open_picture(tmp_path / "cut.png")


@pytest.mark.parametrize("name", ["byteformer-digits", "llava-vit-moving-digits"])
def test_the_trained_folders_are_what_their_recipes_say(name):
    """Their weights, configuration and card are kept; their code is the packages', by links."""
    from hubtools.finetuning.starting_point import load_processor
    from hubtools.verification.files import check_code, read_config

    recipe = load_recipe(name)
    config = read_config(TRAINED / name)
    assert {key: config[key] for key in recipe.config if key not in ("id2label", "num_labels")} == {
        key: value for key, value in recipe.config.items() if key not in ("id2label", "num_labels")
    }
    assert config["id2label"] == recipe.config["id2label"]
    check_code(TRAINED / name, config, recipe.package)  # raises where they differ
    assert all(path.is_symlink() for path in (TRAINED / name).glob("*.py"))
    processor = load_processor(TRAINED / name, recipe)
    if recipe.package.name == "byteformer":
        assert processor.to_dict() == type(processor)(**recipe.processor).to_dict()
    else:
        assert dict(processor.crop_size) == {"height": moving_digits.SIDE, "width": moving_digits.SIDE}
    assert sum(path.stat().st_size for path in (TRAINED / name).iterdir()) < 2e6


def test_the_card_shows_a_folders_name_and_the_command_as_they_are():
    """Whatever letters they hold: no new row or column, no end of the block of code."""
    name, command = "a | b <i>\n## c", "python scripts/finetune.py 'x\n```\n# y'"
    data = SimpleNamespace(description=name, train=[1], validation=[2], test=[3], processor_settings={}, reading="")
    outcome = SimpleNamespace(figures={"test": 0.5, "validation": 0.5}, steps=3)
    keys = ("learning_rate", "warmup", "weight_decay", "samples_per_step", "seed", "freeze", "lora")
    settings = SimpleNamespace(**dict.fromkeys(keys, 0), augment="none")
    section = training_section(data, outcome, settings, command)
    assert section.count("\n## ") == 1 and r"| data | a \| b \<i\> ## c |" in section
    assert section.endswith(f"\n````sh\n{command}\n````\n")
