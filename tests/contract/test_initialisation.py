"""Checkpoints that lack something: what is missing starts at the right scale, what is there stays as it is."""

import json
import shutil

import pytest
import torch
import transformers
from kit import FOLDERS, ORIGINS, PAIR, folder, load, main_output, run
from safetensors.torch import save_file

BOTH_MODELS = pytest.mark.parametrize("source", PAIR, ids=lambda f: f.name)
BOTH = pytest.mark.parametrize("origin", ORIGINS)


def copy_with(source, tmp_path, keep=lambda key: True, **config):
    """A copy of the folder with only the weights that `keep` accepts, and some configuration entries replaced."""
    target = tmp_path / f"partial_{source.name}"
    shutil.copytree(source.path, target)
    (target / "model.safetensors").unlink()
    save_file(
        {key: value for key, value in source.weights.items() if keep(key)},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    entries = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps({**entries, **config}), encoding="utf-8")
    return target


# Where the scale follows from the sizes: embedding and convolution together keep the scale of one byte's embedding.
_SCALES = {
    "byte_embeddings": lambda config: config.hidden_size**-0.5,
    "token_reduction": lambda config: (config.conv_kernel_size * config.hidden_size) ** -0.5,
}


def last_module(name):
    return name.split(".")[-2]


def assert_sane(model, names):
    """Checks parameters that no file filled: finite, norms one, biases zero, weights random at their scale."""
    usual = model.config.initializer_range
    parameters = dict(model.named_parameters())
    for name in names:
        value, last = parameters[name].detach().float(), name.rsplit(".", 1)[-1]
        assert torch.isfinite(value).all(), name
        if last.endswith("bias"):
            assert (value == 0).all(), name
        elif "norm" in name or last_module(name).startswith("ln_"):
            assert (value == 1).all(), name
        elif last == "probe":
            assert 0.7 < value.std() < 1.4, name
        else:
            scale = _SCALES.get(last_module(name), lambda config: usual)(model.config)
            assert 0.5 * scale < value.std() < 2 * scale and value.mean().abs() < scale, (name, value.std())


@BOTH_MODELS
@BOTH
def test_missing_head(source, origin, tmp_path):
    path = copy_with(source, tmp_path, keep=lambda key: not key.startswith("classifier"))
    model, report = load(source, origin, path=path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert_sane(model, ["classifier.weight", "classifier.bias"])
    state = model.state_dict()
    assert [
        k for k, v in source.weights.items() if not k.startswith("classifier") and not torch.equal(state[k], v)
    ] == []
    assert torch.isfinite(main_output(run(model, source.inputs))).all()


@BOTH
def test_backbone_folder_gets_a_new_head(origin, tmp_path):
    """The usual first step of fine-tuning: a backbone's folder through a classification class."""
    source, target = folder("llava_vit_base"), folder("llava_vit_image")
    heads = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = load(target, origin, path=source.path, num_labels=7)
        state = model.state_dict()
        assert [k for k, v in source.weights.items() if not torch.equal(state[f"llava_vit.{k}"], v)] == []
        assert model.classifier.weight.shape[0] == 7
        assert_sane(model, ["classifier.weight", "classifier.bias"])
        heads.append(model.classifier.weight.detach().clone())
    assert not torch.equal(*heads)


@BOTH_MODELS
@BOTH
def test_other_number_of_labels(source, origin):
    model = load(source, origin, num_labels=3, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape[0] == 3
    assert_sane(model, ["classifier.weight", "classifier.bias"])
    state = model.state_dict()
    assert [
        k for k, v in source.weights.items() if not k.startswith("classifier") and not torch.equal(state[k], v)
    ] == []


@BOTH_MODELS
@BOTH
def test_almost_everything_missing(source, origin, tmp_path):
    kept = {key for key in source.weights if ".layers.0." in key}
    path = copy_with(source, tmp_path, keep=kept.__contains__)
    model = load(source, origin, path=path)
    state = model.state_dict()
    assert [key for key in kept if not torch.equal(state[key], source.weights[key])] == []
    assert_sane(
        model, [name for name, parameter in model.named_parameters() if name not in kept and parameter.requires_grad]
    )
    assert torch.isfinite(main_output(run(model, source.inputs))).all()


@pytest.mark.parametrize(
    "missing", ["layer_norm1", "mlp.fc1", "self_attn", "head.probe", "head.attention", "embeddings", "downsample"]
)
@BOTH_MODELS
def test_one_part_missing(source, missing, tmp_path):
    gone = {key for key in source.weights if missing in key}
    if gone:  # the two models differ in parts
        model = load(source, path=copy_with(source, tmp_path, keep=lambda key: key not in gone))
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert_sane(model, sorted(gone & trained))
        state = model.state_dict()
        assert [k for k, v in source.weights.items() if k not in gone and not torch.equal(state[k], v)] == []


@pytest.mark.parametrize("source", FOLDERS, ids=lambda f: f.name)
def test_from_config(source):
    config = transformers.AutoConfig.from_pretrained(str(source.path), trust_remote_code=True)
    model = getattr(transformers, source.auto_class).from_config(config, trust_remote_code=True)
    assert_sane(model, [name for name, parameter in model.named_parameters() if parameter.requires_grad])


def test_padding_row_starts_at_zero():
    source = folder("byteformer_k4_w16")
    config = transformers.AutoConfig.from_pretrained(str(source.path), trust_remote_code=True)
    model = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=True)
    assert (model.byteformer.embeddings.byte_embeddings.weight[-1] == 0).all()


def test_sinusoidal_positions_need_no_weights(tmp_path):
    source = folder("byteformer_k32_sinusoidal")
    path = copy_with(source, tmp_path, keep=lambda key: "position_embeddings" not in key)
    for table in (load(source, path=path), load(source)):
        actual = table.byteformer.embeddings.position_embeddings.detach()
        rows, width = actual.shape[-2:]
        frequencies = torch.exp(-torch.arange(width // 2) * (torch.log(torch.tensor(10000.0)) / (width // 2 - 1)))
        angles = torch.arange(rows)[:, None] * frequencies
        assert torch.allclose(actual.reshape(rows, width), torch.cat([angles.sin(), angles.cos()], dim=-1), atol=1e-4)
