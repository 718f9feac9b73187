"""Configuration of the toy model."""

from transformers import PretrainedConfig


class ToyConfig(PretrainedConfig):
    model_type = "toy_model"

    def __init__(self, hidden_size: int = 8, patch_size: int = 4, **kwargs):
        self.hidden_size = hidden_size
        self.patch_size = patch_size
        super().__init__(**kwargs)


ToyConfig.register_for_auto_class()
