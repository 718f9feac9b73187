# SPDX-License-Identifier: Apache-2.0
"""Saving, loading, devices and pipelines, through real files."""

import json

import numpy
import pytest
import torch
from llava_vit_helpers import clip, tiny_model
from measure import OUTPUTS, close, relative_error
from PIL import Image
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForVideoClassification

from llavavit import LlavaViTConfig, LlavaViTForImageClassification, LlavaViTForVideoClassification, LlavaViTModel

AUTO = {
    AutoModel: LlavaViTModel,
    AutoModelForImageClassification: LlavaViTForImageClassification,
    AutoModelForVideoClassification: LlavaViTForVideoClassification,
}


pytestmark = pytest.mark.usefixtures("own_module_cache")


@pytest.mark.parametrize("auto_class", AUTO)
@torch.no_grad()
def test_saved_with_its_code_and_loaded_by_its_auto_class(auto_class, tmp_path):
    model = tiny_model(AUTO[auto_class])
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"configuration_llava_vit.py", "modeling_llava_vit.py", "model.safetensors", "config.json"} <= names
    loaded = auto_class.from_pretrained(tmp_path / "saved", trust_remote_code=True).eval()
    assert type(loaded).__module__.startswith("transformers_modules")
    for (name, ours), (_, theirs) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert relative_error(loaded(clip())[0], model(clip())[0]) <= OUTPUTS


def test_config_json_holds_no_attention_settings(tmp_path):
    tiny_model(attn_implementation="eager").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not [key for key in config if "attn" in key]
    assert config["model_type"] == "llava_vit" and config["max_visible_patches"] == 2048


def test_the_configuration_survives_json(tmp_path):
    config = LlavaViTConfig(
        hidden_size=96, num_attention_heads=1, layer_norm_type="rms_norm", use_head=False, rope_theta=1e3, num_labels=7
    )
    config.save_pretrained(tmp_path)
    loaded = LlavaViTConfig.from_pretrained(tmp_path)
    for name in ("hidden_size", "layer_norm_type", "use_head", "rope_theta", "num_labels", "head_dim"):
        assert getattr(loaded, name) == getattr(config, name), name


def test_a_backbone_gets_a_fresh_classifier_and_keeps_its_weights(tmp_path):
    backbone = tiny_model()
    backbone.save_pretrained(tmp_path)
    model = LlavaViTForImageClassification.from_pretrained(tmp_path, num_labels=50)
    for name, value in backbone.state_dict().items():
        assert torch.equal(model.llava_vit.state_dict()[name], value), name
    assert 0.015 < model.classifier.weight.std() < 0.025 and not model.classifier.bias.any()


def test_a_classifier_gives_back_its_backbone(tmp_path):
    model = tiny_model(LlavaViTForVideoClassification)
    model.save_pretrained(tmp_path)
    backbone = LlavaViTModel.from_pretrained(tmp_path)
    for name, value in backbone.state_dict().items():
        assert torch.equal(model.llava_vit.state_dict()[name], value), name


@torch.no_grad()
def test_bfloat16_load(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = LlavaViTModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert relative_error(model(clip()).pooler_output, tiny_model()(clip()).pooler_output) < 5e-2


@torch.no_grad()
def test_device_map_auto(tmp_path):
    pytest.importorskip("accelerate")
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = LlavaViTModel.from_pretrained(tmp_path, device_map="auto").eval()
    assert close(loaded(clip()).pooler_output.cpu(), model(clip()).pooler_output)


@torch.no_grad()
def test_weights_may_wait_on_disk(tmp_path):
    """Offloaded modules get their weights just before they are called, so every weight must be used by its own module."""
    accelerate = pytest.importorskip("accelerate")
    model = tiny_model()
    expected = model(clip()).pooler_output
    devices = {name: "disk" for name, _ in model.named_children()}
    offloaded = accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert devices and all(parameter.is_meta for parameter in offloaded.parameters())
    assert close(offloaded(clip()).pooler_output, expected)


def photograph() -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=numpy.uint8))


def processor(folder):
    transformers = pytest.importorskip("transformers")
    try:
        made = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    except ImportError as error:  # some releases want torchvision for it
        pytest.skip(str(error).splitlines()[0])
    made.save_pretrained(folder)
    return made


def test_pipeline_image_feature_extraction(tmp_path):
    from transformers import pipeline

    model = tiny_model()
    model.save_pretrained(tmp_path)
    image_processor = processor(tmp_path)
    run = pipeline("image-feature-extraction", model=model, image_processor=image_processor)
    pixels = image_processor(photograph(), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = model(pixels)
    assert close(torch.tensor(run(photograph())), expected.last_hidden_state)
    assert close(run(photograph(), pool=True, return_tensors=True), expected.pooler_output)


def test_pipeline_image_classification(tmp_path):
    from transformers import pipeline

    model = tiny_model(LlavaViTForImageClassification, num_labels=3)
    image_processor = processor(tmp_path)
    answers = pipeline("image-classification", model=model, image_processor=image_processor)(photograph())
    with torch.no_grad():
        scores = model(image_processor(photograph(), return_tensors="pt").pixel_values).logits[0].softmax(-1)
    assert {answer["label"] for answer in answers} == {"LABEL_0", "LABEL_1", "LABEL_2"}
    assert abs(answers[0]["score"] - scores.max().item()) < 1e-5
