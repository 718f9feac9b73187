"""ByteFormer."""

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..facts import Case, Graph, Layout, Load, Package, Shapes, blocks, layers_of, rules, same

LAYER = "encoder.layers.{i}."

LAYOUTS = (
    Layout(
        "hub",
        same(
            "embeddings.byte_embeddings.weight",
            "embeddings.token_reduction.weight",
            "embeddings.position_embeddings",
            LAYER + "layer_norm1.{p}",
            LAYER + "self_attn.qkv_proj.{p}",
            LAYER + "self_attn.out_proj.{p}",
            LAYER + "layer_norm2.{p}",
            LAYER + "mlp.fc1.{p}",
            LAYER + "mlp.fc2.{p}",
            LAYER + "downsample.reduction.weight",
            LAYER + "downsample.norm.{p}",
            "layernorm.{p}",
            "classifier.{p}",
        ),
    ),
    Layout(
        "corenet",
        rules(
            ("embeddings.weight", "embeddings.byte_embeddings.weight"),
            ("token_reduction_net.weight", "embeddings.token_reduction.weight"),
            ("pos_embed.pos_embed.pos_embed", "embeddings.position_embeddings"),
            ("transformer.{i}.pre_norm_mha.0.{p}", LAYER + "layer_norm1.{p}"),
            ("transformer.{i}.pre_norm_mha.1.qkv_proj.{p}", LAYER + "self_attn.qkv_proj.{p}"),
            ("transformer.{i}.pre_norm_mha.1.out_proj.{p}", LAYER + "self_attn.out_proj.{p}"),
            ("transformer.{i}.pre_norm_ffn.0.{p}", LAYER + "layer_norm2.{p}"),
            ("transformer.{i}.pre_norm_ffn.1.{p}", LAYER + "mlp.fc1.{p}"),
            ("transformer.{i}.pre_norm_ffn.4.{p}", LAYER + "mlp.fc2.{p}"),
            ("downsamplers.downsample_{i}.reduction.weight", LAYER + "downsample.reduction.weight"),
            ("downsamplers.downsample_{i}.norm.{p}", LAYER + "downsample.norm.{p}"),
            ("post_transformer_norm.{p}", "layernorm.{p}"),
            ("classifier.{p}", "classifier.{p}"),
        ),
    ),
)


def sizes(shapes: Shapes) -> Dict[str, Any]:
    return {
        "vocab_size": shapes["embeddings.byte_embeddings.weight"][0],
        "hidden_size": shapes["embeddings.byte_embeddings.weight"][1],
        "conv_kernel_size": shapes["embeddings.token_reduction.weight"][-1],
        "max_position_embeddings": shapes["embeddings.position_embeddings"][-2],
        "downsample": [f"encoder.layers.{i}.downsample.reduction.weight" in shapes for i in range(layers_of(shapes))],
    }


