# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT written down as plainly as it is defined: slow, and meant to be obviously right.

The tests use it as their oracle, `scripts/verify.py --reference` and `scripts/benchmark.py --reference` as the other
implementation. It shares no code with the package: every patch is projected by a convolution, attention is materialised,
and the rotary angles are computed anew in every layer.
"""

from typing import Dict, Optional

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

DEFAULTS = dict(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_channels=3,
    patch_size=16,
    hidden_act="gelu",
    layer_norm_type="layer_norm",
    layer_norm_eps=1e-6,
    rope_theta=10000.0,
    use_head=True,
    max_visible_patches=2048,
)


def norm(config: dict) -> nn.Module:
    kind = {"layer_norm": nn.LayerNorm, "rms_norm": nn.RMSNorm}[config["layer_norm_type"]]
    return kind(config["hidden_size"], eps=config["layer_norm_eps"])


class Embeddings(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        p = config["patch_size"]
        self.patch_embedding = nn.Conv2d(
            config["num_channels"], config["hidden_size"], kernel_size=p, stride=p, bias=False
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, L, D), ordered by frame, row, column."""
        batch, channels, frames, height, width = pixel_values.shape
        frame_images = pixel_values.permute(0, 2, 1, 3, 4).reshape(batch * frames, channels, height, width)
        projected = self.patch_embedding(frame_images)  # (B*T, D, h, w)
        tokens = projected.flatten(2).transpose(1, 2)  # (B*T, h*w, D)
        return tokens.reshape(batch, -1, tokens.shape[-1])


class Attention(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        D = config["hidden_size"]
        self.num_heads = config["num_attention_heads"]
        self.head_dim = D // self.num_heads
        self.theta = config["rope_theta"]
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))

    def angles(self, positions: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) positions -> (B, 1, N, d): [t*f_t, r*f_h, c*f_w] twice in a row."""
        u = self.head_dim // 32
        parts = []
        for axis, n in enumerate([4 * u, 6 * u, 6 * u]):
            inv_freq = self.theta ** (-torch.arange(n, dtype=torch.float32) / n)
            parts.append(positions[:, :, axis, None].float() * inv_freq)
        half = torch.cat(parts, dim=-1)
        return torch.cat([half, half], dim=-1)[:, None]

    def rotate(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        x0, x1 = x[..., 0::2], x[..., 1::2]
        rot = torch.stack([-x1, x0], dim=-1).flatten(-2)  # (x0, x1) -> (-x1, x0) in each adjacent pair
        return x * angles.cos().to(x.dtype) + rot * angles.sin().to(x.dtype)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5  # (B, A, N, N)
        return torch.softmax(scores, dim=-1) @ v

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, A, N, d)"""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        angles = self.angles(positions)
        q = self.rotate(self.split(self.q_proj(x)), angles)
        k = self.rotate(self.split(self.k_proj(x)), angles)
        v = self.split(self.v_proj(x))
        return self.out_proj(self.attend(q, k, v).transpose(1, 2).reshape(x.shape))


class SdpaAttention(Attention):
    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class MLP(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.fc1 = nn.Linear(config["hidden_size"], config["intermediate_size"])
        self.fc2 = nn.Linear(config["intermediate_size"], config["hidden_size"])
        self.act = ACT2FN[config["hidden_act"]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: dict, attention: type):
        super().__init__()
        self.layer_norm1 = norm(config)
        self.self_attn = attention(config)
        self.layer_norm2 = norm(config)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), positions)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    def __init__(self, config: dict, attention: type):
        super().__init__()
        self.layers = nn.ModuleList(Block(config, attention) for _ in range(config["num_hidden_layers"]))


