# SPDX-License-Identifier: Apache-2.0
"""ByteFormer written down as plainly as it is defined: slow, and meant to be obviously right.

The tests use it as their oracle, `scripts/verify.py --reference` and `scripts/benchmark.py --reference` as the other
implementation. It shares no code with the package: bytes are embedded and convolved, every layer pads, rolls and cuts the
whole sequence, and attention is materialised over all windows at once. Rows of a masked batch are run one by one.
"""

import math
from typing import Dict, List, Optional

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

DEFAULTS = dict(
    hidden_size=192,
    num_hidden_layers=12,
    num_attention_heads=3,
    intermediate_size=768,
    vocab_size=257,
    conv_kernel_size=16,
    max_position_embeddings=10000,
    window_sizes=[128],
    window_shifts=[0, 64] * 6,
    downsample=[True, True, False, True, False, True, False, True, False, True, False, False],
    sinusoidal_pos_emb=False,
    mask_padding=False,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
)


class Embeddings(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        D, V, k, P = (
            config[name] for name in ("hidden_size", "vocab_size", "conv_kernel_size", "max_position_embeddings")
        )
        self.byte_embeddings = nn.Embedding(V, D, padding_idx=V - 1)
        self.token_reduction = nn.Conv1d(D, D, k, stride=k // 2, bias=False)
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1, P, D), requires_grad=not config["sinusoidal_pos_emb"])
        if config["sinusoidal_pos_emb"]:
            n, i = torch.arange(P, dtype=torch.float64)[:, None], torch.arange(D // 2, dtype=torch.float64)
            angles = n * torch.exp(-i * math.log(10000) / (D // 2 - 1))
            self.position_embeddings.data[0, 0] = torch.cat([angles.sin(), angles.cos()], dim=1)

    def forward(self, byte_ids: torch.Tensor) -> torch.Tensor:
        """(B, S) -> (B, N, D)."""
        tokens = self.token_reduction(self.byte_embeddings(byte_ids).transpose(1, 2)).transpose(1, 2)
        return tokens + self.position_embeddings[0, :, : tokens.shape[1]]


class Attention(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        D = config["hidden_size"]
        self.num_heads = config["num_attention_heads"]
        self.qkv_proj, self.out_proj = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def attend(self, q, k, v, allowed):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, A, W, W)
        if allowed is not None:
            scores = scores.masked_fill(~allowed[:, None], float("-inf"))
        return torch.softmax(scores, dim=-1) @ v

    def forward(self, x: torch.Tensor, allowed: Optional[torch.Tensor]) -> torch.Tensor:
        """(B, W, D) with allowed (B, W, W) -> (B, W, D)."""
        B, W, D = x.shape
        q, k, v = (part.reshape(B, W, self.num_heads, -1).transpose(1, 2) for part in self.qkv_proj(x).chunk(3, dim=-1))
        return self.out_proj(self.attend(q, k, v, allowed).transpose(1, 2).reshape(B, W, D))


class FeedForward(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.fc1 = nn.Linear(config["hidden_size"], config["intermediate_size"])
        self.fc2 = nn.Linear(config["intermediate_size"], config["hidden_size"])
        self.activation = ACT2FN[config["hidden_act"]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Merging(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        D = config["hidden_size"]
        self.reduction, self.norm = nn.Linear(2 * D, D, bias=False), nn.LayerNorm(D, eps=config["layer_norm_eps"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, ceil(N / 2), D)."""
        x = F.pad(x, (0, 0, 0, x.shape[1] % 2))
        channels = torch.stack([x[:, 0::2], x[:, 1::2]], dim=-1)  # (B, N / 2, D, 2): c0 of both, c1 of both, ...
        return self.norm(self.reduction(channels.flatten(2)))


class Layer(nn.Module):
    def __init__(self, config: dict, index: int):
        super().__init__()
        D, eps, sizes = config["hidden_size"], config["layer_norm_eps"], config["window_sizes"]
        self.window = sizes[0] if len(sizes) == 1 else sizes[index]
        self.shift = config["window_shifts"][index]
        self.masked = config["mask_padding"]
        self.layer_norm1, self.self_attn = nn.LayerNorm(D, eps=eps), Attention(config)
        self.layer_norm2, self.mlp = nn.LayerNorm(D, eps=eps), FeedForward(config)
        self.downsample = Merging(config) if config["downsample"][index] else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N or ceil(N / 2), D)."""
        B, N, D = x.shape
        padded = F.pad(x, (0, 0, 0, -N % self.window))
        windows = padded.roll(-self.shift, dims=1).reshape(-1, self.window, D)
        windows = self.block(windows, self.allowed(B, N, padded.shape[1]) if self.masked else None)
        x = windows.reshape(padded.shape).roll(self.shift, dims=1)[:, :N]
        return x if self.downsample is None else self.downsample(x)

    def block(self, x: torch.Tensor, allowed: Optional[torch.Tensor]) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), allowed)
        return x + self.mlp(self.layer_norm2(x))

    def allowed(self, B: int, N: int, padded: int) -> torch.Tensor:
        """(B * windows, W, W): who sees whom. Padding is seen by itself alone; the two ends do not see each other."""
        position = torch.arange(padded).roll(-self.shift)
        wrapped = torch.arange(padded) >= padded - self.shift % padded  # these places hold the sequence's beginning
        position, wrapped = position.reshape(-1, self.window), wrapped.reshape(-1, self.window)
        real = position < N
        same_side = wrapped[:, :, None] == wrapped[:, None, :]
        seen = (real[:, None, :] & same_side) | torch.eye(self.window, dtype=torch.bool)
        return seen.repeat(B, 1, 1)


class Encoder(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config["num_hidden_layers"]))

    def forward(self, x: torch.Tensor) -> List[torch.Tensor]:
        """The input and what every layer makes of it."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states


def labels_of(config: dict) -> int:
    """How many labels a configuration names; transformers leaves its default, 2, unsaid. 0 for a model without a head."""
    classifies = any("Classification" in name for name in config.get("architectures") or [])
    return config.get("num_labels") or len(config.get("id2label") or {}) or 2 * classifies


class PlainByteFormer(nn.Module):
    """ByteFormer of a configuration given as a dictionary (`ByteFormerConfig.to_dict()`, or less: the rest is default).

    `num_labels`, `id2label` or `architectures` says whether there is a classifier. The state dict is that of `ByteFormerModel`, with `classifier.*`.
    """

    def __init__(self, config: dict):
        super().__init__()
        labels = labels_of(config)
        self.config = config = {**DEFAULTS, **{name: value for name, value in config.items() if name in DEFAULTS}}
        self.padding_id, self.kernel_size, self.masked = (
            config["vocab_size"] - 1,
            config["conv_kernel_size"],
            config["mask_padding"],
        )
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.classifier = nn.Linear(config["hidden_size"], labels) if labels else None

    def forward(self, input_ids: torch.Tensor) -> Dict[str, object]:
        """(B, S) -> embeddings (B, N, D), last_hidden_state (B, N', D), pooler_output (B, D), hidden_states, logits.

        With `mask_padding` the rows may differ in length: the tensors (B, N, D) are filled up with zeros.
        """
        byte_ids = input_ids.long() % (
            self.padding_id + 1
        )  # -1 is padding too: Python's remainder makes it the last id
        if not self.masked:
            return self.run(byte_ids)
        outputs = [self.run(self.trimmed(row)) for row in byte_ids]
        return {name: stack_rows([output[name] for output in outputs]) for name in outputs[0]}

    def trimmed(self, row: torch.Tensor) -> torch.Tensor:
        """One row (S,) without its padding, but no shorter than the kernel: (1, S')."""
        row = row[row != self.padding_id]
        return F.pad(row, (0, max(0, self.kernel_size - len(row))), value=self.padding_id)[None]

    def run(self, byte_ids: torch.Tensor) -> Dict[str, object]:
        hidden_states = self.encoder(self.embeddings(byte_ids))
        last_hidden_state = self.layernorm(hidden_states[-1])
        pooler_output = last_hidden_state.mean(1)
        output = dict(
            embeddings=hidden_states[0],
            last_hidden_state=last_hidden_state,
            pooler_output=pooler_output,
            hidden_states=tuple(hidden_states),
        )
        if self.classifier is not None:
            output["logits"] = self.classifier(pooler_output)
        return output


class AttentionSdpa(Attention):
    def attend(self, q, k, v, allowed):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if allowed is None else allowed[:, None])


class PlainByteFormerSdpa(PlainByteFormer):
    """The same with attention through torch's fused function."""

    def __init__(self, config: dict):
        super().__init__(config)
        for layer in self.encoder.layers:
            layer.self_attn.__class__ = AttentionSdpa


def stack_rows(rows) -> object:
    """[(1, n, D), ...] -> (B, N, D) with zeros below the shorter ones; [(1, D), ...] -> (B, D); tuples of such likewise."""
    if isinstance(rows[0], tuple):
        return tuple(stack_rows(entry) for entry in zip(*rows))
    if rows[0].dim() == 2:
        return torch.cat(rows)
    longest = max(row.shape[1] for row in rows)
    return torch.cat([F.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])
