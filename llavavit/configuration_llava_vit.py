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
        rope_temporal_size (`int`): Frames of the grid on which `visible_indices` may name places beyond the pixels.
        use_head (`bool`): Whether the post-norm and the pooling head exist.
        max_visible_patches (`int`): How many patches a residual signal given as `visible_indices` keeps at most.
        frame_windows_size (`int`): Frames that attend to one another in a longer whole video; 0 for all. The vision
            towers of LLaVA-OneVision-2 have 4.
        out_hidden_size (`int`, *optional*): Width of `merged_states`, the tokens of a language model, which a merger
            makes of blocks of patches. None for a model without merger.
        spatial_merge_size (`int`): Side m of the merger's blocks, in patches.
        out_features (`list[str]`, *optional*): For `LlavaViTBackbone`: the stages whose feature maps it gives, of
            "stem", "stage1", "stage2", ...
        out_indices (`list[int]`, *optional*): The same by number, 0 for the stem, from the end where negative. Without
            either, the last stage.

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
        rope_temporal_size=64,
        use_head=True,
        max_visible_patches=2048,
        frame_windows_size=0,
        out_hidden_size=None,
        spatial_merge_size=2,
        out_features=None,
        out_indices=None,
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
        self.rope_temporal_size = rope_temporal_size
        self.use_head = use_head
        self.max_visible_patches = max_visible_patches
        self.frame_windows_size = frame_windows_size
        self.out_hidden_size = out_hidden_size
        self.spatial_merge_size = spatial_merge_size
        self.out_features = out_features
        self.out_indices = out_indices
        self.check_values()

    @property
    def head_dim(self):
        """Channels per attention head, d = D / A."""
        return self.hidden_size // self.num_attention_heads

    @property
    def stage_names(self):
        """Names of what a backbone can give: the pre-normed tokens and each block's output."""
        return ["stem", *(f"stage{number}" for number in range(1, self.num_hidden_layers + 1))]

    def stages(self):
        """Numbers of the stages that `out_features` and `out_indices` choose, 0 for the stem.

        Raises:
            ValueError: No such stage, one twice or out of order, or the two disagree.
        """
        names, asked = self.stage_names, self.out_indices
        if self.out_features is not None:
            unknown = [name for name in self.out_features if name not in names]
            if unknown:
                raise ValueError(f"out_features must be of {', '.join(names)}, got {unknown[0]!r}")
            asked = [names.index(name) for name in self.out_features]
        if asked is None:
            return [len(names) - 1]
        if any(isinstance(i, bool) or not isinstance(i, int) or not -len(names) <= i < len(names) for i in asked):
            numbers = f"from {-len(names)} to {len(names) - 1}"
            raise ValueError(f"out_indices must be numbers of stages {numbers}, got {asked!r}")
        stages = [index % len(names) for index in asked]
        if not stages or stages != sorted(set(stages)):
            raise ValueError(f"out_features and out_indices must name stages once and in order, got {list(asked)!r}")
        if self.out_indices is not None and [index % len(names) for index in self.out_indices] != stages:
            both = f"out_features {self.out_features!r} and out_indices {self.out_indices!r}"
            raise ValueError(f"{both} must name the same stages")
        return stages

    @property
    def custom_pipelines(self):
        """The pipeline that `pipeline(task, model=..., trust_remote_code=True)` builds: it stands beside the processor.

        transformers' own would hand a video's frames to the image processor, and the model would see as many images; and
        not on every release would it find the processor of native resolution. Made afresh for each reader, since `pipeline`
        writes classes into what it gets, which config.json could not hold. Empty unless this code was loaded from a model's
        folder, since only then did the user trust the code there, and unless the folder's model classifies video, or
        images at native resolution: `pipeline(model=...)` without a task takes the only one that stands here.
        """
        if not type(self).__module__.startswith("transformers_modules"):
            return {}
        native = "AutoImageProcessor" in (getattr(self, "auto_map", None) or {})
        for kind, has_own in (("Video", True), ("Image", native)):
            if has_own and any(f"For{kind}Classification" in name for name in self.architectures or ()):
                pipeline = f"{kind.lower()}_processing_llava_vit.LlavaViT{kind}ClassificationPipeline"
                return {
                    f"{kind.lower()}-classification": {"impl": pipeline, "pt": [f"AutoModelFor{kind}Classification"]}
                }
        return {}

    def check_values(self):
        """Raises ValueError for values no model can be built from.

        The models call it as well: `from_pretrained(folder, hidden_size=...)` sets attributes after construction.
        """
        for name in _POSITIVE_INTEGERS:
            _check_integer(name, getattr(self, name), 1, "a positive integer")
        _check_integer("frame_windows_size", self.frame_windows_size, 0, "an integer, 0 for no windows")
        if self.out_hidden_size is not None:
            _check_integer("out_hidden_size", self.out_hidden_size, 1, "a positive integer or None")
        self._check_head_dim()
        self.stages()
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


def _check_integer(name, value, least, accepted):
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")


_POSITIVE_INTEGERS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "rope_temporal_size",
    "max_visible_patches",
    "spatial_merge_size",
)
_NUMBERS = {
    "layer_norm_eps": (lambda value: 0 < value < float("inf"), "a positive number, such as 1e-6"),
    "attention_dropout": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "initializer_range": (lambda value: 0 <= value < float("inf"), "a standard deviation, 0 or more"),
    "rope_theta": (lambda value: 0 < value < float("inf"), "a positive number"),
}

LlavaViTConfig.register_for_auto_class()

__all__ = ["LlavaViTConfig"]
