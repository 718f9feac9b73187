"""A made LLaVA-OneVision-2 checkpoint: the recorded towers inside a language model of which next to nothing is there."""

import json

import torch
from hubtools.foreign.safetensors import header_bytes
from hubtools.packages import ROOT
from safetensors.torch import load_file, save_file

GOLDEN = ROOT / "tests" / "golden"
TOWER_SHARDS = ("model-00001-of-00006.safetensors", "model-00004-of-00006.safetensors")
SPARSE_SHARD = "model-00002-of-00006.safetensors"  # there, with 4 GB of nothing in it; 3, 5 and 6 do not exist
LAYER_BYTES = 4 * 10**9
PROCESSOR = {
    "image_processor_type": "TheirImageProcessor",
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.5, 0.5],
    "merge_size": 2,
    "min_pixels": 4,
}


def golden_config(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())["config"]


def tower_state(name, prefix="model.visual."):
    """The recorded weights as the language model has them: q, k and v in one, the output projection under its name."""
    state = load_file(GOLDEN / f"{name}.weights.safetensors")
    packed = {}
    for key, tensor in state.items():
        if ".q_proj." in key:
            parts = [state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            packed[key.replace("q_proj", "qkv")] = torch.cat(parts)
        elif ".k_proj." not in key and ".v_proj." not in key:
            packed[key.replace("self_attn.out_proj", "self_attn.proj")] = tensor
    return {f"{prefix}{key}": tensor for key, tensor in packed.items()}


def language_layer(number):
    return f"model.language_model.layers.{number}.mlp.weight"


def host(folder, name="tower_windows", **settings):
    """A LLaVA-OneVision-2 folder: the tower in two of six shards, 20 GB of language model in those and the others."""
    folder.mkdir()
    state = tower_state(name)
    names = sorted(state)
    shards = {TOWER_SHARDS[0]: names[:9], TOWER_SHARDS[1]: names[9:]}
    for file, held in shards.items():
        save_file({key: state[key] for key in held}, folder / file, metadata={"format": "pt"})
    with (folder / SPARSE_SHARD).open("wb") as file:
        file.write(header_bytes([(language_layer(2), "bfloat16", (LAYER_BYTES // 2000, 1000))], {"format": "pt"}))
        file.truncate(file.tell() + LAYER_BYTES)
    weight_map = {key: file for file, held in shards.items() for key in held}
    weight_map.update({language_layer(i): f"model-0000{i}-of-00006.safetensors" for i in (2, 3, 5, 6)})
    weight_map["lm_head.weight"] = "model-00006-of-00006.safetensors"
    index = {"metadata": {"total_size": 5 * LAYER_BYTES}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    vision = {
        "model_type": "onevision_encoder",
        "temporal_patch_size": 1,
        "tokens_per_second": 1,
        **golden_config(name),
    }
    vision = {key: value for key, value in {**vision, **settings}.items() if value is not ...}
    config = {"model_type": "llava_onevision2", "vision_config": vision, "text_config": {"hidden_size": 4096}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder
