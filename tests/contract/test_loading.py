"""A folder loads through every Auto class it names, with the file's own weights, every time the same."""

import importlib.util

import pytest
import torch
import transformers
from kit import (
    FOLDERS,
    KIT,
    ORIGINS,
    PAIR,
    RECORDED,
    TOLERANCE,
    assert_same_weights,
    error,
    folder,
    load,
    main_output,
    package_class,
    run,
)
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer

EVERY = pytest.mark.parametrize("source", FOLDERS, ids=lambda f: f.name)
BOTH = pytest.mark.parametrize("origin", ORIGINS)
AUTO_CLASSES = [
    ("llava_vit_base", "AutoModel", "LlavaViTModel"),
    ("llava_vit_image", "AutoModel", "LlavaViTModel"),
    ("llava_vit_image", "AutoModelForImageClassification", "LlavaViTForImageClassification"),
    ("llava_vit_video", "AutoModelForVideoClassification", "LlavaViTForVideoClassification"),
    ("byteformer_k4_w16", "AutoModel", "ByteFormerModel"),
    ("byteformer_k4_w16", "AutoModelForImageClassification", "ByteFormerForImageClassification"),
    ("byteformer_k32_sinusoidal", "AutoModelForAudioClassification", "ByteFormerForAudioClassification"),
]


def test_the_repository_is_out_of_reach():
    for name in ("llavavit", "byteformer", "hubtools"):
        spec = importlib.util.find_spec(name)
        assert spec is None or spec.origin.startswith(str(KIT))


@EVERY
def test_auto_config(source):
    config = transformers.AutoConfig.from_pretrained(str(source.path), trust_remote_code=True)
    expected = {"llavavit": ("LlavaViTConfig", "llava_vit"), "byteformer": ("ByteFormerConfig", "byteformer")}[
        source.package
    ]
    assert (type(config).__name__, config.model_type) == expected
    assert config.architectures == [source.architecture]


@pytest.mark.parametrize("name, auto_class, expected", AUTO_CLASSES)
def test_auto_class(name, auto_class, expected, not_applicable):
    if not hasattr(transformers, auto_class):
        not_applicable(f"no {auto_class} in this release")
    assert type(load(folder(name), auto_class=auto_class)).__name__ == expected


@EVERY
@BOTH
def test_weights_are_the_files(source, origin):
    model, report = load(source, origin, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert_same_weights(model.state_dict(), source.weights)


@pytest.mark.parametrize("source", [f for f in FOLDERS if f.has_classifier], ids=lambda f: f.name)
def test_backbone_weights_from_a_folder_with_a_head(source):
    start = source.prefix + "."
    expected = {key[len(start) :]: tensor for key, tensor in source.weights.items() if key.startswith(start)}
    assert_same_weights(load(source, auto_class="AutoModel").state_dict(), expected)


@pytest.mark.parametrize("source", RECORDED, ids=lambda f: f.name)
@BOTH
def test_two_loads_agree(source, origin):
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = load(source, origin)
        assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
        results.append((model.state_dict(), main_output(run(model, source.inputs))))
    assert_same_weights(results[0][0], results[1][0])
    assert error(results[0][1], results[1][1]) <= TOLERANCE


@pytest.mark.parametrize("name", ["llava_vit_image", "byteformer_k4_w16", "byteformer_k32_sinusoidal"])
def test_device_map_auto(name):
    """`device_map` builds the model on the meta device on every release, the default only on 5.x."""
    source = folder(name)
    model = load(source, device_map="auto")
    assert_same_weights({key: tensor.cpu() for key, tensor in model.state_dict().items()}, source.weights)
    assert error(main_output(run(model, source.inputs)), main_output(run(load(source), source.inputs))) <= TOLERANCE


@pytest.mark.parametrize("name", ["llava_vit_image", "byteformer_k4_w16"])
@BOTH
def test_bfloat16_load(name, origin):
    source = folder(name)
    model = load(source, origin, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert_same_weights(model.state_dict(), {key: tensor.to(torch.bfloat16) for key, tensor in source.weights.items()})
    inputs = {
        key: value.to(torch.bfloat16) if value.is_floating_point() else value for key, value in source.inputs.items()
    }
    output = main_output(run(model, inputs))
    exact = main_output(run(load(source), source.inputs))
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: a few percent after several layers, where garbage is off by more than the output itself.
    assert (output.float() - exact).abs().max() < 0.1 * exact.abs().max()


class Recorder(HfQuantizer):
    """Quantises nothing, and keeps what a real one would read from the model."""

    requires_calibration = requires_parameters_quantization = is_trainable = False
    left_alone = None

    def _process_model_before_weight_loading(self, model, **kwargs):
        Recorder.left_alone = kwargs.get("keep_in_fp32_modules", model._keep_in_fp32_modules)

    def _process_model_after_weight_loading(self, model, **kwargs):
        return model

    def is_serializable(self, safe_serialization=None):
        return False


@pytest.mark.parametrize("source", PAIR, ids=lambda f: f.name)
@BOTH
def test_quantisers_are_told_what_to_leave_alone(source, origin, monkeypatch):
    """And the model runs, in float16 too, where some releases keep these modules in float32; without one none does."""
    monkeypatch.setitem(AUTO_QUANTIZER_MAPPING, "quanto", Recorder)
    settings = transformers.QuantoConfig(weights="int8")
    model = load(source, origin, quantization_config=settings, torch_dtype=torch.float16)
    parts = {"llavavit": ["head"], "byteformer": ["embeddings.byte_embeddings", "embeddings.token_reduction"]}
    names = [f"{source.prefix}.{part}" for part in parts[source.package]]
    assert sorted(Recorder.left_alone) == sorted(["classifier", *names])
    exact = main_output(run(load(source), source.inputs))
    assert error(main_output(run(model, source.inputs)), exact) < 0.02
    plain = load(source, origin, torch_dtype=torch.float16)
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float16}


@pytest.mark.parametrize("package, config", [("llavavit", "LlavaViTConfig"), ("byteformer", "ByteFormerConfig")])
def test_package_and_remote_configurations_agree(package, config):
    for source in (f for f in FOLDERS if f.package == package):
        remote = transformers.AutoConfig.from_pretrained(str(source.path), trust_remote_code=True).to_dict()
        imported = package_class(package, config).from_pretrained(str(source.path)).to_dict()
        (
            remote.pop("_name_or_path", None),
            imported.pop("_name_or_path", None),
        )  # where it came from, noted by one way only
        assert imported == remote
