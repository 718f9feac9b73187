"""Models of moving digits: the folder's own processor reads clips as training did."""

import json

import finetune
import numpy as np
import torch
from hubtools.finetuning import digits, moving_digits
from hubtools.packages import ROOT
from measure import assert_outputs_close
from small import call
from test_finetune_native import start_from
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

TRAINED = ROOT / "hub_repos" / "llava-vit-moving-digits"
OTHERWISE = """
[video_processor]
num_frames = 16
size = 32
selection = "codec"
keep_first_frame = true
max_visible_patches = 9
image_mean = [0.1, 0.2, 0.3]
"""


def held_out(count):
    """Clips (T, H, W, 3) uint8, of every direction, and the names of their directions."""
    clips = moving_digits.HeldOutClips(digits.split()[2])
    items = [clips[number] for number in range(count)]
    frames = [np.repeat(item["clip"][..., None], 3, axis=-1) for item in items]
    return frames, [moving_digits.LABELS[item["labels"]] for item in items]


def loaded(folder):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    return processor, AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=True).eval()


def test_the_trained_folder_is_right_through_its_own_processor_and_pipeline():
    processor, model = loaded(TRAINED)
    classify = pipeline("video-classification", model=str(TRAINED), trust_remote_code=True)
    clips, names = held_out(16)
    assert set(names) == set(moving_digits.LABELS)
    for selection, least in (("none", 15), ("difference", 14)):
        inputs = processor(videos=clips, selection=selection, return_tensors="pt")
        with torch.no_grad():
            answers = [model.config.id2label[int(label)] for label in model(**inputs).logits.argmax(-1)]
        assert sum(answer == name for answer, name in zip(answers, names)) >= least, selection
        assert [classify(clip, selection=selection)[0]["label"] for clip in clips] == answers


def test_whatever_folder_it_starts_from_the_processor_reads_as_training_did(tmp_path):
    start, folder = start_from(tmp_path, OTHERWISE), tmp_path / "motion"
    arguments = (start, "--dataset", "moving-digits", "--output", folder, "--max-steps", "1", "--no-verify")
    result = call(finetune.main, *arguments)
    assert result.code == 0, result.err
    stored = json.loads((folder / "video_preprocessor_config.json").read_text())
    expected = {"num_frames": 6, "num_places": 6, "size": 48, "selection": "difference", "keep_first_frame": False}
    assert {name: stored[name] for name in expected} == expected
    assert stored["max_visible_patches"] == json.loads((folder / "config.json").read_text())["max_visible_patches"]

    processor, model = loaded(folder)
    clips, _ = held_out(4)
    trained_on = moving_digits.to_pixel_values(
        np.stack([clip[..., 0] for clip in clips]), stored["image_mean"], stored["image_std"]
    )
    image_processor = processor.image_processor
    assert stored["image_mean"] == list(image_processor.image_mean)  # what training takes
    with torch.no_grad():
        by_hand = model(trained_on).logits
        read = model(**processor(videos=clips, selection="none", return_tensors="pt")).logits
    assert_outputs_close(read, by_hand)