class Head(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        D = config["hidden_size"]
        self.probe = nn.Parameter(torch.randn(1, 1, D))
        self.attention = nn.MultiheadAttention(D, config["num_attention_heads"], batch_first=True)
        self.norm = nn.RMSNorm(D, eps=config["layer_norm_eps"])
        self.mlp = MLP(config)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        z = self.attention(self.probe.expand(y.shape[0], -1, -1), y, y, need_weights=False)[0]
        return (z + self.mlp(self.norm(z)))[:, 0]


class PlainLlavaViT(nn.Module):
    """The model from its definition. `config` holds the fields of the configuration; absent ones take their defaults."""

    attention = Attention

    def __init__(self, config: dict):
        super().__init__()
        self.config = config = {**DEFAULTS, **config}
        self.embeddings = Embeddings(config)
        self.layernorm_pre = norm(config)
        self.encoder = Encoder(config, self.attention)
        if config["use_head"]:
            self.layernorm_post = norm(config)
            self.head = Head(config)

    def visible(self, visible_indices: Optional[torch.Tensor], batch: int, patches: int) -> torch.Tensor:
        """The three forms of visible_indices as (B, N) indices."""
        if visible_indices is None:
            return torch.arange(patches).expand(batch, patches)
        if (
            visible_indices.dim() == 2
        ):  # as many as patches and some beyond them: all patches, and the indices are places
            if visible_indices.shape[1] == patches and visible_indices.max() >= patches:
                beyond = (visible_indices >= patches).any(dim=1, keepdim=True)
                return torch.where(beyond, torch.arange(patches), visible_indices)
            return visible_indices
        p = self.config["patch_size"]
        B, _, T, H, W = visible_indices.shape
        score = visible_indices.abs().reshape(B, T, H // p, p, W // p, p).sum(dim=(3, 5)).reshape(B, patches)
        kept = score.topk(min(self.config["max_visible_patches"], patches), dim=1).indices
        return kept.sort(dim=1).values

    def forward(
        self,
        pixel_values: torch.Tensor,
        visible_indices: Optional[torch.Tensor] = None,
        patch_positions: Optional[torch.Tensor] = None,
    ) -> Dict[str, object]:
        if pixel_values.dim() == 4:
            pixel_values = pixel_values[:, :, None]
        tokens = self.embeddings(pixel_values)
        indices = self.visible(visible_indices, tokens.shape[0], tokens.shape[1])
        tokens = tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[-1]))
        if patch_positions is None:
            h, w = (side // self.config["patch_size"] for side in pixel_values.shape[-2:])
            places = visible_indices if visible_indices is not None and visible_indices.dim() == 2 else indices
            patch_positions = torch.stack([places // (h * w), places // w % h, places % w], dim=-1)

        return self.encode(tokens, patch_positions)

    def encode(self, tokens: torch.Tensor, patch_positions: torch.Tensor) -> Dict[str, object]:
        """(B, N, D) projected patches at (B, N, 3) -> the outputs."""
        x = self.layernorm_pre(tokens)
        hidden_states = [x]
        for block in self.encoder.layers:
            x = block(x, patch_positions)
            hidden_states.append(x)
        pooled = None
        if self.config["use_head"]:
            x = self.layernorm_post(x)
            pooled = self.head(x)
        return dict(last_hidden_state=x, pooler_output=pooled, hidden_states=tuple(hidden_states))


class PlainLlavaViTSdpa(PlainLlavaViT):
    """The same, with its attention through scaled_dot_product_attention."""

    attention = SdpaAttention


# --- packs: pixel_values (P, C*p*p), grid_thw (S, 3), patch_positions (P, 3) -> last_hidden_state (P, D), pooler_output


class PlainPackOneByOne(PlainLlavaViTSdpa):
    """A pack by one forward for each sample; attention windows by one attention call for each of them."""

    def forward(self, pixel_values, grid_thw, patch_positions) -> Dict[str, object]:
        lengths = grid_thw.prod(dim=1).tolist()
        tokens = F.linear(pixel_values, self.embeddings.patch_embedding.weight.flatten(1))
        samples = []
        for grid, sample, places in zip(grid_thw.tolist(), tokens.split(lengths), patch_positions.split(lengths)):
            self.prepare(grid)
            samples.append(self.encode(sample[None], places[None]))
        pooled = [sample["pooler_output"] for sample in samples]
        return dict(
            last_hidden_state=torch.cat([sample["last_hidden_state"][0] for sample in samples]),
            pooler_output=None if None in pooled else torch.cat(pooled),
        )

    def prepare(self, grid: list) -> None:
        """What a sample of this grid needs of the layers: nothing, where it attends to itself as a whole."""


class WindowAttention(SdpaAttention):
    lengths: Optional[list] = None  # of the windows

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        windows = zip(q.split(self.lengths, 2), k.split(self.lengths, 2), v.split(self.lengths, 2))
        return torch.cat([F.scaled_dot_product_attention(*window) for window in windows], dim=2)


class PlainPackInWindows(PlainPackOneByOne):
    attention = WindowAttention

    def prepare(self, grid: list) -> None:
        frames, rows, columns = grid
        window = self.config["frame_windows_size"] or frames
        runs = [min(window, frames - first) for first in range(0, frames, window)]
        for block in self.encoder.layers:
            block.self_attn.lengths = [run * rows * columns for run in runs]


class MaskedAttention(SdpaAttention):
    mask: Optional[torch.Tensor] = None  # (B, 1, 1, N), True for what is no padding

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


class PlainPackPadded(PlainLlavaViTSdpa):
    """A pack by one forward of all samples, each padded to the largest. Without a head, which would need a mask, too."""

    attention = MaskedAttention

    def forward(self, pixel_values, grid_thw, patch_positions) -> Dict[str, object]:
        lengths = grid_thw.prod(dim=1)
        tokens = F.linear(pixel_values, self.embeddings.patch_embedding.weight.flatten(1))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]  # (S, N)
        padded = tokens.new_zeros(*mask.shape, tokens.shape[1])
        places = patch_positions.new_zeros(*mask.shape, 3)
        padded[mask], places[mask] = tokens, patch_positions
        for block in self.encoder.layers:
            block.self_attn.mask = mask[:, None, None]
        return dict(last_hidden_state=self.encode(padded, places)["last_hidden_state"][mask])
