"""assemble.py: same bytes whatever the layout, all or nothing, and a reason for everything it refuses."""

import filecmp
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import assemble
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.origin import Origin
from hubtools.assembly.recipes import list_recipes, load_recipe
from hubtools.assembly.weights import parse_size
from hubtools.packages import ROOT
from safetensors.torch import load_file, save_file
from small import (
    BYTEFORMER_TOML,
    LLAVA_VIT_TOML,
    call,
    files_up_to,
    in_layout,
    random_state,
    save_checkpoint,
    write_recipe,
)

pytestmark = pytest.mark.usefixtures("warm_python")

SCRIPT = ROOT / "scripts" / "assemble.py"


def same_bytes(first: Path, second: Path) -> bool:
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    return filecmp.cmpfiles(first, second, names, shallow=False)[1:] == ([], [])


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(str(write_recipe(tmp_path)))


# ---------------------------------------------------------------------------------------------------------------------
# What it builds
# ---------------------------------------------------------------------------------------------------------------------


def save_wrapped(state, path):
    torch.save({"model": {f"module._orig_mod.{key}": value for key, value in state.items()}, "optimizer": {}}, path)


WRITERS = {
    "safetensors": (".safetensors", lambda state, path: save_file(state, path)),
    "pth": (".pth", torch.save),
    "wrapped and prefixed": (".pt", save_wrapped),
    "legacy": (".bin", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
}


def test_every_layout_and_container_gives_the_same_folder(tmp_path, recipe):
    state = random_state(recipe)
    folders = []
    for layout in ("hub", "training", "packed"):
        for writer, (suffix, save) in WRITERS.items():
            checkpoint = tmp_path / f"{layout} {writer}{suffix}"
            save(in_layout(recipe, state, layout), checkpoint)
            folders.append(tmp_path / "built" / layout / writer)
            build_folder(folders[-1], recipe, checkpoint)
    assert all(same_bytes(folders[0], folder) for folder in folders[1:])
    stored = load_file(folders[0] / "model.safetensors")
    assert sorted(stored) == sorted(state) and all(torch.equal(stored[name], state[name]) for name in state)


def test_shards_hold_the_same_tensors(tmp_path, recipe):
    checkpoint = save_checkpoint(tmp_path / "small.pth")
    build_folder(tmp_path / "sharded", recipe, checkpoint, max_shard_size=parse_size("100KB"))
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and not (tmp_path / "sharded" / "model.safetensors").exists()
    stored = {name: tensor for file in files for name, tensor in load_file(tmp_path / "sharded" / file).items()}
    assert all(os.path.getsize(tmp_path / "sharded" / file) < 110_000 for file in files)
    state = random_state(recipe)
    assert sorted(stored) == sorted(state) == sorted(index["weight_map"])
    assert all(torch.equal(stored[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "dtype, expected", [(None, "bfloat16"), (torch.float32, "float32"), (torch.float16, "float16")]
)
def test_the_dtype_of_the_checkpoint_is_kept_unless_asked_otherwise(tmp_path, recipe, dtype, expected):
    state = {name: tensor.bfloat16() for name, tensor in random_state(recipe).items()}
    torch.save(state, tmp_path / "half.pth")
    build_folder(tmp_path / "built", recipe, tmp_path / "half.pth", dtype=dtype)
    stored = load_file(tmp_path / "built" / "model.safetensors")
    assert json.loads((tmp_path / "built" / "config.json").read_text())["torch_dtype"] == expected
    for name, tensor in state.items():
        assert torch.equal(stored[name], tensor.to(dtype or torch.bfloat16)), name


def test_random_weights_depend_on_the_seed_alone(tmp_path, recipe):
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        build_folder(tmp_path / name, recipe, Origin(seed=seed))
    assert same_bytes(tmp_path / "one", tmp_path / "again")
    assert not filecmp.cmp(
        tmp_path / "one" / "model.safetensors", tmp_path / "two" / "model.safetensors", shallow=False
    )


def test_a_published_repository_needs_no_recipe(tmp_path, recipe):
    published = tmp_path / "onevision-encoder-small"
    published.mkdir()
    state = {name: tensor.bfloat16() for name, tensor in random_state(recipe).items()}
    save_file(state, published / "model.safetensors", metadata={"format": "pt"})
    settings = dict(recipe.config, model_type="onevision_encoder", rope_temporal_size=64, dtype="bfloat16",
                    architectures=["OneVisionEncoderModel"], transformers_version="5.7.0", auto_map={"AutoModel": "x.Y"})  # fmt: skip
    (published / "config.json").write_text(json.dumps(settings))
    (published / "README.md").write_text("---\nlicense: mit\n---\n# theirs\n")
    result = call(assemble.main, "--checkpoint", published, "--output", tmp_path / "ours")
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (config["model_type"], config["torch_dtype"], config["architectures"]) == (
        "llava_vit",
        "bfloat16",
        ["LlavaViTModel"],
    )
    assert config["rope_temporal_size"] == 64 and config["hidden_size"] == 64
    assert "license: mit" in (tmp_path / "ours" / "README.md").read_text()
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert all(torch.equal(stored[name], state[name]) for name in state)


def test_settings_that_are_not_known_are_not_dropped_in_silence(tmp_path, recipe):
    published = tmp_path / "published"
    published.mkdir()
    save_file(random_state(recipe), published / "model.safetensors")
    (published / "config.json").write_text(
        json.dumps(dict(recipe.config, model_type="onevision_encoder", rope_scaling=2))
    )
    result = call(assemble.main, "--checkpoint", published, "--output", tmp_path / "ours")
    assert result.code == 2 and "rope_scaling" in result.err


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_read_and_gives_a_configuration(name):
    recipe = load_recipe(name)
    config = recipe.build_config()
    assert config.model_type == recipe.package.model_type
    assert recipe.card["summary"] and recipe.card["license"]
    # Only the two models that are trained here have no checkpoint to ask for.
    assert recipe.checkpoint or (recipe.package.folder.parent / "hub_repos" / name / "model.safetensors").is_file()


def test_corenet_and_back_is_bit_identical(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path, BYTEFORMER_TOML)))
    corenet = in_layout(recipe, random_state(recipe), "corenet")
    torch.save(corenet, tmp_path / "corenet.pt")
    build_folder(tmp_path / "hub", recipe, tmp_path / "corenet.pt")
    result = call(assemble.main, "--checkpoint", tmp_path / "hub", "--to", "corenet", "--output", tmp_path / "back.pt")
    assert result.code == 0, result.err
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert list(back) == list(corenet) and all(torch.equal(back[name], corenet[name]) for name in corenet)


# ---------------------------------------------------------------------------------------------------------------------
# What it refuses
# ---------------------------------------------------------------------------------------------------------------------


def changed(change):
    """A checkpoint of the small model with `change(state)` applied, in training layout."""

    def make(folder):
        recipe = load_recipe(str(write_recipe(folder)))
        state = in_layout(recipe, random_state(recipe), "training")
        change(state)
        torch.save(state, folder / "small.pth")
        return folder / "small-model.toml", "--checkpoint", folder / "small.pth"

    return make


def with_recipe(toml, *arguments):
    def make(folder):
        save_checkpoint(folder / "small.pth")
        return write_recipe(folder, toml), *(arguments or ("--checkpoint", folder / "small.pth"))

    return make


def good(*arguments):
    return with_recipe(LLAVA_VIT_TOML, *arguments)


def edited(old, new):
    assert old in LLAVA_VIT_TOML
    return with_recipe(LLAVA_VIT_TOML.replace(old, new))


def plus(*arguments):
    return lambda folder: (*good()(folder), *arguments)


def transposed(state):
    state["transformer.layers.1.mlp.0.weight"] = state["transformer.layers.1.mlp.0.weight"].T.contiguous()


REFUSED = {
    "a missing tensor": (changed(lambda s: s.pop("ln_pre.weight")), "missing layernorm_pre.weight"),
    "half of a pair missing": (changed(lambda s: s.pop("transformer.layers.1.attn.in_proj.bias")), "missing encoder.layers.1.self_attn.k_proj.bias"),
    "an unexpected tensor": (changed(lambda s: s.update({"decoder.weight": torch.zeros(2)})), "unexpected decoder.weight"),
    "a layer too many": (changed(lambda s: s.update({"transformer.layers.2.ln_1.bias": torch.zeros(64)})), "unexpected transformer.layers.2.ln_1.bias"),
    "a misshapen tensor": (changed(transposed), r"encoder.layers.1.mlp.fc1.weight is \(64, 128\), expected \(128, 64\)"),
    "a stack that cannot be split": (changed(lambda s: s.update({"transformer.layers.0.attn.in_proj.bias": torch.zeros(191)})), "not 3 tensors stacked"),
    "NaN": (changed(lambda s: s["ln_post.bias"].fill_(float("nan"))), "NaN or infinity in layernorm_post.bias"),
    "infinity": (changed(lambda s: s["conv1.weight"].view(-1)[7].fill_(float("inf"))), "NaN or infinity in embeddings.patch_embedding.weight"),
    "integer weights": (changed(lambda s: s.update({"ln_pre.bias": torch.zeros(64, dtype=torch.int64)})), "layernorm_pre.bias is torch.int64"),
    "no checkpoint at the path": (good("--checkpoint", "/nowhere/small.pth"), "/nowhere/small.pth does not exist"),
    "a model of another kind": (lambda f: ("byteformer-imagenet-tiff", "--checkpoint", save_checkpoint(f / "small.pth", layout="training")), "no layout of byteformer"),
    "a checkpoint of another size": (edited("hidden_size = 64", "hidden_size = 128"), "hidden_size is 64, expected 128"),
    "neither checkpoint nor random": (good("--seed", "3"), "either --checkpoint FILE|FOLDER or --random-init"),
    "both checkpoint and random": (plus("--random-init"), "either --checkpoint FILE|FOLDER or --random-init"),
    "an unknown recipe": (lambda f: ("llava-vit-tiny", "--random-init"), "no recipe 'llava-vit-tiny'; known: .*llava-vit-small"),
    "a recipe file that is not there": (lambda f: (f / "none.toml", "--random-init"), "none.toml does not exist"),
    "a recipe that is not TOML": (with_recipe("package = "), "is not TOML"),
    "an unknown key": (edited("[config]", "[settings]\nx = 1\n[config]"), "unknown settings; known: package, architecture"),
    "an unknown configuration key": (edited("patch_size = 8", "patch_sizes = 8"), r"\[config\]: unknown patch_sizes; known: .*patch_size"),
    "an unknown processor key": (edited("[card]", "[processor]\nsizes = 3\n[card]"), r"\[processor\]: unknown sizes; known: .*size"),
    "an unknown card key": (edited('license = "apache-2.0"', 'licence = "apache-2.0"'), r"\[card\]: unknown licence; known: license"),
    "an unknown metric key": (edited("[card]", "[card]\nmetrics = [{name = 'x', score = 1}]"), "unknown score; known: name"),
    "a metric without its value": (edited("[card]", "[card]\nmetrics = [{name = 'x', dataset = 'd', task = 't'}]"), "value missing"),
    "an unknown package": (edited('"llavavit"', '"llava"'), "unknown package 'llava'; known: byteformer, llavavit"),
    "an unknown architecture": (edited('"LlavaViTModel"', '"LlavaViT"'), "architecture 'LlavaViT' is not in package"),
    "no package": (edited('package = "llavavit"', ""), "package must be given"),
    "a head dim not a multiple of 32": (edited("num_attention_heads = 2", "num_attention_heads = 4"), "32"),
    "a table that is a number": (lambda f: (write_recipe(f, 'config = 3\npackage = "llavavit"\narchitecture = "LlavaViTModel"'), "--random-init"), r"\[config\] must be a table, got 3"),
    "an unknown dtype": (plus("--dtype", "float8"), "dtype 'float8' is unknown; known: float64, float32, bfloat16, float16"),
    "a shard size that is no size": (plus("--max-shard-size", "many"), "size 'many' is not understood"),
    "a shard size of nothing": (plus("--max-shard-size", "0GB"), "size '0GB' is not understood"),
    "an unknown option": (plus("--dtypes", "float32"), "unrecognized arguments: --dtypes"),
    "an unknown target layout": (plus("--to", "timm"), "invalid choice: 'timm'"),
    "a state dict in a file of another kind": (plus("--to", "corenet"), "ends in .safetensors, .pt, .pth, .bin, not model"),
    "a recipe and an experiment file": (plus("--corenet-config", "x.yaml"), "not both"),
    "no recipe and no config.json": (lambda f: ("--checkpoint", save_checkpoint(f / "small.pth")), "name a recipe"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_and_nothing_written(tmp_path, case):
    make, reason = REFUSED[case]
    (tmp_path / "in").mkdir()
    arguments = make(tmp_path / "in")
    result = call(assemble.main, *arguments, "--output", tmp_path / "out" / "model")
    assert result.code == 2
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert re.search(reason, result.err), result.err
    assert not (tmp_path / "out").exists()


def test_a_layout_of_the_other_model_is_refused(tmp_path, recipe):
    output = tmp_path / "out.pt"
    result = call(assemble.main, *good()(tmp_path), "--to", "corenet", "--output", output)
    assert result.code == 2 and "llavavit has no layout 'corenet'" in result.err and not output.exists()


def test_the_sizes_of_a_checkpoint_name_the_recipe_that_fits(tmp_path):
    """A line about the sizes comes after a few of the hundreds of tensors that one wrong number makes missing."""
    checkpoint = tmp_path / "small.pth"
    with torch.device("meta"):
        state = load_recipe("llava-vit-small").build_model().state_dict()
    foreign = in_layout(
        load_recipe("llava-vit-small"),
        {name: torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()},
        "training",
    )
    torch.save({name: tensor[:1].expand(tensor.shape) for name, tensor in foreign.items()}, checkpoint)
    wrong = call(assemble.main, "llava-vit-base", "--checkpoint", checkpoint, "--output", tmp_path / "out")
    assert (
        wrong.code == 2
        and "hidden_size is 384, expected 768" in wrong.err
        and "num_hidden_layers is 6, expected 12" in wrong.err
    )
    assert "this looks like llava-vit-small" in wrong.err and wrong.err.count("\n") == 1
    other = call(assemble.main, "byteformer-imagenet-tiff", "--checkpoint", checkpoint, "--output", tmp_path / "out")
    assert other.code == 2 and "they look like llavavit" in other.err


def test_a_configuration_of_another_model(tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    result = call(assemble.main, "--checkpoint", tmp_path / "bert", "--output", tmp_path / "out")
    assert result.code == 2 and "model type 'bert'; accepted: byteformer, llava_vit, onevision_encoder" in result.err


def test_to_corenet_without_output_and_onto_a_folder(tmp_path):
    recipe = write_recipe(tmp_path, BYTEFORMER_TOML)
    assert "needs --output" in call(assemble.main, recipe, "--random-init", "--to", "corenet").err
    result = call(assemble.main, recipe, "--random-init", "--to", "corenet", "--output", tmp_path)
    assert result.code == 2 and "is a folder" in result.err


# ---------------------------------------------------------------------------------------------------------------------
# What it leaves alone
# ---------------------------------------------------------------------------------------------------------------------


def test_an_existing_output_is_left_alone(tmp_path):
    arguments = good()(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for extra in ((), ("--overwrite",)):  # not a Hub folder: --overwrite does not touch it either
        result = call(assemble.main, *arguments, "--output", tmp_path / "out", *extra)
        assert result.code == 2 and ("exists" in result.err or "not a Hub folder" in result.err)
        assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_the_input_is_never_replaced(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    build_folder(tmp_path / "hub", recipe, None)
    before = (tmp_path / "hub" / "model.safetensors").read_bytes()
    for output in (tmp_path / "hub", tmp_path):
        result = call(assemble.main, "--checkpoint", tmp_path / "hub", "--output", output, "--overwrite")
        assert result.code == 2 and "would replace the input" in result.err
    assert (tmp_path / "hub" / "model.safetensors").read_bytes() == before


def test_overwrite_replaces_a_hub_folder_only_by_a_good_one(tmp_path):
    recipe = write_recipe(tmp_path)
    output = tmp_path / "out"
    build_folder(output, load_recipe(str(recipe)), Origin(seed=1))
    before = (output / "model.safetensors").read_bytes()
    bad = changed(lambda state: state["ln_post.bias"].fill_(float("nan")))(tmp_path)
    assert call(assemble.main, *bad, "--output", output, "--overwrite").code == 2
    assert (output / "model.safetensors").read_bytes() == before
    assert call(assemble.main, recipe, "--random-init", "--seed", "2", "--output", output, "--overwrite").code == 0
    assert (output / "model.safetensors").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small-model.toml", "small.pth"]


@pytest.mark.parametrize(
    "toml, what", [(LLAVA_VIT_TOML, ()), (BYTEFORMER_TOML, ("--to", "corenet"))], ids=["folder", "state dict"]
)
def test_no_room_for_the_weights(tmp_path, toml, what):
    output = tmp_path / "out" / ("model.pt" if what else "model")
    arguments = [
        str(argument) for argument in (write_recipe(tmp_path, toml), "--random-init", *what, "--output", output)
    ]
    result = subprocess.run(
        [sys.executable, SCRIPT, *arguments], preexec_fn=files_up_to(200_000), capture_output=True, text=True
    )
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert re.search("File too large|could not be written to its end", result.stderr) and str(output) in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_kill_in_the_middle(tmp_path, how):
    output = tmp_path / "out" / "model"
    command = [sys.executable, str(SCRIPT), "llava-vit-small", "--random-init", "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.partial-*/model/config.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    if how != signal.SIGKILL:
        assert not (tmp_path / "out").exists()
        return
    left = [path.name for path in (tmp_path / "out").iterdir()]
    # Nobody can tidy up after SIGKILL; the next run for the same output does, and succeeds.
    assert len(left) == 1 and left[0].startswith(".partial-")
    (tmp_path / "out" / left[0] / "model" / "config.json").unlink()
    result = call(assemble.main, write_recipe(tmp_path), "--random-init", "--output", output)
    assert result.code == 0, result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
