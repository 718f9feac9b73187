"""What fine-tuning reports is what a pipeline gives on the same files: sounds, pictures, files as they are, ragged batches."""

import json
import re
import wave

import finetune
import numpy as np
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.finetuning.data import stratified_split
from hubtools.finetuning.folders import TEST_FRACTION, VALIDATION_FRACTION
from PIL import Image
from safetensors.torch import load_file
from small import call, trainable_toml, write_recipe
from transformers import pipeline

pytestmark = pytest.mark.usefixtures("warm_python")

RATE = 8000
LOUDNESS = {"loud": 0.9, "middle": 0.3, "quiet": 0.03}
SOUND = f'sampling_rate = {RATE}\nsample_dtype = "uint8"\nnum_samples = 200'
PICTURE = 'size = 8\ncrop_size = 8\nfile_encoding = "PNG"'
FILES = 20  # of each class


def start_from(place, architecture, processor, masked=True):
    """A tiny model without training, as a Hub folder."""
    text = trainable_toml(architecture, processor, max_position_embeddings=700, mask_padding=str(masked).lower())
    torch.manual_seed(0)
    build_folder(place / "tiny", load_recipe(str(write_recipe(place, text, "tiny"))), None)
    return place / "tiny"


def write_sound(path, loudness, generator):
    """Stereo of 16 bits, longer or shorter than the recipe's clips: bytes that no recipe would make of it."""
    length = int(generator.integers(150, 300))
    signal = loudness * generator.uniform(-1, 1, length)
    samples = np.round(np.stack([signal, signal * 0.9], axis=1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, RATE, length, "NONE", ""))
        file.writeframes(samples.tobytes())


