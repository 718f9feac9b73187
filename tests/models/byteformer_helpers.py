# SPDX-License-Identifier: Apache-2.0
"""What the ByteFormer model tests share: tiny and random models, recorded cases, byte batches, and the error measure."""

import json
import random
from pathlib import Path

import torch
from hubtools.assembly.layouts import to_hub_layout
from measure import relative_error  # noqa: F401, for the tests that take it from here
from plain_byteformer import PlainByteFormer
from safetensors.torch import load_file

from byteformer import ByteFormerConfig, ByteFormerForImageClassification

GOLDEN = Path(__file__).parents[1] / "golden"
PADDING = 256
TINY = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=2,
    conv_kernel_size=4,
    max_position_embeddings=200,
    window_sizes=[16],
    window_shifts=[0, 8, 0, 5],
    downsample=[True, False, True, False],
    num_labels=5,
)


def tiny_config(**changes) -> ByteFormerConfig:
    return ByteFormerConfig(**{**TINY, **changes})


def tiny_model(model_class=ByteFormerForImageClassification, seed=0, **changes):
    """A tiny model in eval mode whose every parameter, biases and norms included, has a value that matters."""
    attention = changes.pop("attn_implementation", None)
    model = model_class._from_config(tiny_config(**changes), attn_implementation=attention).eval()
    return randomised(model, seed)


def randomised(model, seed: int):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.15 * noise)
            if name.endswith("byte_embeddings.weight"):
                parameter[-1] = 0
    return model


def random_config(seed: int, **changes) -> ByteFormerConfig:
    """Any shape that a configuration may have, small."""
    pick = random.Random(seed)
    layers = pick.randint(1, 4)
    windows = [pick.choice([1, 2, 3, 5, 8, 16]) for _ in range(pick.choice([1, layers]))]
    return ByteFormerConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=pick.choice([1, 2, 4]),
        conv_kernel_size=pick.choice([2, 4, 8]),
        max_position_embeddings=200,
        window_sizes=windows,
        window_shifts=[pick.randrange(windows[layer % len(windows)]) for layer in range(layers)],
        downsample=[pick.random() < 0.5 for _ in range(layers)],
        sinusoidal_pos_emb=pick.random() < 0.3,
        hidden_act=pick.choice(["gelu", "relu"]),
        num_labels=5,
        **changes,
    )


def plain_twin(model) -> PlainByteFormer:
    """The plain implementation with the same weights."""
    plain = PlainByteFormer({**model.config.to_dict(), "num_labels": model.config.num_labels}).eval()
    plain.load_state_dict(
        {name.removeprefix("byteformer."): value for name, value in model.state_dict().items()}, strict=True
    )
    return plain


def byte_batch(lengths, size=None, seed=0) -> torch.Tensor:
    """(B, S) random bytes, padded to the longest or to `size`."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.full((len(lengths), size or max(lengths)), PADDING)
    for row, length in zip(batch, lengths):
        row[:length] = torch.randint(0, 256, (length,), generator=generator)
    return batch


def golden_cases():
    """(model name, case name) of every recorded case."""
    paths = sorted(GOLDEN.glob("byteformer_*.json"))
    return [(path.stem, case) for path in paths for case in json.loads(path.read_text())["cases"]]


def golden_config(name: str) -> dict:
    config = json.loads((GOLDEN / f"{name}.json").read_text())["config"]
    return {"max_position_embeddings": config.pop("max_num_tokens"), **config}


def golden_model(name: str, backend: str) -> ByteFormerForImageClassification:
    model = ByteFormerForImageClassification._from_config(
        ByteFormerConfig(**golden_config(name)), attn_implementation=backend
    ).eval()
    recorded = load_file(GOLDEN / f"{name}.weights.safetensors")
    expected = model.state_dict()
    _, parts = to_hub_layout("byteformer", recorded, expected)
    model.load_state_dict({target: part.of(recorded[part.source]) for target, part in parts.items()}, strict=True)
    return model


def golden_tensors(name: str, case: str):
    """(input_ids, outputs) of a recorded case."""
    tensors = load_file(GOLDEN / f"{name}.cases.safetensors")
    outputs = {key.split(".out.")[1]: value for key, value in tensors.items() if key.startswith(f"{case}.out.")}
    return tensors[f"{case}.in.input_ids"], outputs
