"""`from_pretrained(folder, quantization_config=...)` on the two trained models: torchao's int8 on a CPU, and bitsandbytes.

torchao is no requirement of the repository and prints to every program that imports transformers, so `make test` does
without; `make quantised` installs it apart.
"""

import importlib.util

import pytest
import torch
import verify
from hubtools.demos.held_out import accuracy, logits_of
from hubtools.packages import ROOT
from measure import relative_error
from small import call
from test_precisions import MODELS, held_out
from transformers import BitsAndBytesConfig, TorchAoConfig

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="not installed: torchao (make quantised)"
)
LEFT_ALONE = {
    "byteformer-digits": ("byteformer.embeddings.", "classifier."),
    "llava-vit-moving-digits": ("llava_vit.head.", "classifier."),
}


def load(folder, name, **options):
    return MODELS[name].from_pretrained(folder, trust_remote_code=True, torch_dtype=torch.float32, **options).eval()


@needs_torchao
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_int8_is_as_accurate_and_survives_saving(name, kind, tmp_path):
    import torchao.quantization

    folder, data = ROOT / "hub_repos" / name, held_out(name)
    settings = TorchAoConfig(getattr(torchao.quantization, kind)())
    whole, quantised = load(folder, name), load(folder, name, quantization_config=settings)
    linear = {path: part for path, part in quantised.named_modules() if isinstance(part, torch.nn.Linear)}
    plain = {path for path, part in linear.items() if type(part.weight) is torch.nn.Parameter}
    assert plain == {path for path in linear if f"{path}.".startswith(LEFT_ALONE[name])}
    expected, found = logits_of(whole, data), logits_of(quantised, data)
    assert abs(accuracy(found, data) - accuracy(expected, data)) <= 0.005
    assert 0 < relative_error(found, expected) < 0.05

    quantised.save_pretrained(tmp_path)
    assert relative_error(logits_of(load(tmp_path, name), data), found) <= 1e-5
    refused = call(verify.main, tmp_path)
    assert refused.code == 1 and "is saved in quantised form (torchao)" in refused.out, refused.out
    sizes = [(room / "model.safetensors").stat().st_size for room in (tmp_path, folder)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("bits", ["load_in_8bit", "load_in_4bit"])
def test_bitsandbytes_is_asked_for_by_its_own_name(bits):
    for name in MODELS:
        with pytest.raises(ImportError, match="bitsandbytes"):
            load(ROOT / "hub_repos" / name, name, quantization_config=BitsAndBytesConfig(**{bits: True}))
