"""`save_pretrained` writes a folder that is again complete: code, auto_map, weights, processor."""

import json

import pytest
import torch
import transformers
from kit import (
    CLASSIFIERS,
    FOLDERS,
    ORIGINS,
    PAIR,
    TOLERANCE,
    assert_same_weights,
    auto_image_processor,
    error,
    folder,
    load,
    main_output,
    run,
)

BOTH = pytest.mark.parametrize("origin", ORIGINS)


@pytest.mark.parametrize("source", FOLDERS, ids=lambda f: f.name)
@BOTH
def test_saved_folder_is_complete_and_loads_again(source, origin, tmp_path):
    saved = tmp_path / f"saved_{source.name}_{origin}"
    load(source, origin).save_pretrained(saved)
    for code in source.path.glob("*_*.py"):
        if code.name.startswith(("modeling_", "configuration_")):
            assert (saved / code.name).read_bytes() == code.read_bytes()
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    original = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [source.architecture]
    for auto in ("AutoConfig", source.auto_class):
        assert config["auto_map"][auto] == original["auto_map"][auto]
    assert not [key for key in config if key.startswith("_attn") or key == "attn_implementation"]
    again = load(source, path=saved)
    assert_same_weights(again.state_dict(), source.weights)
    assert type(again).__name__ == source.architecture


@pytest.mark.parametrize("source", PAIR, ids=lambda f: f.name)
@BOTH
def test_saved_twice_and_still_equal(source, origin, tmp_path):
    """Saved, loaded as remote code, changed as fine-tuning changes it, saved and loaded again."""
    load(source, origin).save_pretrained(tmp_path / "first_save")
    model = load(source, path=tmp_path / "first_save", num_labels=4, ignore_mismatched_sizes=True)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(tmp_path / "second_save")
    again = load(source, path=tmp_path / "second_save")
    assert again.config.num_labels == 4
    assert error(main_output(run(again, source.inputs)), main_output(run(model, source.inputs))) <= TOLERANCE


@pytest.mark.parametrize("source", CLASSIFIERS, ids=lambda f: f.name)
def test_labels_survive(source, tmp_path):
    model = load(source)
    model.config.id2label = {index: f"class {index}" for index in range(model.config.num_labels)}
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    model.save_pretrained(tmp_path / "labelled")
    assert load(source, path=tmp_path / "labelled").config.id2label == model.config.id2label


@BOTH
def test_backend_is_not_saved(origin, tmp_path):
    source = PAIR[0]
    load(source, origin, attn_implementation="eager").save_pretrained(tmp_path / "from_eager")
    assert load(source, path=tmp_path / "from_eager").config._attn_implementation == "sdpa"


def test_sharded_save(tmp_path):
    source = folder("llava_vit_image")
    model = load(source)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert_same_weights(load(source, path=tmp_path / "sharded").state_dict(), source.weights)


def test_bfloat16_save(tmp_path):
    source = folder("llava_vit_image")
    load(source, torch_dtype=torch.bfloat16).save_pretrained(tmp_path / "bf16")
    expected = {key: value.to(torch.bfloat16) for key, value in source.weights.items()}
    assert_same_weights(load(source, path=tmp_path / "bf16", torch_dtype="auto").state_dict(), expected)


@pytest.mark.parametrize(
    "name, auto_class",
    [("byteformer_k4_w16", "AutoImageProcessor"), ("byteformer_k32_sinusoidal", "AutoFeatureExtractor")],
)
def test_processor_is_saved_with_its_code(name, auto_class, tmp_path, not_applicable):
    source = folder(name)
    loader = (
        auto_image_processor(not_applicable)
        if auto_class == "AutoImageProcessor"
        else getattr(transformers, auto_class)
    )
    processor = loader.from_pretrained(str(source.path), trust_remote_code=True)
    processor.save_pretrained(tmp_path / "processor")
    saved = json.loads((tmp_path / "processor" / "preprocessor_config.json").read_text(encoding="utf-8"))
    module, _, class_name = saved["auto_map"][auto_class].partition(".")
    assert class_name == type(processor).__name__
    assert (tmp_path / "processor" / f"{module}.py").read_bytes() == (source.path / f"{module}.py").read_bytes()
    load(source).save_pretrained(tmp_path / "processor")
    again = loader.from_pretrained(str(tmp_path / "processor"), trust_remote_code=True)
    assert {k: v for k, v in again.to_dict().items() if k != "auto_map"} == {
        k: v for k, v in processor.to_dict().items() if k != "auto_map"
    }
