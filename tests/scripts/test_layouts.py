"""Key maps: every key of every layout lands in one place, and goes back to where it came from."""

import pytest
import torch
from hubtools.assembly.layouts import from_hub_layout, recognise, to_hub_layout
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.packages import PACKAGES
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, in_layout, random_state, write_recipe

NO_HEAD = LLAVA_VIT_TOML.replace("patch_size = 8", 'patch_size = 8\nuse_head = false\nlayer_norm_type = "rms_norm"')
TOWER = NO_HEAD.replace("patch_size = 8", "patch_size = 8\nout_hidden_size = 48")
VARIANTS = [
    ("llavavit", "llava-onevision-2", TOWER),
    ("llavavit", "hub", TOWER),
    *(("llavavit", name, toml) for name in ("hub", "training", "packed") for toml in (LLAVA_VIT_TOML, NO_HEAD)),
    *(("byteformer", layout.name, BYTEFORMER_TOML) for layout in PACKAGES["byteformer"].layouts),
]


@pytest.mark.parametrize("package, layout, toml", VARIANTS)
def test_there_and_back_is_bit_identical(tmp_path, package, layout, toml):
    recipe = load_recipe(str(write_recipe(tmp_path, toml)))
    state = random_state(recipe)
    foreign = in_layout(recipe, state, layout)
    recognised, parts = to_hub_layout(package, foreign, state)
    assert recognised.name == layout
    assert sorted(parts) == sorted(state)
    assert {part.source for part in parts.values()} == set(foreign), "a key of the source is not used"
    for name, part in parts.items():
        assert torch.equal(part.of(foreign[part.source]), state[name]), name


def test_older_training_checkpoints_name_the_output_projection_proj(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    state = random_state(recipe)
    training = in_layout(recipe, state, "training")
    older = {key.replace("attn.out_proj", "attn.proj"): tensor for key, tensor in training.items()}
    assert set(older) != set(training)
    _, parts = to_hub_layout("llavavit", older, state)
    for name, part in parts.items():
        assert torch.equal(part.of(older[part.source]), state[name]), name


def test_rotary_buffers_are_dropped(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    state = random_state(recipe)
    names = [
        *in_layout(recipe, state, "training"),
        "video_rope.inv_freq_t",
        "transformer.layers.0.attn.rotary_emb.inv_freq",
    ]
    _, parts = to_hub_layout("llavavit", names, state)
    assert sorted(parts) == sorted(state)


def test_a_model_with_a_head_takes_keys_with_and_without_the_base_prefix(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path, BYTEFORMER_TOML)))
    state = random_state(recipe)
    assert any(name.startswith("byteformer.") for name in state)
    bare = [name.replace("byteformer.", "", 1) for name in state]
    for names in (list(state), bare):
        assert sorted(to_hub_layout("byteformer", names, state)[1]) == sorted(state)


def test_leftovers_are_named(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    state = random_state(recipe)
    names = [name for name in in_layout(recipe, state, "training") if name != "ln_pre.bias"] + ["decoder.weight"]
    with pytest.raises(UserError, match=r"missing layernorm_pre\.bias; unexpected decoder\.weight"):
        to_hub_layout("llavavit", names, state)


def test_two_keys_for_one_place_are_refused(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    state = random_state(recipe)
    names = [*in_layout(recipe, state, "training"), "transformer.layers.0.attn.proj.bias"]
    with pytest.raises(UserError, match="both fill encoder.layers.0.self_attn.out_proj.bias"):
        to_hub_layout("llavavit", names, state)


def test_a_foreign_model_is_not_recognised():
    with pytest.raises(UserError, match="known layouts: hub, training, packed"):
        recognise("llavavit", ["visual.trunk.blocks.0.weight"])


def test_the_way_back_refuses_keys_without_a_place(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    with pytest.raises(UserError, match="no place for extra.weight"):
        from_hub_layout("llavavit", "packed", [*random_state(recipe), "extra.weight"])
