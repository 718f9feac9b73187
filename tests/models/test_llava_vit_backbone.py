# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT as the backbone of dense tasks."""

from types import SimpleNamespace

import pytest
import torch
from llava_vit_helpers import clip, relative_error, tiny_model
from transformers import AutoBackbone
from transformers.models.auto import auto_factory

from llavavit import LlavaViTBackbone, LlavaViTForImageClassification, LlavaViTModel


@torch.no_grad()
def test_feature_maps_are_the_chosen_hidden_states_as_maps():
    model = tiny_model(LlavaViTBackbone, out_features=["stem", "stage2"])
    images = clip()[:, :, 0]
    states = model.llava_vit(images, output_hidden_states=True).hidden_states
    outputs = model(images)
    assert [tuple(features.shape) for features in outputs.feature_maps] == [(2, 64, 4, 3)] * 2
    assert outputs.hidden_states is None and outputs.attentions is None
    for features, number in zip(outputs.feature_maps, (0, 2)):
        assert torch.equal(features[:, :, 2, 1], states[number][:, 2 * 3 + 1])
    videos = model(clip())
    assert videos.feature_maps[1].shape == (2, 64, 3, 4, 3)
    assert model(images, output_hidden_states=True, return_dict=False)[1][1].shape == (2, 12, 64)
    assert (model.out_features, model.out_indices, model.channels) == (["stem", "stage2"], [0, 2], [64, 64])
    assert (
        relative_error(
            model.forward_with_filtered_kwargs(images, output_attentions=None).feature_maps[0], outputs.feature_maps[0]
        )
        < 1e-5
    )


@pytest.mark.usefixtures("own_module_cache")
@torch.no_grad()
def test_loaded_from_any_folder_of_the_family_and_saved_again(tmp_path, monkeypatch):
    # Newer releases take for a timm model what the Hub does not know as a repository, folders too.
    monkeypatch.setattr(auto_factory, "hf_api", lambda: SimpleNamespace(repo_exists=lambda name: True), raising=False)
    for number, model_class in enumerate((LlavaViTModel, LlavaViTForImageClassification)):
        source = tiny_model(model_class, out_hidden_size=16)
        source.save_pretrained(tmp_path / f"source{number}")
        backbone = LlavaViTBackbone.from_pretrained(tmp_path / f"source{number}", out_indices=[-2]).eval()
        expected = getattr(source, "llava_vit", source)(clip(width=16), output_hidden_states=[1]).hidden_states[1]
        assert relative_error(backbone(clip(width=16)).feature_maps[0].flatten(2).transpose(1, 2), expected) < 1e-5
        backbone.save_pretrained(tmp_path / f"saved{number}")
        loaded = AutoBackbone.from_pretrained(str(tmp_path / f"saved{number}"), trust_remote_code=True).eval()
        assert loaded.out_features == ["stage1"] and type(loaded).__name__ == "LlavaViTBackbone"
        assert relative_error(loaded(clip(width=16)).feature_maps[0], backbone(clip(width=16)).feature_maps[0]) < 1e-5
        assert not [name for name, _ in loaded.named_parameters() if "head" in name or "merger" in name]


def test_every_parameter_of_a_backbone_gets_a_gradient():
    model = tiny_model(LlavaViTBackbone).train()
    model(clip()).feature_maps[0].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
