"""A saved folder with the video processor in a fresh process that cannot see the repository."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image
from video_clips import moving_object, write_video

from llavavit import LlavaViTConfig, LlavaViTForVideoClassification, LlavaViTVideoProcessor

pytestmark = pytest.mark.usefixtures("warm_python")
COLD = sys.executable  # has not imported anything yet

CLIP_SETTINGS = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 56}, "resample": 3, "do_center_crop": True, "crop_size": {"height": 56, "width": 56},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "do_convert_rgb": True,
}  # fmt: skip

# What a user does with the folder; answers go to stdout as one line of JSON.
USER = """
import json, os, sys
import torch
from PIL import Image
from transformers import AutoModelForVideoClassification, AutoProcessor, CLIPImageProcessor, pipeline

answers = {}
processor = AutoProcessor.from_pretrained("model", trust_remote_code=True)
image = Image.open("frame.png")
clip = CLIPImageProcessor.from_pretrained("model")
answers["images"] = bool(torch.equal(processor(images=image, return_tensors="pt")["pixel_values"], clip(image, return_tensors="pt")["pixel_values"]))
inputs = processor(videos="clip.mp4", return_tensors="pt")
answers["indices"] = inputs["visible_indices"].tolist()
answers["fewer"] = AutoProcessor.from_pretrained("model", trust_remote_code=True, num_frames=3).num_frames
model = AutoModelForVideoClassification.from_pretrained("model", trust_remote_code=True).eval()
with torch.no_grad():
    scores = model(**inputs).logits.softmax(-1)[0]
answers["by hand"] = {model.config.id2label[index]: score for index, score in enumerate(scores.tolist())}

def answer(pipe, *args, **kwargs):
    return {entry["label"]: entry["score"] for entry in pipe(*args, **kwargs)}

pipe = pipeline("video-classification", model="model", trust_remote_code=True)
answers["pipeline"] = answer(pipe, "clip.mp4")
answers["batch"] = {entry["label"]: entry["score"] for entry in pipe(["clip.mp4", "clip.mp4"], batch_size=2)[1]}
answers["best"] = pipe("clip.mp4", top_k=1)
answers["given"] = {}
few = AutoProcessor.from_pretrained("model", trust_remote_code=True, num_frames=3)
for name in ("processor", "video_processor", "image_processor"):
    own = pipeline("video-classification", model="model", trust_remote_code=True, **{name: few})
    answers["given"][name] = own.image_processor.num_frames
    for other in (clip, "model"):
        try:
            chosen = pipeline("video-classification", model="model", trust_remote_code=True, **{name: other})
            answers["given"][name + (" str" if other == "model" else " other")] = type(chosen.image_processor).__name__
        except ValueError as error:
            answers["given"][name + (" str" if other == "model" else " other")] = str(error)
try:
    pipe(image)
except ValueError as error:
    answers["image"] = str(error)
pipe.model.save_pretrained("again")
processor.save_pretrained("again")
answers["files"] = sorted(os.listdir("again"))
answers["again"] = answer(pipeline("video-classification", model="again", trust_remote_code=True), "clip.mp4")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    torch.manual_seed(0)
    labels = {"id2label": {0: "left", 1: "right", 2: "up"}, "label2id": {"left": 0, "right": 1, "up": 2}}
    config = LlavaViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        patch_size=14,
        image_size=56,
        initializer_range=0.5,
        **labels,
    )
    LlavaViTForVideoClassification(config).save_pretrained(folder / "model")
    LlavaViTVideoProcessor(num_frames=8, size=56, max_visible_patches=30, image_settings=CLIP_SETTINGS).save_pretrained(
        folder / "model"
    )
    frames = moving_object(0, frames=20, size=70).frames
    write_video(folder / "clip.mp4", frames)
    Image.fromarray(frames[0]).save(folder / "frame.png")
    return folder


def run(folder, code, python=None):
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = {**kept, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python or sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_auto_classes_and_pipeline(folder):
    answers = json.loads(run(folder, USER).splitlines()[-1])
    processor = LlavaViTVideoProcessor.from_pretrained(folder / "model")
    assert answers["images"] and answers["fewer"] == 3
    assert answers["indices"] == processor(videos=folder / "clip.mp4")["visible_indices"].tolist()
    for way in ("pipeline", "batch", "again"):
        assert answers[way] == pytest.approx(answers["by hand"], abs=1e-5)
    assert answers["best"][0]["label"] == max(answers["by hand"], key=answers["by hand"].get)
    assert "images=" in answers["image"]
    for name in ("processor", "video_processor", "image_processor"):
        assert answers["given"][name] == 3
        assert re.search("LlavaViTVideoProcessor.* got CLIPImageProcessor", answers["given"][f"{name} other"])
        # Some releases load what a name stands for, and hand that over.
        assert re.search("^LlavaViTVideoProcessor$|got ('model'|CLIPImageProcessor)", answers["given"][f"{name} str"])
    assert {
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "video_processing_llava_vit.py",
        "video_reading_llava_vit.py",
        "video_selection_llava_vit.py",
    } < set(answers["files"])
    assert json.loads((folder / "again" / "preprocessor_config.json").read_text()) == json.loads(
        (folder / "model" / "preprocessor_config.json").read_text()
    )


def test_saving_and_loading_keep_every_setting(tmp_path):
    settings = {
        "num_frames": 5, "num_places": 9, "size": 48, "patch_size": 8, "max_visible_patches": 7, "selection": "difference", "keep_first_frame": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    }  # fmt: skip
    LlavaViTVideoProcessor(**settings).save_pretrained(tmp_path)
    loaded = LlavaViTVideoProcessor.from_pretrained(tmp_path)
    assert {key: getattr(loaded, key) for key in settings} == settings
    assert LlavaViTVideoProcessor.from_pretrained(tmp_path, size=56).size == 56
    with pytest.raises(ValueError, match="num_frame"):
        LlavaViTVideoProcessor.from_pretrained(tmp_path, num_frame=3)
    with pytest.raises(OSError, match="video_preprocessor_config.json"):
        (tmp_path / "empty").mkdir()
        LlavaViTVideoProcessor.from_pretrained(tmp_path / "empty")


def test_the_package_imports_without_pyav(folder):
    """Neither PyAV nor transformers' pipelines are needed to import the package, and neither is imported before it is used."""
    code = (
        "import sys; sys.modules['av'] = None; sys.path.insert(0, {root!r}); import llavavit; "
        "print(llavavit.LlavaViTVideoProcessor().selection, 'transformers.pipelines' in sys.modules)"
    ).format(root=str(next(path for path in sys.path if (path and os.path.isdir(os.path.join(path, "llavavit"))))))
    assert run(folder, code, COLD).split() == ["codec", "False"]
