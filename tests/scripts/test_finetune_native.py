"""LLaVA-ViT on pictures at native resolution and on video files: what training reads is what a pipeline reads."""

import json

import finetune
import numpy as np
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.finetuning.datasets import build_data
from hubtools.finetuning.starting_point import load_processor, read_folder_recipe
from measure import assert_outputs_close
from PIL import Image
from safetensors.torch import load_file
from small import LLAVA_VIT_TOML, call, write_recipe
from test_finetune_through_pipeline import folder_of, held_out, preprocessor, trained
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoProcessor, pipeline
from video_clips import write_video

BRIGHTNESS = {"dark": (0, 90), "light": (160, 255)}
NATIVE = ("--native-resolution", "--max-num-patches", "12")
CLIPS = "\n[video_processor]\nnum_frames = 4\nmax_visible_patches = 20\n"


def start_from(place, more="", name="tiny"):
    """A tiny model without training, as a Hub folder."""
    text = LLAVA_VIT_TOML.replace("[card]", f"initializer_range = 0.1\n{more}\n[card]")
    torch.manual_seed(0)
    build_folder(place / name, load_recipe(str(write_recipe(place, text, name))), None)
    return place / name


def write_picture(path, brightness, generator):
    """Of any size and aspect; some lie on their side, some are grey, some see-through."""
    height, width = generator.integers(3, 60, 2)
    pixels = generator.integers(*brightness, (height, width, 3)).astype(np.uint8)
    exif, mode = Image.Exif(), ("RGB", "L", "RGBA", "P")[generator.integers(4)]
    exif[0x0112] = int(generator.integers(1, 9))
    Image.fromarray(pixels).convert(mode).save(path, "PNG", exif=exif)


def write_clip(path, brightness, generator):
    """Of 2 to 6 frames, so that some have fewer patches than the processor keeps."""
    frames = generator.integers(*brightness, (int(generator.integers(2, 7)), 40, 48, 3)).astype(np.uint8)
    write_video(path, frames, "mpeg4", options={"qscale": "2"})


def through_pipeline(folder, data):
    """Of the files that no training saw, those that the pipeline gets right, in percent; and its answers, by path."""
    task = "video-classification" if next(data.rglob("*.mp4"), None) else "image-classification"
    classify = pipeline(task, model=str(folder), trust_remote_code=True)
    answers = {path: classify(str(path)) for path, _ in held_out(data)}
    right = [answers[path][0]["label"] == name for path, name in held_out(data)]
    return round(100 * sum(right) / len(right), 2), answers


def test_pictures_of_any_size_are_learned_as_the_pipeline_reads_them(tmp_path):
    data, start = folder_of(tmp_path / "pictures", BRIGHTNESS, write_picture, ".png"), start_from(tmp_path)
    reported = trained(start, data, tmp_path / "native", "--max-steps", "20", *NATIVE)
    accuracy, answers = through_pipeline(tmp_path / "native", data)
    assert reported == accuracy and reported > 80
    settings = {key: preprocessor(tmp_path / "native")[key] for key in ("patch_size", "max_num_patches", "merge_size")}
    assert settings == {"patch_size": 8, "max_num_patches": 12, "merge_size": 1}
    assert "at their own size and aspect, in at most 12 patches each" in (tmp_path / "native" / "README.md").read_text()

    # By hand, in one forward, through either Auto class; and what training makes of the same files.
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "native", trust_remote_code=True).eval()
    recipe = read_folder_recipe(tmp_path / "native")
    processor = load_processor(tmp_path / "native", recipe)
    made = build_data(str(data), recipe, recipe.build_config(), processor, seed=0)
    batch = made.collate([made.test[index] for index in range(len(made.test))])
    assert batch.pop("labels").tolist() == [made.labels.index(name) for _, name in held_out(data)]
    assert len(batch["pixel_values"]) == batch["grid_thw"].prod(1).sum() and batch["grid_thw"].prod(1).max() <= 12
    paths = [path for path, _ in held_out(data)]
    for auto_class in (AutoProcessor, AutoImageProcessor):
        by_hand = auto_class.from_pretrained(tmp_path / "native", trust_remote_code=True)(
            images=[Image.open(path) for path in paths], return_tensors="pt"
        )
        assert all(torch.equal(by_hand[name], batch[name]) for name in batch)
    with torch.no_grad():
        scores = model(**batch).logits.softmax(-1)
    for path, row in zip(paths, scores):
        found = {answer["label"]: answer["score"] for answer in answers[path]}
        assert_outputs_close(torch.tensor([found[label] for label in made.labels]), row)
    together = pipeline("image-classification", model=str(tmp_path / "native"), trust_remote_code=True)(
        [str(path) for path in paths], batch_size=5
    )
    for path, answer in zip(paths, together):
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in answers[path]]
        assert answer[0]["score"] == pytest.approx(answers[path][0]["score"], abs=1e-5)


