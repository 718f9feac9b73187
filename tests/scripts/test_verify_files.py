"""verify.py, what it finds without loading a model: every way of tampering with a folder's files is named."""

import json
import shutil
import struct

import pytest
import torch
import verify
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.assembly.weights import parse_size
from hubtools.packages import PACKAGES
from hubtools.verification import files
from hubtools.verification.check import CheckFailed
from hubtools.verification.weight_files import DamagedFile, read_tensors
from safetensors.torch import load_file, save_file
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, call, write_recipe

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PACKAGE = PACKAGES["llavavit"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Folders that pass: {"single", "sharded", "bytes"}."""
    base = tmp_path_factory.mktemp("good")
    llava_vit = load_recipe(str(write_recipe(base, LLAVA_VIT_TOML)))
    build_folder(base / "single", llava_vit, None)
    build_folder(base / "sharded", llava_vit, None, max_shard_size=parse_size("100KB"))
    build_folder(base / "bytes", load_recipe(str(write_recipe(base, BYTEFORMER_TOML))), None)
    return base


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good / "single", tmp_path / "folder")


@pytest.fixture
def sharded(good, tmp_path):
    return shutil.copytree(good / "sharded", tmp_path / "sharded")


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def damage_of(folder) -> str:
    with pytest.raises(DamagedFile) as caught:
        read_tensors(folder)
    return str(caught.value)


# --- safetensors files


@pytest.mark.parametrize("kind", ["single", "sharded", "bytes"])
def test_whole_files_give_every_tensor_where_it_stands(good, kind):
    tensors = read_tensors(good / kind)
    stored = {name: tensor for path in (good / kind).glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == {
        name: (tuple(tensor.shape), str(tensor.dtype)[6:]) for name, tensor in stored.items()
    }
    name, entry = next(iter(tensors.items()))
    data = (good / kind / entry.file).read_bytes()[entry.offset : entry.offset + entry.nbytes]
    assert torch.equal(torch.frombuffer(bytearray(data), dtype=stored[name].dtype).reshape(entry.shape), stored[name])


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_truncated_weights(folder, left):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:left])
    message = damage_of(folder)
    assert WEIGHTS in message and str(len(data[:left])) in message


def rewrite_header(path, change):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = change(json.loads(data[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def without_format(header):
    header["__metadata__"] = {}
    return header


def wrong_shape(header):
    header["layernorm_pre.weight"]["shape"] = [63]
    return header


def negative_shape(header):
    header["layernorm_pre.weight"]["shape"] = [-1, -64]
    return header


def unknown_type(header):
    header["layernorm_pre.weight"]["dtype"] = "F128"
    return header


def overlap(header):
    header["layernorm_pre.weight"]["data_offsets"] = header["layernorm_pre.bias"]["data_offsets"]
    return header


def twice(header):
    text = json.dumps(header)
    return (text[:-1] + ', "layernorm_pre.bias": ' + json.dumps(header["layernorm_pre.bias"]) + "}").encode()


@pytest.mark.parametrize(
    "change, expected",
    [
        (without_format, "format: pt"),
        (wrong_shape, "layernorm_pre.weight"),
        (negative_shape, "layernorm_pre.weight"),
        (unknown_type, "layernorm_pre.weight"),
        (overlap, "gap or an overlap"),
        (twice, "twice"),
        (lambda header: b"{nonsense", "not readable JSON"),
        (lambda header: b"\xff\xfe", "not readable JSON"),
        (lambda header: [], "not a JSON object"),
        (lambda header: {"__metadata__": {"format": "pt"}}, "holds no tensors"),
    ],
)
def test_broken_headers(folder, change, expected):
    rewrite_header(folder / WEIGHTS, change)
    assert expected in damage_of(folder)


def test_data_behind_the_last_tensor(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"payload")
    assert "followed by other data" in damage_of(folder)


def test_no_weights_and_two_candidates(folder, sharded):
    (folder / WEIGHTS).unlink()
    assert "neither" in damage_of(folder)
    shutil.copy(next(sharded.glob("*.safetensors")), sharded / WEIGHTS)
    assert "both" in damage_of(sharded)


def test_a_shard_is_missing(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"{shard.name} is missing" in damage_of(sharded)


def test_index_and_shards_disagree(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    tensors["stranger"] = tensors.pop(sorted(tensors)[0])
    save_file(tensors, shard, metadata={"format": "pt"})
    message = damage_of(sharded)
    assert "stranger" in message and "does not hold it" in message


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda index: index["metadata"].update(total_size=1), "total size of 1 "),
        (lambda index: index.pop("weight_map"), "no weight_map"),
        (lambda index: index["weight_map"].update({"head.probe": "../../secret.safetensors"}), "outside its folder"),
        (lambda index: index["weight_map"].pop("head.probe"), "head.probe"),
    ],
)
def test_broken_index(sharded, change, expected):
    edit_json(sharded / INDEX, change)
    assert expected in damage_of(sharded)


def test_weights_that_no_index_names(folder):
    shutil.copy(folder / WEIGHTS, folder / "adapter.safetensors")
    assert "adapter.safetensors is not part of the weights" in damage_of(folder)


# --- other files


@pytest.mark.parametrize("kind", ["single", "sharded", "bytes"])
def test_assembled_files_are_known(good, kind):
    package = PACKAGES["byteformer" if kind == "bytes" else "llavavit"]
    assert "no code beside the package's" in files.check_files(good / kind, package)
    config = files.read_config(good / kind)
    assert "byte for byte" in files.check_code(good / kind, config, package)
    assert config["architectures"][0] in files.check_config(good / kind, config, package, read_tensors(good / kind))


@pytest.mark.parametrize(
    "name, content",
    [
        ("pytorch_model.bin", b""),
        ("optimizer.pt", b""),
        ("training_args.bin", b"PK\x03\x04"),
        ("weights.PTH", b""),
        ("data.npy", b"\x93NUMPY"),
        ("setup.py", b""),
        ("sub/helper.py", b"x = 1"),
        ("sub/modeling_llava_vit.py", b""),
        ("__pycache__/modeling_llava_vit.cpython-311.pyc", b""),
        ("run.sh", b"echo"),
        ("library.so", b""),
        ("notebook.ipynb", b"{}"),
        ("bundle.zip", b""),
        ("innocent.txt", b"\x80\x04\x95 pickled"),
        ("notes.md", b"#!/bin/sh\n"),
        ("picture.png", b"\x7fELF"),
        ("table.json", b"PK\x03\x04"),
        ("image_processing_byteformer.py", b""),
    ],
)
def test_code_and_pickles_are_found_whatever_their_name(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckFailed, match=name.replace(".", r"\.")):
        files.check_files(folder, PACKAGE)


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        ".gitattributes",
        "figures/result.png",
        "labels.txt",
        ".git/hooks/run.sh",
        ".cache/huggingface/download/x.lock",
    ],
)
def test_harmless_files_may_stand_beside(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\x89PNG\r\n" if name.endswith(".png") else b"text")
    files.check_files(folder, PACKAGE)


def test_a_link_to_nowhere_and_a_missing_processor(folder):
    (folder / "card.txt").symlink_to(folder / "gone")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckFailed) as caught:
        files.check_files(folder, PACKAGE)
    assert "card.txt is not a readable file" in str(caught.value) and "preprocessor_config.json is missing" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda config: config.update(_attn_implementation="eager"), "attention setting _attn_implementation"),
        (lambda config: config.update(attn_implementation="sdpa"), "attention setting attn_implementation"),
        (lambda config: config.update(_attn_implementation_internal="sdpa"), "attention setting"),
        (
            lambda config: config.update(inner={"_attn_implementation_autoset": True}),
            r"inner\._attn_implementation_autoset",
        ),
        (lambda config: config.update(use_flash_attention_2=True), "use_flash_attention_2"),
        (lambda config: config.pop("torch_dtype"), "no torch_dtype"),
        (lambda config: config.update(dtype=config.pop("torch_dtype")), "ignored before transformers 4.56"),
        (lambda config: config.update(torch_dtype="float8"), "'float8'; accepted"),
        (lambda config: config.update(torch_dtype="bfloat16"), "torch_dtype bfloat16, the weights are float32"),
        (lambda config: config.pop("auto_map"), "no auto_map"),
        (lambda config: config["auto_map"].pop("AutoModel"), "lacks AutoModel"),
        (
            lambda config: config["auto_map"].update(AutoModel="someone/else--modeling_llava_vit.LlavaViTModel"),
            "points AutoModel to 'someone/else--",
        ),
        (lambda config: config["auto_map"].update(AutoTokenizer="tokenizer.Tokenizer"), "has AutoTokenizer; known"),
    ],
)
def test_metadata_that_harms(folder, change, expected):
    edit_json(folder / "config.json", change)
    with pytest.raises(CheckFailed, match=expected):
        files.check_config(folder, files.read_config(folder), PACKAGE, read_tensors(folder))


def test_a_processor_that_points_elsewhere(good, tmp_path):
    folder = shutil.copytree(good / "bytes", tmp_path / "bytes")
    edit_json(
        folder / "preprocessor_config.json",
        lambda content: content["auto_map"].update(AutoImageProcessor="other.Processor"),
    )
    with pytest.raises(CheckFailed, match="auto_map of preprocessor_config.json points AutoImageProcessor"):
        files.check_config(folder, files.read_config(folder), PACKAGES["byteformer"], read_tensors(folder))


def test_edited_and_missing_code(folder):
    modeling = folder / "modeling_llava_vit.py"
    lines = modeling.read_text().split("\n")
    modeling.write_text("\n".join([*lines[:99], lines[99] + "  # edited", *lines[100:]]))
    with pytest.raises(CheckFailed, match="modeling_llava_vit.py differs from the package's, first in line 100"):
        files.check_code(folder, files.read_config(folder), PACKAGE)
    modeling.unlink()
    with pytest.raises(CheckFailed, match="modeling_llava_vit.py is missing"):
        files.check_code(folder, files.read_config(folder), PACKAGE)


def test_code_cut_short(folder):
    path = folder / "configuration_llava_vit.py"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckFailed, match="configuration_llava_vit.py differs"):
        files.check_code(folder, files.read_config(folder), PACKAGE)


# --- the command


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda path: path.write_text("{"), "not readable JSON"),
        (lambda path: path.write_text("[]"), "not a JSON object"),
        (
            lambda path: edit_json(path, lambda config: config.update(model_type="bert")),
            "'bert'; known: byteformer, llava_vit",
        ),
        (lambda path: edit_json(path, lambda config: config.pop("architectures")), "architectures None"),
        (lambda path: edit_json(path, lambda config: config.update(architectures=["BertModel"])), "BertModel"),
    ],
)
def test_unusable_configuration_fails_and_nothing_is_loaded(folder, change, expected):
    change(folder / "config.json")
    result = call(verify.main, folder)
    rows = result.out.splitlines()
    assert result.code == 1 and expected in rows[0] and rows[0].startswith("FAIL  files: configuration")
    assert "SKIP  load: model" in result.out and rows[-1].startswith("FAIL")


@pytest.mark.parametrize(
    "key, value, size",
    [("hidden_size", 128, 64), ("num_hidden_layers", 3, 2), ("patch_size", 16, 8), ("intermediate_size", 96, 128)],
)
def test_a_configuration_of_another_size_says_what_differs(folder, key, value, size):
    edit_json(folder / "config.json", lambda config: config.update({key: value}))
    result = call(verify.main, folder)
    rows = result.out.splitlines()
    assert result.code == 1 and f"config.json has {key} {value}, the weights have {size}" in next(
        row for row in rows if row.startswith("FAIL")
    )
    assert "SKIP  load: model" in result.out and "Traceback" not in result.err


def test_damaged_weights_are_reported_and_not_loaded(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])
    (folder / "pytorch_model.bin").write_bytes(b"")
    result = call(verify.main, folder)
    assert result.code == 1
    assert "FAIL  files: known and safe" in result.out and "FAIL  files: weights" in result.out
    assert "SKIP  weights: finite" in result.out
    assert result.out.splitlines()[-1].startswith("FAIL") and "2 failed" in result.out.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["{tmp}/nowhere"], "neither a folder nor a repository"),
        (["not a repository/name!"], "neither a folder nor a repository"),
        (["{tmp}"], "no config.json"),
        (["{tmp}/reference.py"], "is not a folder"),
        (["{folder}", "--checkpoint", "{tmp}/nowhere.pth"], "nowhere.pth does not exist"),
        (["{folder}", "--reference", "{tmp}/reference.py"], "accepted: FILE.py:NAME"),
        (["{folder}", "--reference", "{tmp}/reference.py:"], "accepted: FILE.py:NAME"),
        (["{folder}", "--reference", "{tmp}/other.py:Model"], "other.py does not exist"),
        (["{folder}", "--reference", "{tmp}/reference.py:Missing"], "has no 'Missing'; it has: Model, build"),
        (["{folder}", "--reference", "{tmp}/broken.py:Model"], "is not Python"),
        (["{folder}", "--revision", "main"], "--revision goes with a repository"),
        (["{folder}", "--json", "{tmp}/nowhere/result.json"], "its folder does not exist"),
        (["{folder}", "--nonsense"], "--nonsense"),
        ([], "FOLDER|REPO_ID"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(folder, tmp_path, arguments, expected):
    (tmp_path / "reference.py").write_text("class Model: pass\nbuild = Model\n")
    (tmp_path / "broken.py").write_text("class Model(:")
    result = call(verify.main, *(argument.format(tmp=tmp_path, folder=folder) for argument in arguments))
    assert result.code == 2 and result.out == "", result
    assert expected in result.err and len(result.err.splitlines()) == 1
