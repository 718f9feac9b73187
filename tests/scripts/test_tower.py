"""The vision tower of LLaVA-OneVision-2: out of the language model's checkpoint, and back into it."""

import dataclasses
import json
import shutil
import subprocess
import sys

import assemble
import numpy as np
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.checkpoint import open_checkpoint
from hubtools.assembly.published import recipe_from_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.benchmarks import case_named
from hubtools.benchmarks.models import build, reference_file
from hubtools.errors import UserError
from hubtools.foreign.tensors import StoredTensor
from hubtools.models.llavavit import pack_of, squares
from hubtools.packages import ROOT
from language_models import GOLDEN, TOWER_SHARDS, golden_config, host, tower_state
from measure import OUTPUTS, relative_error
from safetensors.torch import load_file, save_file
from small import call, write_recipe

from llavavit import LlavaViTModel, LlavaViTVideoProcessor

pytestmark = pytest.mark.usefixtures("warm_python")

NAMES = ("tower_whole", "tower_windows")

FRESH = """
import json, sys, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
folder, cases, results = sys.argv[1:]
tensors, found = load_file(cases), {}
for backend in ("eager", "sdpa"):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True, attn_implementation=backend).eval()
    for case in sorted({name.split(".in.")[0] for name in tensors if ".in." in name}):
        inputs = {name.split(".in.")[1]: tensor for name, tensor in tensors.items() if name.startswith(case + ".in.")}
        with torch.no_grad():
            outputs = model(**inputs, output_hidden_states=True)
        place = f"{backend}.{case}.out."
        found.update({f"{place}hidden_states.{i}": state for i, state in enumerate(outputs.hidden_states)})
        found[f"{place}last_hidden_state"] = outputs.last_hidden_state
        found[f"{place}merged"] = outputs.merged_states
save_file({name: tensor.clone() for name, tensor in found.items()}, results)
"""


def outputs_in_fresh_process(folder, name, results):
    """What the folder alone gives on eager and sdpa, away from the repository."""
    command = [sys.executable, "-c", FRESH, folder, GOLDEN / f"{name}.cases.safetensors", results]
    done = subprocess.run([str(part) for part in command], cwd=results.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(results)


@pytest.mark.parametrize("name", NAMES)
def test_out_of_the_language_model_and_back(tmp_path, name):
    """assemble.py on a folder most of which is not there, the recorded outputs from its result, the way back."""
    source = host(tmp_path / "LLaVA-OneVision-2", name)
    result = call(assemble.main, "--checkpoint", source, "--output", tmp_path / "tower")
    assert result.code == 0, result.err + result.out
    last = result.out.strip().splitlines()[-1]
    assert "llava-onevision-2 layout; left out: 5 tensors of lm_head, model.language_model;" in last
    expected = load_file(GOLDEN / f"{name}.cases.safetensors")
    outputs = {key: tensor for key, tensor in expected.items() if ".out." in key}
    assert any(key.endswith(".merged") for key in outputs)
    found = outputs_in_fresh_process(tmp_path / "tower", name, tmp_path / "outputs.safetensors")
    for backend in ("eager", "sdpa"):
        for key, value in outputs.items():
            assert relative_error(found[f"{backend}.{key}"], value) <= OUTPUTS, (backend, key)
    processor = json.loads((tmp_path / "tower" / "preprocessor_config.json").read_text())
    assert (processor["image_mean"], processor["image_std"]) == ([0.5, 0.4, 0.3], [0.5, 0.5, 0.5])
    config = golden_config(name)
    block = config["patch_size"] * config["spatial_merge_size"]
    assert processor["crop_size"]["height"] % block == 0 and processor["image_processor_type"] == "CLIPImageProcessor"
    check_videos(tmp_path / "tower", block)

    back = tmp_path / "visual.safetensors"
    result = call(assemble.main, "--checkpoint", tmp_path / "tower", "--to", "llava-onevision-2", "--output", back)
    assert result.code == 0, result.err
    written, original = load_file(back), tower_state(name)
    assert set(written) == set(original)
    for key, tensor in original.items():
        assert written[key].dtype == tensor.dtype and written[key].equal(tensor), key
    build_folder(tmp_path / "again", load_recipe(str(write_tower_recipe(tmp_path, name))), back)
    first, again = (tmp_path / folder / "model.safetensors" for folder in ("tower", "again"))
    assert first.read_bytes() == again.read_bytes()


def check_videos(folder, block):
    """What the folder's video processor makes of a clip is what its model takes, and means the clip as a whole."""
    processor = LlavaViTVideoProcessor.from_pretrained(folder, num_frames=6)
    model = LlavaViTModel.from_pretrained(folder).eval()
    inputs = processor(videos=np.random.default_rng(0).integers(0, 256, (6, 50, 70, 3), np.uint8), return_tensors="pt")
    assert processor.size % block == 0 and inputs["visible_indices"].shape[1] == inputs["patch_positions"].shape[1]
    inputs["patch_positions"][..., 0] = torch.tensor(inputs.frame_indices[0]).repeat_interleave(
        inputs["visible_indices"].shape[1] // 6
    )
    with torch.no_grad():
        found, whole = model(**inputs), model(inputs["pixel_values"])
    for name in ("last_hidden_state", "merged_states"):
        assert relative_error(found[name], whole[name]) <= OUTPUTS, name


def write_tower_recipe(folder, name="tower_windows", **settings):
    config = {**golden_config(name), **settings}
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items() if value is not None]
    head = 'package = "llavavit"\narchitecture = "LlavaViTModel"\n[config]\n'
    return write_recipe(folder, head + "\n".join(lines) + "\n", f"recipe-{len(list(folder.glob('*.toml')))}")


