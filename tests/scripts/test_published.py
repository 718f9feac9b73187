"""Folders that bring their own configuration and processor: carried over as they are, or refused by name."""

import json
import shutil

import assemble
import pytest
from hubtools.assembly.build import build_folder
from hubtools.assembly.origin import Origin
from hubtools.assembly.published import recipe_from_folder, reconciled
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.packages import ROOT
from safetensors.torch import save_file
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, call, random_state, write_recipe
from transformers import CLIPImageProcessor

pytestmark = pytest.mark.usefixtures("warm_python")

# What a published repository may say: other statistics and sizes than CLIP's, in the words of older releases.
THEIRS = {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "processor_class": "CLIPProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": 40,
    "crop_size": 40,
    "resample": 2,
}


def write_json(path, content):
    path.write_text(json.dumps(content))


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    recipe = load_recipe(str(write_recipe(tmp_path)))
    save_file(random_state(recipe), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", dict(recipe.config, model_type="onevision_encoder", rope_temporal_size=64))
    write_json(folder / "preprocessor_config.json", THEIRS)
    return folder


def pixels(folder):
    """What the folder's processor makes of a picture."""
    import numpy

    picture = numpy.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=numpy.uint8)
    return CLIPImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("how", ["alone", "with a recipe"])
def test_a_published_processor_is_carried_over(tmp_path, published, how):
    if how == "alone":
        result = call(assemble.main, "--checkpoint", published, "--output", tmp_path / "ours")
        assert result.code == 0, result.err
    else:
        build_folder(
            tmp_path / "ours", reconciled(load_recipe(str(tmp_path / "small-model.toml")), published), published
        )
    ours = json.loads((tmp_path / "ours" / "preprocessor_config.json").read_text())
    assert (ours["image_mean"], ours["size"], ours["resample"]) == ([0.5, 0.5, 0.5], {"shortest_edge": 40}, 2)
    assert ours["image_processor_type"] == "CLIPImageProcessor" and "processor_class" not in ours
    assert pixels(tmp_path / "ours").shape == (1, 3, 40, 40) and pixels(tmp_path / "ours").equal(pixels(published))


def test_what_a_published_processor_leaves_out_is_clips_not_the_recipes(tmp_path, published):
    write_json(
        published / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", "do_normalize": False}
    )
    recipe = recipe_from_folder(published)
    build_folder(tmp_path / "ours", recipe, published)
    assert pixels(tmp_path / "ours").shape == (1, 3, 224, 224) and pixels(tmp_path / "ours").equal(pixels(published))


@pytest.mark.parametrize(
    "change, expected",
    [
        (
            dict(feature_extractor_type=None, image_processor_type="SiglipImageProcessor"),
            "image_processor_type 'SiglipImageProcessor', which cannot be carried over",
        ),
        (dict(auto_map={"AutoImageProcessor": "theirs.Processor"}), "auto_map .* cannot be carried over"),
        (dict(do_pad=True), "sets do_pad to True, which cannot be carried over"),
    ],
)
def test_a_processor_that_cannot_be_carried_over_is_named(tmp_path, published, change, expected):
    write_json(published / "preprocessor_config.json", {**THEIRS, **change})
    with pytest.raises(UserError, match=expected):
        recipe_from_folder(published)
    # The way out that the message names.
    parser = assemble.build_parser().parse_args(
        [str(tmp_path / "small-model.toml"), "--checkpoint", str(published / "model.safetensors")]
    )
    assert assemble.choose_recipe(parser).processor == {}


def test_a_folder_without_a_processor_gets_one_and_says_so(tmp_path, published):
    (published / "preprocessor_config.json").unlink()
    (tmp_path / "ours").write_text("in the way")  # so that nothing is built: the recipe is chosen first
    result = call(assemble.main, "--checkpoint", published, "--output", tmp_path / "ours")
    assert "brings no preprocessor_config.json; inputs will be prepared as llavavit models are trained" in result.err


@pytest.mark.parametrize(
    "name, said",
    [
        ("video_preprocessor_config.json", "video_processor_type 'TheirVideoProcessor', which cannot be carried over"),
        ("processor_config.json", "has no counterpart here"),
    ],
)
def test_files_of_other_processors_are_named(published, name, said):
    write_json(published / name, {"video_processor_type": "TheirVideoProcessor"})
    with pytest.raises(UserError, match=f"{name} (has )?{said}"):
        recipe_from_folder(published)


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("patch_size = 8", "patch_size = 8\nrope_theta = 5.0", "rope_theta is 10000.0 in config.json, 5.0 by recipe"),
        (
            "[card]",
            "[processor]\nsize = 56\n[card]",
            r"size is \{'shortest_edge': 40\} in preprocessor_config.json, \{'shortest_edge': 56\} by recipe",
        ),
    ],
)
def test_a_recipe_and_a_folder_that_differ_are_not_reconciled_in_silence(tmp_path, published, old, new, expected):
    config = json.loads((published / "config.json").read_text())
    write_json(published / "config.json", {**config, "rope_theta": 10000.0})
    recipe = load_recipe(str(write_recipe(tmp_path, LLAVA_VIT_TOML.replace(old, new), "other")))
    with pytest.raises(UserError, match=expected):
        reconciled(recipe, published)
    with pytest.raises(UserError, match="is of model type 'llava_vit', recipe bytes is for 'byteformer'"):
        reconciled(load_recipe(str(write_recipe(tmp_path, BYTEFORMER_TOML, "bytes"))), published)


def test_one_of_our_folders_assembled_again_is_the_same(tmp_path):
    """With its recipe and without, whichever way the recipe spells a size."""
    toml = BYTEFORMER_TOML.replace("[processor]", "[processor]\nsize = 24\ncrop_size = 16")
    recipe = load_recipe(str(write_recipe(tmp_path, toml)))
    build_folder(tmp_path / "first", recipe, Origin(seed=3))
    build_folder(tmp_path / "again", reconciled(recipe, tmp_path / "first"), tmp_path / "first")
    build_folder(tmp_path / "alone", recipe_from_folder(tmp_path / "first"), tmp_path / "first")
    for folder in ("again", "alone"):
        for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
            assert (tmp_path / folder / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), (folder, name)
    shutil.rmtree(tmp_path / "alone")


@pytest.mark.parametrize("name", ["byteformer-digits", "llava-vit-moving-digits"])
def test_a_trained_model_of_the_repository_becomes_a_whole_folder(tmp_path, name):
    """Whether it is assembled or copied with what its links lead to."""
    trained = ROOT / "hub_repos" / name
    build_folder(tmp_path / "made", reconciled(load_recipe(name), trained), trained)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(
        path.name for path in trained.iterdir()
    )
    assert not any(path.is_symlink() for path in (tmp_path / "made").iterdir())
    for path in trained.iterdir():
        if path.suffix != ".json":
            assert (tmp_path / "made" / path.name).read_bytes() == path.read_bytes(), path.name
    made, stated = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "made", trained))
    assert {key: made[key] for key in stated} == stated
