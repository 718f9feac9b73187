"""An assembled LLaVA-ViT folder reads video files: its processor, its pipeline, and what the tools say of both."""

import json
import shutil

import pytest
from hubtools.assembly.build import build_folder
from hubtools.assembly.published import recipe_from_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.packages import PACKAGES
from hubtools.verification import files
from hubtools.verification.check import CheckFailed
from hubtools.verification.weight_files import read_tensors
from small import LLAVA_VIT_TOML, write_recipe
from test_examples import run_isolated_code
from video_clips import moving_object, write_video

pytestmark = pytest.mark.usefixtures("warm_python")

PACKAGE = PACKAGES["llavavit"]
TOML = LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForVideoClassification").replace(
    "[card]", "[video_processor]\nnum_frames = 8\n\n[card]"
)

USER = """
import json, sys
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

folder, clip = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=True).eval()
inputs = processor(videos=clip, return_tensors="pt")
with torch.no_grad():
    scores = model(**inputs).logits.softmax(-1)[0].tolist()
best = max(range(len(scores)), key=scores.__getitem__)
answer = pipeline("video-classification", model=folder, trust_remote_code=True)(clip)[0]
print(json.dumps({
    "shape": list(inputs["pixel_values"].shape), "by hand": [model.config.id2label[best], scores[best]],
    "pipeline": [answer["label"], answer["score"]],
    "unasked": type(pipeline(model=folder, trust_remote_code=True)).__name__,
}))
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    build_folder(folder / "model", load_recipe(str(write_recipe(folder, TOML))), None)
    return folder / "model"


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_file_through_the_processor_and_the_pipeline(good, tmp_path):
    write_video(tmp_path / "clip.mp4", moving_object(1, frames=20, size=64).frames)
    answers = json.loads(run_isolated_code(tmp_path, USER, good, tmp_path / "clip.mp4").splitlines()[-1])
    assert answers["shape"] == [1, 3, 8, 32, 32]
    assert answers["pipeline"] == [answers["by hand"][0], pytest.approx(answers["by hand"][1], abs=1e-5)]
    assert answers["unasked"] == "LlavaViTVideoClassificationPipeline"


def test_every_published_recipe_brings_the_processor_of_its_sizes():
    """Frames as large as the model's pictures, 224 pixels at most; its own patches and budget."""
    from hubtools.assembly.processors import video_processor
    from hubtools.assembly.recipes import list_recipes

    for name in list_recipes():
        recipe = load_recipe(name)
        if recipe.package is not PACKAGE:
            continue
        config = recipe.build_config()
        made = video_processor(recipe, config)
        assert made["size"] % made["patch_size"] == 0 and made["size"] <= 224
        assert (made["patch_size"], made["max_visible_patches"]) == (config.patch_size, config.max_visible_patches)
        small = name == "llava-vit-moving-digits"
        assert (made["num_frames"], made["size"], made["selection"]) == (
            (6, 48, "difference") if small else (64, 224, "codec")
        ), name


def test_a_folders_own_settings_are_carried_over(folder):
    edit(
        folder / "video_preprocessor_config.json",
        lambda content: content.update(keep_first_frame=True, max_visible_patches=9),
    )
    recipe = recipe_from_folder(folder)
    build_folder(folder.parent / "again", recipe, folder)
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        assert json.loads((folder.parent / "again" / name).read_text()) == json.loads((folder / name).read_text())
    (folder / "video_preprocessor_config.json").unlink()
    assert recipe_from_folder(folder).video_processor == {}  # made before there was one: the defaults serve


@pytest.mark.parametrize(
    "line, said",
    [
        ("num_frames = 0", "num_frames must be an integer from 1"),
        ("frames = 8", "unknown frames; known: num_frames"),
        ("size = 30", "size must be a multiple of the patch size 8, got 30"),
        ("patch_size = 16", "patch_size is 16, the model's is 8"),
        ('selection = "best"', "selection must be one of codec, difference, none"),
        ("image_std = [0.5, 0.5]", "image_std"),
    ],
)
def test_settings_of_a_recipe_that_cannot_be(tmp_path, line, said):
    with pytest.raises(UserError, match=r"\[video_processor\].*" + said):
        build_folder(
            tmp_path / "model", load_recipe(str(write_recipe(tmp_path, TOML.replace("num_frames = 8", line)))), None
        )