def test_a_native_folder_stays_one_and_the_ways_to_compute_a_run_agree(tmp_path):
    data, start = folder_of(tmp_path / "pictures", BRIGHTNESS, write_picture, ".png"), start_from(tmp_path)
    trained(start, data, tmp_path / "native", "--max-steps", "2", *NATIVE)
    runs = {
        "plain": (),
        "workers": ("--workers", "2"),
        "checkpointed": ("--gradient-checkpointing",),
        "accumulated": ("--batch-size", "4", "--gradient-accumulation-steps", "2"),
        "square": None,
    }
    weights = {}
    for name, more in runs.items():
        source = start if more is None else tmp_path / "native"
        trained(source, data, tmp_path / name, "--max-steps", "3", "--freeze", "--augment", "crop+flip", *(more or ()))
        weights[name] = load_file(tmp_path / name / "model.safetensors")["classifier.weight"]
    for name in ("workers", "checkpointed", "accumulated"):
        assert (weights[name] - weights["plain"]).abs().max() < 1e-4 * weights["plain"].abs().max()
        assert preprocessor(tmp_path / name) == preprocessor(tmp_path / "native")
    assert torch.equal(weights["workers"], weights["plain"])
    assert preprocessor(tmp_path / "square")["image_processor_type"] == "CLIPImageProcessor"


def test_video_files_are_learned_as_the_pipeline_reads_them(tmp_path):
    data = folder_of(tmp_path / "clips", BRIGHTNESS, write_clip, ".mp4")
    start = start_from(tmp_path, CLIPS)
    common = ("--max-steps", "12", "--batch-size", "8")
    reported = trained(start, data, tmp_path / "one", *common)
    accuracy, answers = through_pipeline(tmp_path / "one", data)
    assert reported == accuracy and reported > 80
    settings = "video_preprocessor_config.json"
    assert json.loads((tmp_path / "one" / settings).read_text()) == json.loads((start / settings).read_text())
    assert json.loads((tmp_path / "one" / "config.json").read_text())["architectures"] == [
        "LlavaViTForVideoClassification"
    ]
    assert "4 frames of each, of whose patches 20 by codec" in (tmp_path / "one" / "README.md").read_text()

    recipe = read_folder_recipe(tmp_path / "one")
    made = build_data(str(data), recipe, recipe.build_config(), load_processor(tmp_path / "one", recipe), seed=0)
    batch = made.collate([made.test[index] for index in range(len(made.test))])
    batch.pop("labels")
    lengths = batch["cu_seqlens"].diff()
    assert lengths.max() == 20  # of 64 in four frames
    model = recipe.package.load().LlavaViTForVideoClassification.from_pretrained(tmp_path / "one").eval()
    with torch.no_grad():
        scores = model(**batch).logits.softmax(-1)
    for (path, _), row in zip(held_out(data), scores):
        found = {answer["label"]: answer["score"] for answer in answers[path]}
        assert_outputs_close(torch.tensor([found[label] for label in made.labels]), row)

    assert trained(start, data, tmp_path / "two", *common, "--workers", "2") == reported
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def refused(message, *arguments):
    result = call(finetune.main, *arguments, "--max-steps", "1", "--no-verify")
    assert result.code == 2 and message in result.err, result.err
    assert result.err.count("\n") == 1, result.err


