"""Reading checkpoints: every container a user may hold, and every one that must be refused."""

import argparse
import json
import os
import pickle

import pytest
import torch
from hubtools.assembly.checkpoint import open_checkpoint
from hubtools.errors import UserError
from safetensors.torch import save_file


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4), "b": torch.randn(2, 2).bfloat16()}


def assert_holds(path, state):
    with open_checkpoint(path) as checkpoint:
        assert sorted(checkpoint.names()) == sorted(state)
        for name, tensor in state.items():
            assert checkpoint.shape(name) == tuple(tensor.shape)
            assert checkpoint.dtype(name) == tensor.dtype
            assert torch.equal(checkpoint.tensor(name), tensor)


WRAPPINGS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1)},
    "model_state_dict": lambda state: {"model_state_dict": state, "best": 0.5},
    "nested": lambda state: {"model": {"state_dict": state}},
    "ddp": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "compiled, then ddp": lambda state: {
        "model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
    },
    "the same twice": lambda state: {"model": state, "state_dict": state},
    "averaged weights alone": lambda state: {
        "model_ema": state,
        "optimizer": {"state": {"a.weight": {"exp_avg": torch.zeros(4, 3)}}},
    },
    "scales and random states beside": lambda state: {
        "net": state,
        "scaler": {"scale": torch.ones(1)},
        "rng": {"cpu": torch.zeros(8, dtype=torch.uint8)},
    },
    "lightning": lambda state: {
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "callbacks": {"x": {"y": torch.ones(2)}},
    },
    "peft": lambda state: {f"base_model.model.{name}": tensor for name, tensor in state.items()},
    "vision tower": lambda state: {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in state.items()},
    "visual": lambda state: {f"model.visual.{name}": tensor for name, tensor in state.items()},
    "backbone, with a head beside": lambda state: {
        (f"backbone.{name}" if "a" in name else name): tensor for name, tensor in state.items()
    },
    "compiled inside": lambda state: {name.replace("a.", "a._orig_mod."): tensor for name, tensor in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
def test_pickled_checkpoints(tmp_path, state, wrapping, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save(WRAPPINGS[wrapping](state), path)
    assert_holds(path, state)


def test_the_format_before_torch_1_6(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert_holds(path, state)


def test_safetensors_alone_and_in_a_folder(tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    assert_holds(tmp_path / "model.safetensors", state)
    assert_holds(tmp_path, state)


@pytest.mark.parametrize("suffix, save", [(".safetensors", save_file), (".bin", torch.save)])
@pytest.mark.parametrize("given", ["folder", "index", "first shard without index"])
def test_shards(tmp_path, state, suffix, save, given):
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    files = {name: f"{stem}-0000{1 + i // 2}-of-00002{suffix}" for i, name in enumerate(state)}
    for file in set(files.values()):
        save({name: tensor for name, tensor in state.items() if files[name] == file}, tmp_path / file)
    index = tmp_path / f"{stem}{suffix}.index.json"
    if given != "first shard without index":
        index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert_holds({"folder": tmp_path, "index": index, "first shard without index": tmp_path / files["b"]}[given], state)


class Harm:
    """A pickle that leaves a trace when it is unpickled carelessly."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def pickled_code(tmp_path, state):
    torch.save({"model": state, "hook": Harm(tmp_path / "trace")}, tmp_path / "bad.pth")


def pickled_code_plain(tmp_path, state):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"hook": Harm(tmp_path / "trace")}))


def pickled_module(tmp_path, state):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "bad.pth")


def empty(tmp_path, state):
    (tmp_path / "bad.pth").touch()


def empty_safetensors(tmp_path, state):
    (tmp_path / "bad.safetensors").touch()


def foreign(tmp_path, state):
    (tmp_path / "bad.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))


def foreign_safetensors(tmp_path, state):
    (tmp_path / "bad.safetensors").write_bytes(b"not a checkpoint at all" * 10)


def truncated(tmp_path, state):
    torch.save({"x": torch.randn(1000)}, tmp_path / "bad.pth")
    os.truncate(tmp_path / "bad.pth", 2000)


def truncated_safetensors(tmp_path, state):
    save_file({"x": torch.randn(1000)}, tmp_path / "bad.safetensors")
    os.truncate(tmp_path / "bad.safetensors", 2000)


def wrong_ending(tmp_path, state):
    (tmp_path / "bad.ckpt.gz").write_bytes(b"x")


def no_tensors(tmp_path, state):
    torch.save({}, tmp_path / "bad.pth")


def a_list(tmp_path, state):
    torch.save([torch.zeros(2)], tmp_path / "bad.pth")


def numbers_among_tensors(tmp_path, state):
    torch.save({**state, "epoch": 3}, tmp_path / "bad.pth")


def two_state_dicts(tmp_path, state):
    torch.save(
        {"model": state, "state_dict": {name: tensor + 1 for name, tensor in state.items()}}, tmp_path / "bad.pth"
    )


def raw_and_averaged(tmp_path, state):
    torch.save(
        {"model": state, "model_ema": {name: tensor + 1 for name, tensor in state.items()}, "optimizer": {}},
        tmp_path / "bad.pth",
    )


def averaged_inside(tmp_path, state):
    averaged = {"decay": 0.9, "shadow": {name: tensor + 1 for name, tensor in state.items()}}
    torch.save({"state_dict": state, "ema": averaged}, tmp_path / "bad.ckpt")


def colliding_prefixes(tmp_path, state):
    torch.save({**state, "module.a.bias": torch.zeros(4)}, tmp_path / "bad.pth")


def two_files_in_a_folder(tmp_path, state):
    (tmp_path / "bad").mkdir()
    for name in ("one.pth", "two.pth"):
        torch.save(state, tmp_path / "bad" / name)


def nothing_in_a_folder(tmp_path, state):
    (tmp_path / "bad").mkdir()


def missing_shard(tmp_path, state):
    (tmp_path / "bad.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))


def index_names_another_tensor(tmp_path, state):
    save_file(state, tmp_path / "shard.safetensors")
    (tmp_path / "bad.safetensors.index.json").write_text(json.dumps({"weight_map": {"z": "shard.safetensors"}}))


def index_leaves_the_folder(tmp_path, state):
    (tmp_path / "bad.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))


def index_is_not_json(tmp_path, state):
    (tmp_path / "bad.safetensors.index.json").write_text("{")


def index_without_a_map(tmp_path, state):
    (tmp_path / "bad.safetensors.index.json").write_text("[]")


REFUSED = {
    pickled_code: "asks for Python code",
    pickled_code_plain: "asks for Python code|not a whole PyTorch checkpoint|not a PyTorch checkpoint",
    pickled_module: "asks for Python code.*state_dict",
    empty: "is empty",
    empty_safetensors: "is empty",
    foreign: "not a (whole )?PyTorch checkpoint",
    foreign_safetensors: "not a whole safetensors file",
    truncated: "not a whole PyTorch checkpoint",
    truncated_safetensors: "not a whole safetensors file",
    wrong_ending: r"accepted endings: \.safetensors",
    no_tensors: "holds no tensors",
    a_list: "holds a list",
    numbers_among_tensors: "not tensors: epoch",
    two_state_dicts: "several state dicts: model, state_dict; choose one with --key",
    raw_and_averaged: "several state dicts: model, model_ema; choose one with --key",
    averaged_inside: "several state dicts: state_dict, ema.shadow; choose one with --key",
    colliding_prefixes: "are both a.bias",
    two_files_in_a_folder: "several checkpoints: one.pth, two.pth",
    nothing_in_a_folder: "holds no checkpoint",
    missing_shard: "gone.safetensors is missing",
    index_names_another_tensor: "disagree about",
    index_leaves_the_folder: "outside its folder",
    index_is_not_json: "bad.safetensors.index.json is not readable JSON",
    index_without_a_map: "bad.safetensors.index.json holds .*, not a JSON object",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_refused_with_a_reason(tmp_path, state, make):
    make(tmp_path, state)
    path = next(path for path in tmp_path.iterdir() if path.name.startswith("bad"))
    with pytest.raises(UserError, match=REFUSED[make]), open_checkpoint(path) as checkpoint:
        for name in checkpoint.names():
            checkpoint.tensor(name)
    assert not (tmp_path / "trace").exists(), "code from the checkpoint was run"


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_checkpoint(tmp_path / "none.pth")


def test_the_key_chooses_among_state_dicts(tmp_path, state):
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "ema": {"shadow": averaged}, "optimizer": {}}, tmp_path / "weights.pth")
    for key, expected in (("model", state), ("ema.shadow", averaged)):
        with open_checkpoint(tmp_path / "weights.pth", key=key) as checkpoint:
            assert torch.equal(checkpoint.tensor("b"), expected["b"])
    with pytest.raises(UserError, match="has no state dict 'model_ema'; it has: model, ema.shadow"):
        open_checkpoint(tmp_path / "weights.pth", key="model_ema")
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="--key model chooses among the state dicts of a pickled file"):
        open_checkpoint(tmp_path / "weights.safetensors", key="model")


def test_the_prefix_chooses_tensors(tmp_path, state):
    torch.save(
        {**{f"tower.{name}": tensor for name, tensor in state.items()}, "lm.weight": torch.zeros(2)},
        tmp_path / "weights.pth",
    )
    with open_checkpoint(tmp_path / "weights.pth", prefix="tower.") as checkpoint:
        assert sorted(checkpoint.names()) == sorted(state) and len(checkpoint.left_out) == 1
        assert torch.equal(checkpoint.tensor("b"), state["b"])
    with pytest.raises(UserError, match="no tensor's name begins with 'visual.'; there are tower.a.weight"):
        open_checkpoint(tmp_path / "weights.pth", prefix="visual.")


def test_a_pickle_inside_itself_is_read_to_an_end(tmp_path, state):
    around = {"model": {"state_dict": state}}
    around["self"] = around["model"]["again"] = around
    torch.save(around, tmp_path / "weights.pth")
    assert_holds(tmp_path / "weights.pth", state)