@pytest.mark.parametrize(
    "name, change, said",
    [
        (
            "preprocessor_config.json",
            lambda content: content.pop("auto_map"),
            "preprocessor_config.json has no auto_map",
        ),
        (
            "preprocessor_config.json",
            lambda content: content["auto_map"].update(AutoProcessor="evil.Evil"),
            "points AutoProcessor to 'evil.Evil'",
        ),
        (
            "preprocessor_config.json",
            lambda content: content["auto_map"].update(AutoImageProcessor="evil.Evil"),
            "points AutoImageProcessor to 'evil.Evil'",
        ),
        (
            "video_preprocessor_config.json",
            lambda content: content["auto_map"].pop("AutoVideoProcessor"),
            "lacks AutoVideoProcessor",
        ),
        (
            "video_preprocessor_config.json",
            lambda content: content["auto_map"].update(AutoVideoProcessor="a/b--c.D"),
            "points AutoVideoProcessor",
        ),
        (
            "video_preprocessor_config.json",
            lambda content: content.update(video_processor_type="Theirs"),
            "video_processor_type 'Theirs'",
        ),
        ("video_preprocessor_config.json", lambda content: content.update(patch_size=16), "patch_size 16, not 8"),
    ],
)
def test_verify_names_what_harms(folder, name, change, said):
    edit(folder / name, change)
    with pytest.raises(CheckFailed, match=said):
        files.check_config(folder, files.read_config(folder), PACKAGE, read_tensors(folder))


NATIVE = LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForImageClassification").replace(
    "[card]", '[processor]\nimage_processor_type = "LlavaViTImageProcessor"\nmax_num_patches = 9\n\n[card]'
)


def test_native_resolution_is_carried_over_and_its_files_agree(tmp_path):
    build_folder(tmp_path / "model", load_recipe(str(write_recipe(tmp_path, NATIVE))), None)
    build_folder(tmp_path / "again", recipe_from_folder(tmp_path / "model"), tmp_path / "model")
    for name in ("preprocessor_config.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    stated = json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())
    assert (stated["max_num_patches"], stated["patch_size"], stated["merge_size"]) == (9, 8, 1)
    tensors = read_tensors(tmp_path / "model")
    files.check_config(tmp_path / "model", files.read_config(tmp_path / "model"), PACKAGE, tensors)
    for name, change in (
        ("config.json", lambda content: content["auto_map"].pop("AutoImageProcessor")),
        ("preprocessor_config.json", lambda content: content.update(image_processor_type="CLIPImageProcessor")),
        ("preprocessor_config.json", lambda content: content["auto_map"].pop("AutoImageProcessor")),
    ):
        broken = shutil.copytree(tmp_path / "model", tmp_path / "broken")
        edit(broken / name, change)
        with pytest.raises(CheckFailed, match="AutoImageProcessor"):
            files.check_config(broken, files.read_config(broken), PACKAGE, tensors)
        shutil.rmtree(broken)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("LlavaViTImageProcessor", "SiglipImageProcessor", "image_processor_type is 'SiglipImageProcessor'"),
        ("LlavaViTForImageClassification", "LlavaViTModel", "of LlavaViTModel; accepted: LlavaViTImageProcessor of a"),
        ("max_num_patches = 9", "max_num_patches = 0", "max_num_patches must be an integer from 1"),
        ("max_num_patches = 9", "size = 224", "unknown size; known: patch_size, max_num_patches"),
        ("max_num_patches = 9", "patch_size = 16", "patch_size is 16, the model's is 8"),
        ("max_num_patches = 9", "image_std = [0.5, 0.5, 0.0]", "image_std must be three numbers"),
    ],
)
def test_native_settings_of_a_recipe_that_cannot_be(tmp_path, old, new, said):
    with pytest.raises(UserError, match=said):
        build_folder(tmp_path / "model", load_recipe(str(write_recipe(tmp_path, NATIVE.replace(old, new)))), None)


def test_verify_names_what_is_missing(folder):
    assert "byte for byte" in files.check_code(folder, files.read_config(folder), PACKAGE)
    (folder / "video_reading_llava_vit.py").unlink()
    with pytest.raises(CheckFailed, match="video_reading_llava_vit.py is missing"):
        files.check_code(folder, files.read_config(folder), PACKAGE)
    (folder / "video_preprocessor_config.json").unlink()
    with pytest.raises(CheckFailed, match="video_preprocessor_config.json is missing"):
        files.check_files(folder, PACKAGE)