def test_pictures_that_cannot_be_read_natively_are_refused_by_name(tmp_path):
    data, start = folder_of(tmp_path / "pictures", BRIGHTNESS, write_picture, ".png"), start_from(tmp_path)
    fixed = (start, "--dataset", data, "--output", tmp_path / "out", "--batch-size", "4")
    refused("--max-num-patches goes with --native-resolution", *fixed, "--max-num-patches", "9")
    refused("--max-num-patches must be more than 0, got 0", *fixed, "--native-resolution", "--max-num-patches", "0")
    refused("--native-resolution is for pictures; moving-digits", *fixed[:2], "moving-digits", *fixed[3:], *NATIVE)
    config = start / "preprocessor_config.json"
    original = config.read_text()
    config.write_text(json.dumps({**json.loads(original), "do_rescale": False}))
    refused("scales pixels to [0, 1]", *fixed, *NATIVE)
    config.write_text(original)
    for path in (data / "dark").iterdir():
        Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(path)
    for workers in ("0", "1"):
        refused("more than 8 bits a channel", *fixed, *NATIVE, "--workers", workers)
    for path in (data / "dark").iterdir():
        Image.new("RGB", (64, 64)).save(path)
        path.write_bytes(path.read_bytes()[:60])
    refused("/pictures/dark/", *fixed, *NATIVE)


def test_bytes_have_no_native_resolution(tmp_path):
    from small import BYTEFORMER_TOML

    build_folder(tmp_path / "tiny", load_recipe(str(write_recipe(tmp_path, BYTEFORMER_TOML, "tiny"))), None)
    fixed = (tmp_path / "tiny", "--dataset", "digits", "--output", tmp_path / "out")
    refused("--native-resolution is for models that read pixels", *fixed, *NATIVE)
    refused(
        "cannot read files as videos", *fixed[:2], folder_of(tmp_path / "data", BRIGHTNESS, write_picture, ".png"),
        *fixed[3:], "--read-files-as", "videos",
    )  # fmt: skip


def test_videos_that_cannot_be_learned_are_refused_by_name(tmp_path):
    data = folder_of(tmp_path / "clips", BRIGHTNESS, write_clip, ".mp4")
    start = start_from(tmp_path, CLIPS)
    fixed = ("--dataset", data, "--output", tmp_path / "out")
    refused("--native-resolution is for pictures", start, *fixed, *NATIVE)
    refused("--augment flip is for pictures that are decoded; videos are not", start, *fixed, "--augment", "flip")
    tower = start_from(tmp_path, "frame_windows_size = 4", "windows")
    refused("has frame_windows_size 4 and out_hidden_size None", tower, *fixed)
    merging = start_from(tmp_path, "out_hidden_size = 16\nuse_head = false", "merger")
    for folder in (tower, merging):
        refused("accepted for videos: 0 and none", folder, "--dataset", "moving-digits", *fixed[2:])
    (data / "dark" / "03.mp4").write_bytes(b"not a clip at all")
    (data / "light" / "05.mp4").write_bytes(b"")
    refused("2 of 40 files are neither pictures nor videos that can be read: ", start, *fixed)
    refused("/clips/dark/03.mp4: ", start, *fixed)
    for path in data.rglob("*.mp4"):
        frames = [Image.new("L", (20, 20), 60 * step) for step in range(3)]
        frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])
        path.unlink()
    refused("all 40 files are animated; say --read-files-as videos, or pictures", start, *fixed)
    for reading, head in (("videos", "Video"), ("pictures", "Image")):
        result = call(
            finetune.main, start, *fixed, "--max-steps", "1", "--no-verify", "--overwrite", "--read-files-as", reading
        )
        assert result.code == 0, result.err
        architecture = json.loads((tmp_path / "out" / "config.json").read_text())["architectures"]
        assert architecture == [f"LlavaViTFor{head}Classification"]
