"""The toy model."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_toymodel import ToyConfig


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, pixel_values, output_hidden_states=None, return_dict=None):
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(
            last_hidden_state=patches, pooler_output=patches.mean(1), hidden_states=(patches,)
        )


ToyModel.register_for_auto_class("AutoModel")