def test_nothing_but_the_tower_is_read(tmp_path, monkeypatch):
    """Bytes read from the tensors and the headers, of a checkpoint that declares 20 GB."""
    source = host(tmp_path / "host")
    read = []
    whole = StoredTensor.read
    monkeypatch.setattr(
        StoredTensor, "read", lambda stored: read.append((stored.path.name, whole(stored))) or read[-1][1]
    )
    build_folder(tmp_path / "tower", recipe_from_folder(source), source)
    tower = sum(tensor.nbytes for tensor in tower_state("tower_windows").values())
    headers = sum(8 + int.from_bytes((source / file).read_bytes()[:8], "little") for file in TOWER_SHARDS)
    assert {file for file, _ in read} == set(TOWER_SHARDS)
    assert sum(tensor.nbytes for _, tensor in read) == tower
    assert tower + headers < 1.1 * tower
    with open_checkpoint(source) as checkpoint:
        assert len(checkpoint.left_out) == 5 and not checkpoint.absent


def test_a_bare_file_a_single_shard_and_older_names(tmp_path):
    """With a recipe; a language model's tensors beside the tower's are left behind, its other shards need not exist."""
    recipe = load_recipe(str(write_tower_recipe(tmp_path)))
    beside = {"model.layers.0.mlp.weight": torch.ones(3, 3), "model.embed_tokens.weight": torch.ones(3)}
    written = {}
    for number, (file, prefix, others) in enumerate(
        [
            ("bare.safetensors", "model.visual.", {}),
            ("older.safetensors", "visual.", beside),
            ("model-00003-of-00004.safetensors", "model.visual.", {"lm_head.weight": torch.ones(3, 3)}),
            ("alone-00001-of-00002.safetensors", "model.visual.", {}),
            ("pickled.pth", "visual.", beside),
        ]
    ):
        state = {**tower_state("tower_windows", prefix), **others}
        (torch.save if file.endswith(".pth") else save_file)(state, tmp_path / file)
        output = tmp_path / f"tower-{number}"
        result = build_folder(output, recipe, tmp_path / file)
        assert ("left out: " in result.origin) == bool(others), file
        written[file] = (output / "model.safetensors").read_bytes()
    assert len(set(written.values())) == 1


def test_the_merger_may_be_left(tmp_path):
    save_file(tower_state("tower_windows"), tmp_path / "visual.safetensors")
    recipe = load_recipe(str(write_tower_recipe(tmp_path, out_hidden_size=None)))
    built = build_folder(tmp_path / "tower", recipe, tmp_path / "visual.safetensors")
    assert built.origin.endswith("left out: 6 tensors of merger")
    assert not any(name.startswith("merger.") for name in load_file(tmp_path / "tower" / "model.safetensors"))
    assert json.loads((tmp_path / "tower" / "config.json").read_text())["out_hidden_size"] is None


def drop(pattern):
    def change(folder):
        for file in TOWER_SHARDS:
            state = {key: tensor for key, tensor in load_file(folder / file).items() if pattern not in key}
            save_file(state, folder / file, metadata={"format": "pt"})
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        index["weight_map"] = {key: file for key, file in index["weight_map"].items() if pattern not in key}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def without(file):
    return lambda folder: (folder / file).unlink()


def write(file, content):
    return lambda folder: (folder / file).write_text(content)


