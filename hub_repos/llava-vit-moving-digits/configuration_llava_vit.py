# SPDX-License-Identifier: Apache-2.0
"""Configuration of LLaVA-ViT, a vision transformer for images and video."""

from transformers import PretrainedConfig


class LlavaViTConfig(PretrainedConfig):
    """Sizes and options of a LLaVA-ViT model.

    The defaults are those of the base size. The head dimension, `hidden_size / num_attention_heads`, must be a multiple
    of 32, because the rotary angles split it 4:6:6 between time, height and width.

    Args:
        hidden_size (`int`): Width D of the tokens.
        intermediate_size (`int`): Width M inside the feed-forward blocks.
        num_hidden_layers (`int`): Number of transformer blocks.
        num_attention_heads (`int`): Number of attention heads A.
        num_channels (`int`): Channels C of the pixels.
        image_size (`int`): What the image processor resizes to, in pixels. The model itself takes any height and width
            that are multiples of `patch_size`.
        patch_size (`int`): Side p of a square patch, in pixels.
        hidden_act (`str`): Name of a transformers activation. "gelu" is the exact (erf) GELU.
        layer_norm_type (`str`): "layer_norm" or "rms_norm" (weight only), for the pre-, post- and block norms.
        layer_norm_eps (`float`): Epsilon of every norm.
        attention_dropout (`float`): Dropout on the attention probabilities of the blocks, in training only.
        initializer_range (`float`): Standard deviation of freshly initialised linear and convolution weights.
        rope_theta (`float`): Base of the rotary frequencies.
        use_head (`bool`): Whether the post-norm and the pooling head exist.
        max_visible_patches (`int`): How many patches a residual signal given as `visible_indices` keeps at most.

    Raises:
        ValueError: A size is not a positive integer, sizes do not divide, or an option is unknown.

    Example:
        >>> from llavavit import LlavaViTConfig
        >>> LlavaViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=6).head_dim
        64
    """

    model_type = "llava_vit"

    def __init__(
        self,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_channels=3,
        image_size=448,
        patch_size=16,
        hidden_act="gelu",
        layer_norm_type="layer_norm",
        layer_norm_eps=1e-6,
        attention_dropout=0.0,
        initializer_range=0.02,
        rope_theta=10000.0,
        use_head=True,
        max_visible_patches=2048,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_channels = num_channels
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_act = hidden_act
        self.layer_norm_type = layer_norm_type
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        self.initializer_range = initializer_range
        self.rope_theta = rope_theta
        self.use_head = use_head
        self.max_visible_patches = max_visible_patches
        self.check_values()

    @property
    def head_dim(self):
        """Channels per attention head, d = D / A."""
        return self.hidden_size // self.num_attention_heads

    @property
    def custom_pipelines(self):
        """The pipeline that `pipeline("video-classification", model=..., trust_remote_code=True)` builds: beside the processor.

        transformers' own would hand the frames to the image processor, and the model would see as many images. Made afresh
        for each reader, since `pipeline` writes classes into what it gets, which config.json could not hold. Empty unless
        this code was loaded from a model's folder: only then did the user trust the code there.
        """
        if not type(self).__module__.startswith("transformers_modules"):
            return {}
        return {
            "video-classification": {
                "impl": "video_processing_llava_vit.LlavaViTVideoClassificationPipeline",
                "pt": ["AutoModelForVideoClassification"],
            }
        }

    def check_values(self):
        """Raises ValueError for values no model can be built from.

        The models call it as well: `from_pretrained(folder, hidden_size=...)` sets attributes after construction.
        """
        for name in _POSITIVE_INTEGERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self._check_head_dim()
        if self.layer_norm_type not in ("layer_norm", "rms_norm"):
            raise ValueError(f'layer_norm_type must be "layer_norm" or "rms_norm", got {self.layer_norm_type!r}')
        if not isinstance(self.use_head, bool):
            raise ValueError(f"use_head must be True or False, got {self.use_head!r}")
        for name, (accepts, accepted) in _NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not accepts(value):
                raise ValueError(f"{name} must be {accepted}, got {value!r}")

    def _check_head_dim(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {self.hidden_size} and {self.num_attention_heads}"
            )
        if self.head_dim % 32:
            raise ValueError(
                "hidden_size / num_attention_heads must be a multiple of 32 (the rotary axes split it 4:6:6), got "
                f"{self.hidden_size} / {self.num_attention_heads} = {self.head_dim}"
            )


_POSITIVE_INTEGERS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "max_visible_patches",
)
_NUMBERS = {
    "layer_norm_eps": (lambda value: 0 < value < 1, "a number between 0 and 1, such as 1e-6"),
    "attention_dropout": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "initializer_range": (lambda value: 0 <= value < float("inf"), "a standard deviation, 0 or more"),
    "rope_theta": (lambda value: 0 < value < float("inf"), "a positive number"),
}

LlavaViTConfig.register_for_auto_class()

__all__ = ["LlavaViTConfig"]