def write_picture(path, brightness, generator):
    """A photo of two colours whose orientation tag turns it by a quarter."""
    low, high = (0, 90) if brightness == "dark" else (160, 255)
    pixels = generator.integers(low, high, (12, 20, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, "JPEG", quality=95, exif=exif)


def write_ragged(path, level, generator):
    low, high = (0, 100) if level == "small" else (100, 200)
    path.write_bytes(generator.integers(low, high, int(generator.integers(20, 60))).astype(np.uint8).tobytes())


def folder_of(place, classes, write, suffix):
    generator = np.random.default_rng(0)
    for name, what in classes.items():
        (place / name).mkdir(parents=True)
        for index in range(FILES):
            write(place / name / f"{index:02d}{suffix}", what, generator)
    return place


def held_out(place):
    """The files that no training saw, by the rule of folders: (path, class)."""
    pairs = [(path, folder.name) for folder in sorted(place.iterdir()) for path in sorted(folder.iterdir())]
    labels = sorted({name for _, name in pairs})
    test = stratified_split([labels.index(name) for _, name in pairs], [VALIDATION_FRACTION, TEST_FRACTION], 0)[2]
    return [pairs[index] for index in test]


def trained(start, data, output, *more):
    fixed = ["--batch-size", "8", "--learning-rate", "1e-2", "--no-verify"]
    result = call(finetune.main, start, "--dataset", data, "--output", output, *fixed, *more)
    assert result.code == 0, result.err
    return float(re.search(r"^test accuracy: ([\d.]+) %", result.out, re.MULTILINE).group(1))


def through_pipeline(task, folder, data):
    classify = pipeline(task, model=str(folder), trust_remote_code=True)
    right = [classify(str(path), top_k=1)[0]["label"] == name for path, name in held_out(data)]
    return round(100 * sum(right) / len(right), 2)


def preprocessor(folder):
    return json.loads((folder / "preprocessor_config.json").read_text())


def test_sounds_are_learned_as_the_pipeline_hears_them(tmp_path):
    data = folder_of(tmp_path / "words", LOUDNESS, write_sound, ".wav")
    start = start_from(tmp_path, "ByteFormerForAudioClassification", SOUND)
    reported = trained(start, data, tmp_path / "words-model", "--epochs", "12")
    assert reported == through_pipeline("audio-classification", tmp_path / "words-model", data)
    assert reported > 80  # a third is chance
    assert preprocessor(tmp_path / "words-model") == preprocessor(start)


def test_sounds_as_they_are_make_a_model_of_files_as_they_are(tmp_path):
    data = folder_of(tmp_path / "words", LOUDNESS, write_sound, ".wav")
    start = start_from(tmp_path, "ByteFormerForAudioClassification", SOUND)
    reported = trained(start, data, tmp_path / "raw", "--max-steps", "20", "--read-files-as", "bytes")
    assert preprocessor(tmp_path / "raw") == {**preprocessor(start), "file_encoding": None}
    assert reported == through_pipeline("audio-classification", tmp_path / "raw", data)


@pytest.mark.parametrize("reading", ["auto", "bytes"])
def test_pictures_are_learned_as_the_pipeline_sees_them(tmp_path, reading):
    data = folder_of(tmp_path / "pictures", {"dark": "dark", "light": "light"}, write_picture, ".jpg")
    start = start_from(tmp_path, "ByteFormerForImageClassification", PICTURE)
    reported = trained(start, data, tmp_path / "seen", "--max-steps", "20", "--read-files-as", reading)
    assert reported == through_pipeline("image-classification", tmp_path / "seen", data)
    assert preprocessor(tmp_path / "seen")["file_encoding"] == (None if reading == "bytes" else "PNG")


def test_a_model_in_which_padding_counts_is_measured_without_it(tmp_path, caplog):
    data = folder_of(tmp_path / "files", {"small": "small", "large": "large"}, write_ragged, ".dat")
    start = start_from(tmp_path, "ByteFormerForImageClassification", PICTURE, masked=False)
    reported = trained(start, data, tmp_path / "ragged", "--max-steps", "12")
    assert reported == through_pipeline("image-classification", tmp_path / "ragged", data)
    assert caplog.text.count("mask_padding=False") == 1


def test_bytes_of_training_are_those_of_the_pipeline(tmp_path):
    from hubtools.finetuning.datasets import build_data
    from hubtools.finetuning.starting_point import load_processor, read_folder_recipe

    for name, architecture, processor, classes, write, suffix in (
        ("sounds", "ByteFormerForAudioClassification", SOUND, LOUDNESS, write_sound, ".wav"),
        (
            "pictures",
            "ByteFormerForImageClassification",
            PICTURE,
            {"dark": "dark", "light": "light"},
            write_picture,
            ".jpg",
        ),
    ):
        place = tmp_path / name
        place.mkdir()
        data = folder_of(place / "data", classes, write, suffix)
        start = start_from(place, architecture, processor)
        recipe = read_folder_recipe(start)
        task = "audio-classification" if name == "sounds" else "image-classification"
        classify = pipeline(task, model=str(start), trust_remote_code=True)
        test = build_data(str(data), recipe, recipe.build_config(), load_processor(start, recipe), seed=0).test
        for item, (path, label) in zip([test[index] for index in range(len(test))], held_out(data)):
            assert torch.equal(classify.preprocess(str(path))["input_ids"][0], item["input_ids"])
            assert sorted(classes)[item["labels"]] == label


def test_logits_of_parts_without_padding_are_in_order():
    from hubtools.finetuning.inputs import pad_bytes, without_padding

    rows = [[5, 6, 7], [1] * 9, [8], [2, 3, 4], []]
    batch = pad_bytes(
        [{"input_ids": torch.tensor(row, dtype=torch.int64), "labels": 0} for row in rows], padding_id=256, at_least=2
    )
    parts = without_padding(batch, padding_id=256, at_least=2)
    seen = {int(index): ids.tolist() for indices, inputs in parts for index, ids in zip(indices, inputs["input_ids"])}
    assert seen == {0: [5, 6, 7], 1: [1] * 9, 2: [8, 256], 3: [2, 3, 4], 4: [256, 256]}


def test_other_sounds_are_refused_by_name(tmp_path):
    data = folder_of(tmp_path / "words", LOUDNESS, write_sound, ".wav")
    start = start_from(tmp_path, "ByteFormerForAudioClassification", SOUND)
    common = ("--output", tmp_path / "out", "--max-steps", "2", "--batch-size", "8", "--no-verify")
    (data / "quiet" / "03.wav").write_bytes(b"ID3 a song")
    for arguments, message in (
        ((), "1 of 60 files are not WAV files"),
        (
            ("--read-files-as", "pictures"),
            "cannot read files as pictures; accepted: --read-files-as auto, sounds, bytes",
        ),
        (
            ("--read-files-as", "bytes", "--augment", "flip"),
            "--augment flip is for pictures that are decoded; sounds are not",
        ),
    ):
        result = call(finetune.main, start, "--dataset", data, *common, *arguments)
        assert result.code == 2 and message in result.err and result.err.count("\n") == 1, result.err
    write_sound(data / "quiet" / "03.wav", 0.1, np.random.default_rng(0))
    for path in (data / "loud").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:24] + (44100).to_bytes(4, "little") + content[28:])
    for workers in ("0", "1"):  # an error of another process is one line too
        result = call(finetune.main, start, "--dataset", data, *common, "--workers", workers)
        assert result.code == 2 and "the model reads audio at 8000 Hz, the file has 44100 Hz" in result.err, result.err
        assert result.err.count("\n") == 1 and result.err.startswith(f"error: {data / 'loud'}"), result.err
    other = call(finetune.main, start, "--dataset", data, *common, "--read-files-as", "bytes", "--seed", "1")
    assert other.code == 0, other.err  # what failed before its first checkpoint is not in the way