BAD_FOLDERS = {
    "no tower": (drop("visual"), {}, "holds a language model without a vision tower"),
    "half a tower": (drop("layers.1."), {}, "missing encoder.layers.1"),
    "no merger": (drop("merger."), {}, "missing merger.ln_q.bias, merger.ln_q.weight, merger.mlp.0.bias"),
    "half a merger": (drop("merger.mlp.2"), {}, "missing merger.mlp.2.bias, merger.mlp.2.weight"),
    "no norm": (drop("layernorm_pre"), {}, "missing layernorm_pre.bias, layernorm_pre.weight"),
    "a shard of the tower is missing": (without(TOWER_SHARDS[1]), {}, f"{TOWER_SHARDS[1]} is missing"),
    "a shard of the tower is cut": (write(TOWER_SHARDS[1], "cut"), {}, "not a whole safetensors file"),
    "a merger of another width": (None, {"out_hidden_size": 40}, "out_hidden_size is 48, expected 40"),
    "a merger of other blocks": (None, {"spatial_merge_size": 3}, "spatial_merge_size is 2, expected 3"),
    "a merger of no width": (None, {"out_hidden_size": 0}, "out_hidden_size must be"),
    "more layers": (None, {"num_hidden_layers": 3}, "num_hidden_layers is 2, expected 3"),
    "another width": (None, {"hidden_size": 128}, "hidden_size is 64, expected 128"),
    "a head that is not there": (None, {"use_head": True}, "missing head."),
    "patches in time": (None, {"temporal_patch_size": 2}, "has temporal_patch_size 2; accepted: 1"),
    "windows below zero": (None, {"frame_windows_size": -1}, "frame_windows_size must be"),
    "an unknown setting": (None, {"sliding_window": 5}, "settings that llavavit does not know: 'sliding_window'"),
    "another encoder": (None, {"model_type": "siglip"}, "vision_config is of model type 'siglip'; accepted: llava_vit"),
    "an encoder without a type": (None, {"model_type": ...}, "vision_config is of model type"),
    "no vision_config": (write("config.json", '{"model_type": "llava_onevision2"}'), {}, "vision_config is None"),
    "a vision_config that is none": (
        write("config.json", '{"model_type": "llava_onevision2", "vision_config": [1]}'), {}, "vision_config is"),
    "another host": (write("config.json", '{"model_type": "llava_next"}'), {}, "is of model type 'llava_next'"),
    "a processor of another kind": (write("preprocessor_config.json", '{"image_mean": "x"}'), {}, "image_mean must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_folder_is_refused_by_name(tmp_path, case):
    change, settings, expected = BAD_FOLDERS[case]
    source = host(tmp_path / "host", **settings)
    if change:
        change(source)
    result = call(assemble.main, "--checkpoint", source, "--output", tmp_path / "tower")
    assert result.code == 2 and expected in result.err and result.err.count("\n") == 1, result.err
    assert not (tmp_path / "tower").exists()


def test_a_tower_in_shards_that_are_not_there_says_so(tmp_path):
    state = tower_state("tower_windows")
    half = {key: state[key] for key in sorted(state)[:9]}
    save_file({**half, "lm_head.weight": torch.ones(2)}, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(UserError, match="missing .*; not found: model-00002-of-00003.safetensors, model-00003"):
        recipe = load_recipe(str(write_tower_recipe(tmp_path)))
        build_folder(tmp_path / "tower", recipe, tmp_path / "model-00001-of-00003.safetensors")


def test_the_way_back_refuses_what_the_language_model_has_no_place_for(tmp_path):
    write_tower_recipe(tmp_path)
    made = tmp_path / "with-head"
    recipe = load_recipe(str(write_tower_recipe(tmp_path, use_head=True)))
    build_folder(made, recipe, None)
    refused = {
        "visual.safetensors": "the llava-onevision-2 layout has no place for head.",
        "visual.txt": "writes a file that ends in .safetensors, .pt, .pth, .bin, not visual.txt",
    }
    for file, expected in refused.items():
        arguments = ("--checkpoint", made, "--to", "llava-onevision-2", "--output", tmp_path / file)
        result = call(assemble.main, *arguments)
        assert result.code == 2 and expected in result.err and result.err.count("\n") == 1, result.err
        assert not (tmp_path / file).exists()
    nowhere = call(assemble.main, "--checkpoint", made, "--to", "llava-onevision-2")
    assert nowhere.code == 2 and "needs --output FILE.safetensors" in nowhere.err
    shutil.copytree(ROOT / "hub_repos" / "byteformer-digits", tmp_path / "bytes")
    arguments = (
        "--checkpoint",
        tmp_path / "bytes",
        "--to",
        "llava-onevision-2",
        "--output",
        tmp_path / "b.safetensors",
    )
    result = call(assemble.main, *arguments)
    assert result.code == 2 and "byteformer has no layout 'llava-onevision-2'" in result.err, result.err


@torch.no_grad()
def test_the_references_of_the_benchmark_compute_what_the_model_does():
    """On small packs: one forward a sample, one attention call a window, padding to the largest."""
    for name, reference, windows, grids in (
        ("packed", "PlainPackPadded", 0, squares(1, 5, 4)),
        ("packed", "PlainPackOneByOne", 0, squares(2, 4, 3)),
        ("tower-windows", "PlainPackInWindows", 2, [(5, 2, 3), (1, 2, 2), (2, 1, 1)]),
    ):
        sizes = dict(hidden_size=64, intermediate_size=96, num_attention_heads=2, frame_windows_size=windows)
        small = dataclasses.replace(case_named(name), config={**case_named(name).config, **sizes})
        inputs = pack_of(*grids)(torch.Generator().manual_seed(0))
        ours = build(small, "model", "")(**inputs)[small.output]
        theirs = build(small, "reference", reference_file(f"tests/plain_llava_vit.py:{reference}"))(**inputs)
        assert relative_error(ours, theirs[small.output]) <= OUTPUTS, reference
