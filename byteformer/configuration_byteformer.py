# SPDX-License-Identifier: Apache-2.0
"""Configuration of ByteFormer, a transformer that classifies images and audio from the bytes of their files."""

from transformers import PretrainedConfig

# The four published sizes. The lists that hold one entry per layer fit 12 layers: "huge" needs its own.
BYTEFORMER_MODES = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "huge": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120},
}
DEFAULT_WINDOW_SIZES = (128,)
DEFAULT_WINDOW_SHIFTS = (0, 64) * 6
DEFAULT_DOWNSAMPLE = (True, True, False, True, False, True, False, True, False, True, False, False)


class ByteFormerConfig(PretrainedConfig):
    """Sizes and options of a ByteFormer model.

    The defaults are the *tiny* size; `ByteFormerConfig.from_mode("small", ...)` gives the others.

    Args:
        hidden_size (`int`): Width D of the tokens.
        num_hidden_layers (`int`): Number of transformer blocks.
        num_attention_heads (`int`): Number of attention heads A.
        intermediate_size (`int`): Width M inside the feed-forward blocks.
        vocab_size (`int`): Number V of byte embeddings. The last row, V - 1, is padding; an id of -1 means the same row.
        conv_kernel_size (`int`): Bytes k per token, an even number. Consecutive tokens overlap by half of them.
        max_position_embeddings (`int`): Number P of rows in the position table, in tokens before any merging.
        window_sizes (`list[int]`): Tokens per attention window, one entry per layer, or a single one for all.
        window_shifts (`list[int]`): By how many tokens each layer's windows are shifted, one entry per layer. A shift
            by whole windows makes the same windows: what counts is the shift modulo the window. Default: 0 and 64 in
            turn, modulo the window.
        downsample (`list[bool]`): After which layers pairs of tokens are merged, one entry per layer.
        sinusoidal_pos_emb (`bool`): Whether the position table holds fixed sines and cosines instead of learned rows.
        mask_padding (`bool`): False computes what the released checkpoints were trained with: padding takes part like
            any byte, and shifted windows mix the two ends of the sequence. True is for training of your own: padding
            is ignored, so that a sample's result does not depend on its neighbours in the batch.
        hidden_act (`str`): Name of a transformers activation. "gelu" is the exact (erf) GELU.
        leaky_relu_slope (`float`): Slope below zero of the activation "leaky_relu"; others ignore it.
        layer_norm_eps (`float`): Epsilon of every LayerNorm, any positive number.
        hidden_dropout_prob (`float`): Dropout on embeddings and on what each block adds, in training only.
        attention_probs_dropout_prob (`float`): Dropout on attention probabilities, in training only.
        activation_dropout_prob (`float`): Dropout between the two linear layers of the feed-forward block, in training only.
        drop_path_rate (`float`): Stochastic depth of the last layer; it rises linearly from 0 over the layers.
        initializer_range (`float`): Standard deviation of freshly initialised linear weights and positions.

    Raises:
        ValueError: A size is not a positive integer, sizes do not divide, or a list has the wrong length or entries.

    Example:
        >>> from byteformer import ByteFormerConfig
        >>> ByteFormerConfig.from_mode("small", conv_kernel_size=4, num_labels=12).hidden_size
        384
    """

    model_type = "byteformer"

    def __init__(
        self,
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        vocab_size=257,
        conv_kernel_size=16,
        max_position_embeddings=10000,
        window_sizes=None,
        window_shifts=None,
        downsample=None,
        sinusoidal_pos_emb=False,
        mask_padding=False,
        hidden_act="gelu",
        leaky_relu_slope=0.01,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        activation_dropout_prob=0.0,
        drop_path_rate=0.0,
        initializer_range=0.02,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.vocab_size = vocab_size
        self.conv_kernel_size = conv_kernel_size
        self.max_position_embeddings = max_position_embeddings
        self.window_sizes = _as_list(DEFAULT_WINDOW_SIZES if window_sizes is None else window_sizes)
        self.window_shifts = self._default_shifts() if window_shifts is None else _as_list(window_shifts)
        self.downsample = _as_list(DEFAULT_DOWNSAMPLE if downsample is None else downsample)
        self.sinusoidal_pos_emb = sinusoidal_pos_emb
        self.mask_padding = mask_padding
        self.hidden_act = hidden_act
        self.leaky_relu_slope = leaky_relu_slope
        self.layer_norm_eps = layer_norm_eps
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.activation_dropout_prob = activation_dropout_prob
        self.drop_path_rate = drop_path_rate
        self.initializer_range = initializer_range
        self.check_values()

    @classmethod
    def from_mode(cls, mode, **kwargs):
        """The configuration of a published size.

        Args:
            mode (`str`): "tiny", "small", "base" or "huge". "huge" has 32 layers: give the lists that need an entry each.
            **kwargs: Any other field of the configuration; a size given here wins over the mode's.

        Raises:
            ValueError: An unknown mode, or fields that do not fit.
        """
        if mode not in BYTEFORMER_MODES:
            raise ValueError(f"mode must be one of {', '.join(BYTEFORMER_MODES)}, got {mode!r}")
        return cls(**{**BYTEFORMER_MODES[mode], **kwargs})

    @property
    def head_dim(self):
        """Channels per attention head, d = D / A."""
        return self.hidden_size // self.num_attention_heads

    @property
    def padding_id(self):
        """The id of padding, the last row of the byte embeddings. -1 is taken for it too."""
        return self.vocab_size - 1

    @property
    def custom_pipelines(self):
        """The pipelines that `pipeline(task, model=..., trust_remote_code=True)` builds: they stand beside the processors.

        Made afresh for each reader, since `pipeline` writes classes into what it gets, which config.json could not hold.
        Empty unless this code was loaded from a model's folder: only then did the user trust the code there.
        """
        if not type(self).__module__.startswith("transformers_modules"):
            return {}
        return {
            "image-classification": {
                "impl": "image_processing_byteformer.ByteFormerImageClassificationPipeline",
                "pt": ["AutoModelForImageClassification"],
            },
            "audio-classification": {
                "impl": "feature_extraction_byteformer.ByteFormerAudioClassificationPipeline",
                "pt": ["AutoModelForAudioClassification"],
            },
        }

    def window_size_of(self, layer):
        """Tokens per window in the given layer."""
        return self.window_sizes[0 if len(self.window_sizes) == 1 else layer]

    def window_shift_of(self, layer):
        """By how many tokens, fewer than a window has, the given layer's windows are shifted."""
        return self.window_shifts[layer] % self.window_size_of(layer)

    def check_values(self):
        """Raises ValueError for values no model can be built from.

        The models call it as well: `from_pretrained(folder, hidden_size=...)` sets attributes after construction.
        """
        for name in _POSITIVE_INTEGERS:
            _check(
                _is_integer(getattr(self, name)) and getattr(self, name) > 0,
                name,
                "a positive integer",
                getattr(self, name),
            )
        for name in ("sinusoidal_pos_emb", "mask_padding"):
            _check(isinstance(getattr(self, name), bool), name, "True or False", getattr(self, name))
        for name, (accepts, accepted) in _NUMBERS.items():
            value = getattr(self, name)
            _check(
                isinstance(value, (int, float)) and not isinstance(value, bool) and accepts(value),
                name,
                accepted,
                value,
            )
        self._check_sizes()
        self._check_lists()

    def _check_sizes(self):
        heads = f"a multiple of num_attention_heads ({self.num_attention_heads})"
        _check(self.hidden_size % self.num_attention_heads == 0, "hidden_size", heads, self.hidden_size)
        _check(self.vocab_size >= 2, "vocab_size", "2 or more (the last id is padding)", self.vocab_size)
        _check(
            self.conv_kernel_size % 2 == 0, "conv_kernel_size", "even (its half is the stride)", self.conv_kernel_size
        )
        if self.sinusoidal_pos_emb:
            even = "even and 4 or more with sinusoidal_pos_emb"
            _check(self.hidden_size % 2 == 0 and self.hidden_size >= 4, "hidden_size", even, self.hidden_size)

    def _check_lists(self):
        layers = self.num_hidden_layers
        for name, kind, lengths in (
            ("window_sizes", "positive integers", (1, layers)),
            ("window_shifts", "integers, 0 or more", (layers,)),
            ("downsample", "True or False", (layers,)),
        ):
            value = getattr(self, name)
            _check(isinstance(value, list) and all(map(_ENTRIES[name], value)), name, f"a list of {kind}", value)
            if len(value) not in lengths:
                accepted = " or ".join(str(length) for length in sorted(set(lengths)))
                raise ValueError(f"{name} needs {accepted} entries for {layers} layers, got {len(value)}: {value}")

    def _default_shifts(self):
        windows = self.window_sizes
        if not (
            isinstance(windows, list) and windows and all(map(_ENTRIES["window_sizes"], windows))
        ):  # check_values says what is wrong
            return list(DEFAULT_WINDOW_SHIFTS)
        return [shift % windows[layer % len(windows)] for layer, shift in enumerate(DEFAULT_WINDOW_SHIFTS)]


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _check(fine, name, accepted, value):
    if not fine:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")


_POSITIVE_INTEGERS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "conv_kernel_size",
    "max_position_embeddings",
)
_ENTRIES = {
    "window_sizes": lambda entry: _is_integer(entry) and entry > 0,
    "window_shifts": lambda entry: _is_integer(entry) and entry >= 0,
    "downsample": lambda entry: isinstance(entry, bool),
}
_NUMBERS = {
    "leaky_relu_slope": (lambda value: abs(value) < float("inf"), "a finite number"),
    "layer_norm_eps": (lambda value: 0 < value < float("inf"), "a positive number, such as 1e-5"),
    "hidden_dropout_prob": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "attention_probs_dropout_prob": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "activation_dropout_prob": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "drop_path_rate": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "initializer_range": (lambda value: 0 <= value < float("inf"), "a standard deviation, 0 or more"),
}

ByteFormerConfig.register_for_auto_class()

__all__ = ["BYTEFORMER_MODES", "ByteFormerConfig"]