def test_a_probe_trains_the_classifier_alone_and_accumulated_batches_are_one_large_batch(tmp_path):
    data = folder_of(tmp_path / "pictures", {"dark": "dark", "light": "light"}, write_picture, ".jpg")
    start = start_from(tmp_path, "ByteFormerModel", PICTURE)
    common = ("--max-steps", "3", "--freeze", "--augment", "crop+flip")
    runs = {
        "large": ("--batch-size", "8"),
        "accumulated": ("--batch-size", "4", "--gradient-accumulation-steps", "2"),
        "workers": ("--batch-size", "8", "--workers", "2"),
        "checkpointed": ("--batch-size", "8", "--gradient-checkpointing"),
    }
    for name, more in runs.items():
        result = call(
            finetune.main,
            start,
            "--dataset",
            data,
            "--output",
            tmp_path / name,
            "--learning-rate",
            "1e-2",
            "--no-verify",
            *common,
            *more,
        )
        assert result.code == 0, result.err
    before = load_file(start / "model.safetensors")
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in runs}
    for name in runs:
        assert all(torch.equal(tensor, weights[name][f"byteformer.{key}"]) for key, tensor in before.items())
        largest = weights["large"]["classifier.weight"].abs().max()
        assert (weights[name]["classifier.weight"] - weights["large"]["classifier.weight"]).abs().max() < 1e-4 * largest
    assert "3 steps of 8 samples" in (tmp_path / "accumulated" / "README.md").read_text()


def test_pictures_vary_with_the_epoch_and_stay_in_the_picture():
    from hubtools.finetuning.augmentation import LEAST_AREA, MOST_STRETCH, random_part, varied

    ramp = Image.fromarray(np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (90, 240, 3)).copy())
    first, again, other = (np.asarray(varied(ramp, "crop", 0, epoch, 3)) for epoch in (0, 0, 1))
    assert first.shape == (90, 240, 3) and (first == again).all() and (first != other).any()
    mirrored = [np.asarray(varied(ramp, "flip", 0, 0, index))[0, 0, 0] > 120 for index in range(200)]
    assert 60 < sum(mirrored) < 140
    import random

    boxes = [random_part((240, 90), random.Random(seed)) for seed in range(500)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 240 and 0 <= top < bottom <= 90
        area = (right - left) * (bottom - top) / (240 * 90)
        stretch = ((right - left) / 240) / ((bottom - top) / 90)
        assert LEAST_AREA * 0.85 < area <= 1 and 1 / MOST_STRETCH - 1e-9 <= stretch <= MOST_STRETCH + 1e-9


def test_measuring_takes_the_batch_that_was_asked_for(tmp_path):
    from hubtools.finetuning.training import training_arguments

    arguments = finetune.build_parser().parse_args(
        ["folder", "--dataset", "d", "--output", str(tmp_path / "o"), "--batch-size", "3"]
    )
    made = training_arguments(finetune.settings_of(arguments), tmp_path, 100)
    assert made.per_device_eval_batch_size == made.per_device_train_batch_size == 3


@pytest.mark.parametrize(
    "flags, rate", [([], 5e-5), (["--lora", "4"], 3e-4), (["--freeze"], 1e-3), (["--learning-rate", "0.5"], 0.5)]
)
def test_the_learning_rate_suits_what_is_trained(flags, rate):
    arguments = finetune.build_parser().parse_args(["folder", "--dataset", "d", "--output", "o", *flags])
    assert finetune.settings_of(arguments).learning_rate == rate


@pytest.mark.parametrize("module, name", [("PIL", "pillow"), ("accelerate", "accelerate")])
def test_what_is_not_installed_is_told_in_one_line(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    result = call(finetune.main, tmp_path, "--dataset", "digits", "--output", tmp_path / "out")
    assert result.code == 2 and result.err.count("\n") == 1
    assert f"finetune.py needs {name}, which cannot be imported" in result.err and f"pip install {name}" in result.err