class Forwards:
    """bytes, padded batch, attention backends, on inputs as long as one and a half windows need, whatever the
    configured maximum."""

    subjects = ("bytes", "padded batch", "attention")

    def __init__(self, model):
        super().__init__(model)
        self.kernel = self.config.conv_kernel_size
        self.stride = self.kernel // 2
        window = max(self.config.window_sizes)
        self.tokens = min(self.config.max_position_embeddings, window + window // 2 + 1)
        self.length = self.kernel + self.stride * (self.tokens - 1)

    def random_bytes(self, batch: int, seed: int):
        import torch

        high = min(256, self.config.vocab_size - 1)
        return torch.randint(0, high, (batch, self.length), generator=torch.Generator().manual_seed(seed))

    def padded(self, seed: int) -> tuple:
        """Two rows, the second with padding behind its first `real` bytes."""
        ids = self.random_bytes(2, seed)
        real = max(self.kernel, self.length * 3 // 5)
        ids[1, real:] = self.config.vocab_size - 1
        return ids, real

    def bytes(self) -> str:
        inputs = {"input_ids": self.random_bytes(1, seed=0)}
        outputs = self.run(**inputs)
        self.record("bytes", inputs, outputs)
        self.expect(
            tuple(outputs["hidden_states.0"].shape),
            (1, self.tokens, self.config.hidden_size),
            "shape of the embedded bytes",
        )
        left = self.tokens
        for merges in self.config.downsample:
            left = -(-left // 2) if merges else left
        self.check_sizes(outputs, 1, left)
        return f"{self.length} bytes, {self.tokens} tokens, {left} after merging, all finite"

    def padded_batch(self) -> str:
        import torch

        ids, real = self.padded(seed=1)
        outputs = self.run(input_ids=ids)
        self.record("padded batch", {"input_ids": ids}, outputs)
        self.expect_distinct(outputs["pooler_output"], "batch")
        minus_one = torch.where(ids == self.config.vocab_size - 1, -1, ids)
        same = self.expect_equal(
            self.run(input_ids=minus_one), outputs, f"padding as -1 and as {self.config.vocab_size - 1}"
        )
        first = self.expect_equal(
            self.run(input_ids=ids[:1]), self.rows(outputs, slice(0, 1)), "row 0 in a batch and alone"
        )
        # Released checkpoints count padding, so the row alone keeps it; with masking the row alone has none.
        alone = self.run(input_ids=ids[1:, :real] if self.config.mask_padding else ids[1:])
        second = self.same_result(alone, self.rows(outputs, slice(1, 2)))
        mode = "padding masked" if self.config.mask_padding else "padding counted, as released"
        return f"{mode}; rows equal themselves alone within {max(first, second):.1e}, padding as -1: {same:.1e}"

    def same_result(self, alone, in_batch) -> float:
        """Compares what a caller gets for the row: tokens too where their number is the same."""
        names = ("pooler_output", "logits") if self.config.mask_padding else tuple(in_batch)
        expected = {name: alone[name] for name in names if name in alone}
        return self.expect_equal(in_batch, expected, "the padded row in a batch and alone")

    def attention(self) -> str:
        return self.compare_backends(
            {
                "bytes": {"input_ids": self.random_bytes(1, seed=2)},
                "padded batch": {"input_ids": self.padded(seed=3)[0]},
            }
        )


DECODED = ("JPEG", "PNG", "TIFF", "fCHW", "fHWC", "WAV")  # encodings that the processors make from pixels or samples


def try_processor(probe, processor) -> str:
    """Runs a folder's processor on what it takes: a file, a second of sound or a picture."""
    import torch

    if processor.file_encoding not in DECODED:  # files go in as they are
        made, source = processor(bytes(range(256)) * 4, return_tensors="pt"), "a file becomes"
    elif hasattr(processor, "sampling_rate"):
        wave = torch.sin(torch.arange(processor.sampling_rate) / 50).numpy()
        made, source = (
            processor(wave, sampling_rate=processor.sampling_rate, return_tensors="pt"),
            "a second of sound becomes",
        )
    else:
        made, source = processor(images=probe.picture(), return_tensors="pt"), "a picture becomes"
    ids, vocabulary = made["input_ids"], probe.model_config()["vocab_size"]
    if ids.dim() != 2 or ids.is_floating_point() or int(ids.min()) < -1 or int(ids.max()) >= vocabulary:
        probe.fail(
            f"it makes input_ids of shape {tuple(ids.shape)} and type {ids.dtype}, not (B, S) integers from "
            f"-1 to {vocabulary - 1}"
        )
    return f"{source} {ids.shape[1]} input_ids"


def parameters(config: Any) -> int:
    width = config.hidden_size
    merging = sum(map(bool, config.downsample or [])) * 2 * width**2
    tables = width * (config.vocab_size + config.max_position_embeddings + width * config.conv_kernel_size)
    return blocks(config) + merging + tables


def card_values(recipe: Any, config: Any) -> Dict[str, Any]:
    """What the templates of the cards leave open."""
    from ..foreign.text import markdown

    if recipe.processor.get("file_encoding", "WAV") == "WAV":
        rate = recipe.processor.get("sampling_rate", 16000)
        inputs = (
            f"waveform = torch.sin(torch.arange({rate}) * 0.17).numpy()  # one second, mono\n"
            f'inputs = feature_extractor(waveform, sampling_rate={rate}, return_tensors="pt")'
        )
    else:
        inputs = 'inputs = feature_extractor("word.mp3", return_tensors="pt")  # the file\'s own bytes'
    source = '"photo.jpg"' if recipe.processor.get("file_encoding", "TIFF") is None else 'Image.open("photo.jpg")'
    return {
        "audio_inputs": inputs,
        "image_inputs": f'inputs = processor({source}, return_tensors="pt")  # input_ids: bytes, padded with 256',
        "conv_stride": config.conv_kernel_size // 2,
        "input_text": ", ".join(markdown(f"{key} {value}") for key, value in sorted(recipe.processor.items()))
        or "the processor's defaults",
    }


# --- benchmark cases: the tiny size as released, on sequences as long as the released recipes make them

JPEG_BYTES, TIFF_BYTES = 48_564, 150_528
PADDING = 256
ROWS = 8


def release(kernel_size: int, **more) -> dict:
    """The released configurations: tiny, windows of 128, 50,000 positions, 1000 labels."""
    return dict(conv_kernel_size=kernel_size, max_position_embeddings=50_000, num_labels=1000, **more)


def rows_of(lengths: Sequence[int]):
    """A maker of (B, S) bytes, padded behind each row's length."""

    def make(generator):
        import torch

        input_ids = torch.randint(0, 256, (len(lengths), max(lengths)), generator=generator)
        for row, length in zip(input_ids, lengths):
            row[length:] = PADDING
        return dict(input_ids=input_ids)

    return make


def case(name: str, config: dict, lengths: Sequence[int], **more) -> Case:
    reference = "tests/plain_byteformer.py:PlainByteFormer"
    return Case(
        name, "byteformer", "ByteFormerForImageClassification", config, rows_of(lengths), reference, "logits", **more
    )


def filled(first: float, last: float) -> List[int]:
    """ROWS lengths, evenly from one share of JPEG_BYTES to another."""
    return [round(JPEG_BYTES * (first + (last - first) * row / (ROWS - 1))) for row in range(ROWS)]


def load(first: float, last: float) -> Load:
    # One full row in every load keeps the padded batch, and so the work of a model that computes padding, the same.
    lengths = filled(first, last)[:-1] + [JPEG_BYTES]
    return Load(f"{first:.0%} to {last:.0%}", rows_of(lengths), sum(lengths))


CASES = (
    case("jpeg", release(4), [JPEG_BYTES]),
    case("tiff", release(32), [TIFF_BYTES]),
    case("batch", release(4), [JPEG_BYTES] + [round(JPEG_BYTES * 0.8)] * (ROWS - 1)),
    case(
        "ragged",
        release(4, mask_padding=True),
        filled(0.05, 1.0),
        unit="real byte",
        loads=(load(1.0, 1.0), load(0.05, 1.0), load(0.5, 0.5), load(0.05, 0.2)),
    ),
)


# --- exported graphs


def trial_tokens(config: Any) -> List[int]:
    """Numbers of tokens to export with (the first) and to compare with: two, which programs of torch.export need, to some
    windows, full ones and parts."""
    window, most = max(config.window_sizes), config.max_position_embeddings
    wanted = [window * 2 + 3, 2, 3, 4, 5, 6, window // 2, window - 1, window, window + 1, window + window // 2]
    wanted += [2 * window, 2 * window + 1, 3 * window, 3 * window - 1, 4 * window, 37, 61, 100, 5 * window + 3]
    return [max(2, min(tokens, most)) for tokens in wanted]


def graphs(config: Any, architecture: str) -> Tuple[Graph, ...]:
    """The model on a padded batch. Where padding is masked there is a mask to give; elsewhere it has no use."""
    kernel, stride, width = config.conv_kernel_size, config.conv_kernel_size // 2, config.hidden_size
    names = ("input_ids", "attention_mask") if config.mask_padding else ("input_ids",)
    trials = tuple(
        {"batch": 2 - number % 2, "bytes": kernel + stride * (tokens - 1) + number % stride}
        for number, tokens in enumerate(trial_tokens(config))
    )
    if architecture == PACKAGE.models["AutoModel"]:
        outputs = {"last_hidden_state": ("batch", "tokens", width), "pooler_output": ("batch", width)}
    else:
        outputs = {"logits": ("batch", config.num_labels)}
    return (Graph("model", {name: ("batch", "bytes") for name in names}, outputs, trial_bytes(config), trials),)


def trial_bytes(config: Any):
    """A maker of bytes, of which all rows but the first are padded, and of their mask where there is one."""

    def make(sizes, generator):
        import torch

        ids = torch.randint(0, min(256, config.padding_id), (sizes["batch"], sizes["bytes"]), generator=generator)
        ids[1:, max(config.conv_kernel_size, sizes["bytes"] * 2 // 3) :] = config.padding_id
        mask = {"attention_mask": (ids != config.padding_id).long()} if config.mask_padding else {}
        return {"input_ids": ids, **mask}

    return make


FILES = {"WAV": "sound.wav", "PNG": "picture.png", "TIFF": "photo.tif"}  # encoding -> a file's name, for cards


def array_lines(config: Any, settings: Mapping[str, Any]) -> str:
    """The bytes of a file in NumPy."""
    encoding = settings.get("file_encoding")
    name = FILES.get(encoding, "word.mp3" if "sampling_rate" in settings else "photo.jpg")
    note = "the file's own bytes" if encoding is None else f"the processor makes {encoding} of what it gets"
    lines = f'input_ids = np.frombuffer(open("{name}", "rb").read(), np.uint8)[None].astype(np.int64)  # {note}\n'
    if config.mask_padding:
        return lines + 'inputs = {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids)}'
    return lines + 'inputs = {"input_ids": input_ids}'


PACKAGE = Package(
    name="byteformer",
    model_type="byteformer",
    base_prefix="byteformer.",
    config_class="ByteFormerConfig",
    configuration="configuration_byteformer",
    modeling="modeling_byteformer",
    models={
        "AutoModel": "ByteFormerModel",
        "AutoModelForImageClassification": "ByteFormerForImageClassification",
        "AutoModelForAudioClassification": "ByteFormerForAudioClassification",
    },
    processors={
        "AutoImageProcessor": ("image_processing_byteformer", "ByteFormerImageProcessor"),
        "AutoFeatureExtractor": ("feature_extraction_byteformer", "ByteFormerFeatureExtractor"),
    },
    inputs="bytes",
    layouts=LAYOUTS,
    sizes=sizes,
    parameters=parameters,
    forwards=Forwards,
    try_processor=try_processor,
    card_values=card_values,
    graphs=graphs,
    array_lines=array_lines,
    lora_targets=r".*encoder\.layers\.\d+\.(self_attn\.(qkv|out)_proj|mlp\.fc[12])",
    cases=CASES,
)
