# SPDX-License-Identifier: Apache-2.0
"""ByteFormer, a transformer that classifies images and audio from the bytes of their files.

From "Bytes Are All You Need: Transformers Operating Directly On File Bytes" (Horton et al., arXiv 2306.00238). Only
torch, transformers and the configuration file beside this one are imported.

Deliberate, because the released weights were trained that way (`mask_padding=False`); do not fix:

1. Padding takes part: zero embeddings with positions added, attended to and counted in the mean.
2. Windows that stick out at the end are filled with zero vectors, which are normalised and attended to like tokens.
3. The last window of a shifted layer mixes the two ends of the sequence.
4. Merging interleaves two tokens channel by channel: input 2c + j of the reduction is channel c of token j.

How the work is laid out:

- The rows of a batch stand one after the other in `tokens` (T + 1, D). The last row is always zero: whatever sticks out
  of a sequence reads it. Windows, pairs to merge and padded batches are tables of indices into `tokens`.
- There are only V different bytes, so embedding and convolution together are a sum of rows of k small tables.
- In inference a layer works through its windows in chunks, in place where their tokens are neighbours: what it needs
  beside the tokens is small, stays in the cache, and is not allocated anew for every layer. `may_overwrite` decides that
  once per forward and it is passed down as `inplace`. Blocks that are used by themselves leave their input alone.
"""

import importlib.util
import math
from typing import List, NamedTuple, Optional, Tuple, Union

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput, SequenceClassifierOutput
from transformers.utils import logging

from .configuration_byteformer import ByteFormerConfig

try:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError:  # transformers < 4.48 has no attention interface: eager and sdpa below are all there is
    ALL_ATTENTION_FUNCTIONS = {}


logger = logging.get_logger(__name__)

# Tokens per chunk of windows worked on in place: intermediates of a few megabytes.
CHUNK_TOKENS = 2048


class Rows(NamedTuple):
    """How `tokens` (T + 1, D) divides into the rows of a batch.

    lengths: tokens of each row, T in all.
    real: (T + 1,) bool, which tokens count; None where all do, padding included (`mask_padding=False`).
    """

    lengths: Tuple[int, ...]
    real: Optional[torch.Tensor]

    @property
    def total(self) -> int:
        return sum(self.lengths)


# What a layer attends within: indices into `tokens` (windows, W) and which of them are real (None: all).
Windows = List[Tuple[torch.Tensor, Optional[torch.Tensor]]]


def starts_of(counts: Tuple[int, ...]) -> List[int]:
    """Where each of consecutive runs starts: (3, 1, 2) -> [0, 3, 4]."""
    starts = [0]
    for count in counts[:-1]:
        starts.append(starts[-1] + count)
    return starts


def window_indices(lengths: Tuple[int, ...], window: int, shift: int, wrap: bool, device: torch.device) -> torch.Tensor:
    """Cuts every row into windows.

    With `wrap`, the filled-up row is rolled left by `shift` first, so that its last window also holds its first tokens.
    Without, those first tokens have a window of their own: for a row of 5, a window of 4 and a shift of 1 (`.` is T)

        wrap:    [1 2 3 4] [. . . 0]
        no wrap: [. . . 0] [1 2 3 4]

    Args:
        lengths: tokens of each row, T in all.

    Returns:
        (windows, W) integers: indices of tokens, T where a window sticks out of its row.
    """
    lead = 0 if wrap else -shift % window
    counts = tuple(-(-(length + lead) // window) for length in lengths)
    per_row = torch.tensor([lengths, starts_of(lengths), counts, starts_of(counts)], device=device)  # (4, B)
    per_window = per_row.repeat_interleave(per_row[2], dim=1, output_size=sum(counts))[:, :, None]  # (4, windows, 1)
    length, start, count, first = per_window.unbind(0)
    number = torch.arange(sum(counts), device=device)[:, None] - first
    position = number * window + (shift if wrap else -lead) + torch.arange(window, device=device)  # (windows, W), within the row
    if wrap and shift:
        position = position % (count * window)
    inside = position < length
    if lead:
        inside = inside & (position >= 0)
    return torch.where(inside, start + position, sum(lengths))


def attention_windows(rows: Rows, window: int, shift: int, fixed: bool, device: torch.device) -> Windows:
    """The windows of a layer: one group, or with masking several, so that the work follows the number of real tokens.

    Attention has no order within a window. A window with unreal tokens is therefore cut down to its real ones, up to a
    quarter of W, and stands in a group with those of the same width. Windows without a real token are left out.

    Args:
        fixed: keep all windows at their full width (recorded graphs need fixed shapes).
    """
    indices = window_indices(rows.lengths, window, shift, rows.real is None, device)
    if rows.real is None:
        return [(indices, None)]
    real = rows.real[indices]
    if fixed:  # an empty window attends to itself: a softmax over nothing would be NaN
        return [(indices, real | ~real.any(1, keepdim=True))]
    whole = real.all(1)
    groups = [(indices[whole], None)]
    indices, real = indices[~whole], real[~whole]
    real, order = real.sort(dim=1, descending=True, stable=True)
    indices, counts = indices.gather(1, order), real.sum(1)
    step = -(-window // 4)
    for width in range(step, window + step, step):
        chosen = (counts > width - step) & (counts <= width)
        groups.append((indices[chosen, :width], real[chosen, :width]))
    return [group for group in groups if len(group[0])]


def split_windows(windows: Windows) -> Windows:
    """The same windows in groups of about CHUNK_TOKENS tokens."""
    pieces = []
    for indices, real in windows:
        count = max(1, CHUNK_TOKENS // indices.shape[1])
        chunks = indices.split(count)
        pieces += zip(chunks, [None] * len(chunks) if real is None else real.split(count))
    return pieces


def pairs_to_merge(rows: Rows, device: torch.device) -> torch.Tensor:
    """Which tokens merge: indices (M, 2), T for the missing half of an odd row and for tokens that do not count."""
    pairs = window_indices(rows.lengths, 2, 0, True, device)
    return pairs if rows.real is None else pairs.masked_fill(~rows.real[pairs], rows.total)


def merged_rows(rows: Rows) -> Rows:
    """The rows after merging."""
    lengths = tuple(-(-length // 2) for length in rows.lengths)
    if rows.real is None:
        return Rows(lengths, None)
    real = rows.real[window_indices(rows.lengths, 2, 0, True, rows.real.device)]
    return Rows(lengths, F.pad(real.any(1), (0, 1)))


def unpack(tokens: torch.Tensor, rows: Rows, length: int) -> torch.Tensor:
    """(T + 1, D) -> (B, N, D), a copy with zeros where there is no real token."""
    indices = window_indices(rows.lengths, length, 0, True, tokens.device)
    if rows.real is not None:
        indices = indices.masked_fill(~rows.real[indices], rows.total)
    return F.embedding(indices, tokens)


def read(tokens: torch.Tensor, indices: torch.Tensor, inplace: bool) -> torch.Tensor:
    """The tokens at indices (n, W), as (n, W, D): a view of consecutive ones where they may be worked on in place."""
    # Not on a GPU: it would have to stop to answer.
    if inplace and indices.device.type == "cpu":
        start, count = int(indices[0, 0]), indices.numel()
        if torch.equal(indices.flatten(), torch.arange(start, start + count)):
            return tokens[start : start + count].view(*indices.shape, -1)
    return F.embedding(indices, tokens)


def put_back(tokens: torch.Tensor, indices: torch.Tensor, hidden_states: torch.Tensor, inplace: bool) -> torch.Tensor:
    """`tokens` (T + 1, D), or a copy of them, with windows (n, W, D) at their places."""
    if inplace:
        if not shares_memory(hidden_states, tokens):
            tokens.index_copy_(0, indices.flatten(), hidden_states.flatten(0, 1))
        tokens[-1] = 0
        return tokens
    outside = indices == tokens.shape[0] - 1
    hidden_states = hidden_states.masked_fill(outside[..., None], 0)
    return tokens.index_copy(0, indices.flatten(), hidden_states.flatten(0, 1).to(tokens.dtype))


def shares_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return not a.is_meta and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def project(linear: nn.Module, inputs: torch.Tensor, residual: Optional[torch.Tensor]) -> torch.Tensor:
    """linear(inputs), (..., K) -> (..., D). Where there is a residual it is overwritten with its sum with the product."""
    if residual is None:
        return linear(inputs)
    if not (is_plain(linear) and residual.dtype == inputs.dtype == linear.weight.dtype):
        return residual.add_(linear(inputs))
    # The product is summed up in the residual's place: the update is never stored.
    residual += linear.bias
    residual.view(-1, residual.shape[-1]).addmm_(inputs.flatten(0, -2), linear.weight.t())
    return residual


def is_watched(module: nn.Module) -> bool:
    """Whether a hook is handed what goes in or comes out of this module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_wrapped(module: nn.Module) -> bool:
    """Whether something stands between a call of this module and its own code."""
    return is_watched(module) or "forward" in vars(module)


def is_plain(module: nn.Module) -> bool:
    """Whether calling the module is its arithmetic and no more: no adapter, hook, quantisation or offloading in between."""
    plain = type(module) in (nn.Linear, nn.Conv1d, nn.Embedding) and type(module.weight) is nn.Parameter
    return plain and not module.weight.is_meta and not is_wrapped(module)


def is_tracing() -> bool:
    """Whether a graph is being recorded, so that nothing may depend on the values of tensors."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def may_overwrite(model: nn.Module) -> bool:
    """Whether tokens may be worked on in place: nobody differentiates, traces, trains or keeps what hooks were handed."""
    if torch.is_grad_enabled() or is_tracing():
        return False
    return not any(module.training or is_watched(module) for module in model.modules())


def real_tokens(real_bytes: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """(B, S) bool -> (B, N) bool: a token is real when its whole convolution window is.

    A row without such a token, because it is shorter than the kernel, has one: the first that holds a real byte.
    """
    windows = real_bytes.unfold(1, kernel_size, kernel_size // 2)  # (B, N, k)
    whole, touched = windows.all(-1), windows.any(-1)
    first = touched & (touched.cumsum(1) == 1)
    return torch.where(whole.any(1, keepdim=True), whole, first)


def sinusoidal_positions(length: int, width: int) -> torch.Tensor:
    """(P, D): row n is [sin(n f) | cos(n f)] with f_i = 10000^(-i / (D/2 - 1))."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def drop_path(hidden_states: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Stochastic depth: drops the update of whole windows and scales the others up."""
    if rate == 0.0 or not training:
        return hidden_states
    kept = torch.rand(hidden_states.shape[0], 1, 1, device=hidden_states.device) >= rate
    return hidden_states * kept.to(hidden_states.dtype) / (1.0 - rate)


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention written out. query, key, value (B, H, W, d), additive mask -> (B, W, H, d) and the probabilities (B, H, W, W)."""
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    context = torch.matmul(F.dropout(weights, dropout, module.training), value)
    return context.transpose(1, 2), weights


def sdpa_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention by torch: (B, H, W, d), bool mask -> (B, W, H, d)."""
    context = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout_p=dropout, scale=scaling)
    return context.transpose(1, 2), None


def flash_attention_missing() -> Optional[str]:
    """Why flash-attn cannot run on this machine at all, or None where it can."""
    if importlib.util.find_spec("flash_attn") is None:
        return "the flash_attn package is not installed"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None


def without_missing_flash(implementation: Optional[str]) -> Optional[str]:
    """"sdpa" in place of "flash_attention_2" where flash-attn cannot run, with a warning."""
    reason = flash_attention_missing() if implementation == "flash_attention_2" else None
    if reason is None:
        return implementation
    logger.warning_once(f"flash_attention_2 was asked for, but {reason}: using sdpa instead.")
    return "sdpa"


def attention_backend(implementation: str, query: torch.Tensor, masked: bool):
    """The attention function of one call and the kind of mask that it takes ("bool" or "additive")."""
    if implementation == "flash_attention_2":
        fits = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and not masked
        if not fits and not is_tracing():
            logger.warning_once("flash_attention_2 needs CUDA, float16 or bfloat16, and no padding mask: using sdpa where that is not so.")
        implementation = implementation if fits else "sdpa"
    if implementation == "sdpa":
        return sdpa_attention, "bool"
    if implementation == "eager":
        return eager_attention, "additive"
    return ALL_ATTENTION_FUNCTIONS[implementation], "additive"


class ByteFormerSelfAttention(nn.Module):
    """Self-attention within windows."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_probs_dropout_prob
        self.is_causal = False  # read by transformers' attention functions
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        real: Optional[torch.Tensor] = None,
        output_attentions: bool = False,
        residual: Optional[torch.Tensor] = None,
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """(n, W, D), which tokens are real (n, W), what to add the result to in place (n, W, D) -> (n, W, D), probabilities."""
        count, window, _ = hidden_states.shape
        qkv = self.qkv_proj(hidden_states).view(count, window, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, H, W, d)
        implementation = "eager" if output_attentions else self.config._attn_implementation
        attend, mask_kind = attention_backend(implementation, query, real is not None)
        context, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask(real, mask_kind, query.dtype),
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            is_causal=False,
        )
        return project(self.out_proj, context.reshape(count, window, -1), residual), weights


def attention_mask(real: Optional[torch.Tensor], kind: str, dtype: torch.dtype) -> Optional[torch.Tensor]:
    """(n, W) bool -> (n, 1, W, W): which tokens each token may attend to, as bool or as numbers added to the scores."""
    if real is None:
        return None
    mask = real[:, None, None, :]
    if kind == "additive":
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    return mask.expand(-1, -1, real.shape[1], -1)


class ByteFormerMLP(nn.Module):
    """D -> M -> D with an activation in between."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        if config.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be one of {', '.join(sorted(ACT2FN))}, got {config.hidden_act!r}")
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        leaky = config.hidden_act == "leaky_relu"
        self.activation = nn.LeakyReLU(config.leaky_relu_slope) if leaky else ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.activation_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, residual: Optional[torch.Tensor] = None) -> torch.Tensor:
        """(..., D), what to add the result to in place (..., D) -> (..., D)."""
        return project(self.fc2, self.dropout(self.activation(self.fc1(hidden_states))), residual)


class ByteFormerTokenMerging(nn.Module):
    """Merges pairs of neighbouring tokens."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        self.reduction = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor, pairs: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        """(T + 1, D), (M, 2), whether the tokens may be overwritten -> (M + 1, D)."""
        if not inplace:
            return F.pad(self.merge(tokens, pairs, inplace), (0, 0, 0, 1))
        # A merged token stands before or at the first token it is made of: no chunk overwrites what a later one reads.
        for start, chunk in zip(range(0, pairs.shape[0], CHUNK_TOKENS), pairs.split(CHUNK_TOKENS)):
            tokens[start : start + chunk.shape[0]] = self.merge(tokens, chunk, inplace)
        tokens[pairs.shape[0]] = 0
        return tokens[: pairs.shape[0] + 1]

    def merge(self, tokens: torch.Tensor, pairs: torch.Tensor, inplace: bool) -> torch.Tensor:
        both = read(tokens, pairs, inplace)  # (M, 2, D)
        # The released weights expect [a0 b0 a1 b1 ..]. Reordering them is cheaper than reordering the tokens.
        if inplace and is_plain(self.reduction):
            weight = self.reduction.weight.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1)
            return self.norm(F.linear(both.flatten(1), weight))
        return self.norm(self.reduction(both.transpose(1, 2).flatten(1)))


class ByteFormerLayer(nn.Module):
    """A pre-norm transformer block inside each window, and merging after it where the configuration says so."""

    def __init__(self, config: ByteFormerConfig, index: int):
        super().__init__()
        self.window = config.window_size_of(index)
        self.shift = config.window_shifts[index]
        self.drop_path_rate = config.drop_path_rate * index / max(config.num_hidden_layers - 1, 1)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = ByteFormerSelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ByteFormerMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.downsample = ByteFormerTokenMerging(config) if config.downsample[index] else None

    def forward(
        self, tokens: torch.Tensor, rows: Rows, output_attentions: bool = False, inplace: bool = False
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Runs the block in every window.

        Args:
            tokens: (T + 1, D), the rows one after the other and a zero row.
            rows: how they divide into rows.
            output_attentions: whether to return the attention probabilities.
            inplace: whether `tokens` may be overwritten.

        Returns:
            Tokens after the layer, and the attention probabilities (windows, A, W, W) if asked for.
        """
        fixed = is_tracing() or output_attentions
        windows = attention_windows(rows, self.window, self.shift, fixed, tokens.device)
        attentions = []
        for indices, real in split_windows(windows) if inplace else windows:
            hidden_states, weights = self.block(read(tokens, indices, inplace), real, output_attentions, inplace)
            tokens = put_back(tokens, indices, hidden_states, inplace)
            attentions.append(weights)
        if self.downsample is not None:
            tokens = self.downsample(tokens, pairs_to_merge(rows, tokens.device), inplace)
        return tokens, torch.cat(attentions) if output_attentions else None

    def block(self, hidden_states, real, output_attentions, inplace):
        """(n, W, D) -> (n, W, D), attention probabilities."""
        # Dropout and wrappers act on the updates by themselves, before they are added.
        if not inplace or is_wrapped(self.self_attn) or is_wrapped(self.mlp):
            update, weights = self.self_attn(self.layer_norm1(hidden_states), real, output_attentions)
            hidden_states = hidden_states + self.drop(update)
            return hidden_states + self.drop(self.mlp(self.layer_norm2(hidden_states))), weights
        hidden_states, weights = self.self_attn(self.layer_norm1(hidden_states), real, output_attentions, residual=hidden_states)
        return self.mlp(self.layer_norm2(hidden_states), residual=hidden_states), weights

    def drop(self, update: torch.Tensor) -> torch.Tensor:
        return drop_path(self.dropout(update), self.drop_path_rate, self.training)


class ByteFormerEmbeddings(nn.Module):
    """Bytes to tokens: embedding, convolution and positions."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        size = config.hidden_size
        self.sinusoidal = config.sinusoidal_pos_emb
        self.byte_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.padding_id)
        self.token_reduction = nn.Conv1d(size, size, config.conv_kernel_size, stride=config.conv_kernel_size // 2, bias=False)
        positions = torch.empty(1, 1, config.max_position_embeddings, size)
        self.position_embeddings = nn.Parameter(positions, requires_grad=not self.sinusoidal)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, byte_ids: torch.Tensor, rows: Rows) -> torch.Tensor:
        """(B, S) ids in 0..V-1 -> tokens (T + 1, D)."""
        length = (byte_ids.shape[1] - self.token_reduction.kernel_size[0]) // self.token_reduction.stride[0] + 1
        positions = torch.arange(length, device=byte_ids.device).expand(byte_ids.shape[0], -1)
        kept = None
        if min(rows.lengths) < length:
            kept = positions < torch.tensor(rows.lengths, device=byte_ids.device)[:, None]
        tokens = self.reduce(byte_ids, kept)
        if not (torch.is_grad_enabled() or is_tracing()):
            for row in tokens[:-1].split(rows.lengths):
                row += self.position_embeddings[0, 0, : row.shape[0]]
        else:
            tokens = tokens + F.pad(F.embedding(take(positions, kept), self.position_embeddings[0, 0]), (0, 0, 0, 1))
        return self.dropout(tokens)

    def reduce(self, byte_ids: torch.Tensor, kept: Optional[torch.Tensor]) -> torch.Tensor:
        """Embedding and convolution, for the kept tokens, and a zero row: (B, S), (B, N) bool -> (T + 1, D)."""
        kernel_size = self.token_reduction.kernel_size[0]
        windows = take(byte_ids.unfold(1, kernel_size, self.token_reduction.stride[0]), kept)  # (T, k)
        modules = (self.byte_embeddings, self.token_reduction)
        if not all(map(is_plain, modules)) or not look_ups_pay(windows.shape[0], self.byte_embeddings.num_embeddings):
            tokens = F.pad(take(self.convolve(byte_ids), kept), (0, 0, 0, 1))
        else:
            tables = F.pad(self.tables(), (0, 0, 0, 1))
            indices = windows * kernel_size + torch.arange(kernel_size, device=byte_ids.device)
            tokens = F.embedding_bag(F.pad(indices, (0, 0, 0, 1), value=tables.shape[0] - 1), tables, mode="sum")
        return tokens.to(self.position_embeddings.dtype)

    def convolve(self, byte_ids: torch.Tensor) -> torch.Tensor:
        return self.token_reduction(self.byte_embeddings(byte_ids).transpose(1, 2)).transpose(1, 2)

    def tables(self) -> torch.Tensor:
        """(V * k, D): row v * k + j is what byte v adds to a token at tap j. In float32, for a sum of k of them follows."""
        with torch.autocast(self.byte_embeddings.weight.device.type, enabled=False):
            weight = self.byte_embeddings.weight.float()
            weight = torch.cat([weight[:-1], weight[-1:].detach()])  # padding is never trained
            taps = self.token_reduction.weight.float().permute(1, 2, 0)  # (D in, k, D out)
            return (weight @ taps.flatten(1)).view(-1, taps.shape[2])


def look_ups_pay(tokens: int, vocabulary: int) -> bool:
    """A convolution costs one product with its weights per token, the tables one per entry of the vocabulary."""
    return tokens > vocabulary


def take(values: torch.Tensor, kept: Optional[torch.Tensor]) -> torch.Tensor:
    """(B, N, ...) -> (T, ...), the kept entries of all rows (None: all) one after the other."""
    return values.flatten(0, 1) if kept is None else values[kept]


class ByteFormerEncoder(nn.Module):
    """The layers."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        self.layers = nn.ModuleList(ByteFormerLayer(config, index) for index in range(config.num_hidden_layers))
        self.gradient_checkpointing = False

    def forward(
        self, tokens: torch.Tensor, rows: Rows, length: int, output_attentions: bool, output_hidden_states: bool, inplace: bool = False
    ):
        """Runs all layers on tokens (T + 1, D) whose longest row, in the padded batch, has `length` tokens.

        Returns:
            hidden states (B, N, D), rows after the last layer, tuples of hidden states and attentions.
        """
        collected, attentions = [], []
        for layer in self.layers:
            if output_hidden_states:
                collected.append(unpack(tokens, rows, length))
            if self.gradient_checkpointing and self.training:
                tokens, weights = self._gradient_checkpointing_func(layer.__call__, tokens, rows, output_attentions, inplace)
            else:
                tokens, weights = layer(tokens, rows, output_attentions, inplace)
            attentions.append(weights)
            if layer.downsample is not None:
                rows = merged_rows(rows)
                length = -(-length // 2)
        hidden_states = unpack(tokens, rows, length)
        collected.append(hidden_states)
        return hidden_states, rows, tuple(collected), tuple(attentions)


class ByteFormerPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and attention backends."""

    config_class = ByteFormerConfig
    base_model_prefix = "byteformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ByteFormerEmbeddings", "ByteFormerLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        # nn.init only: while a checkpoint loads, transformers 5 makes these functions skip what is already loaded.
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.hidden_size**-0.5)
            if not is_loaded(module.weight):
                module.weight[module.padding_idx] = 0
        elif isinstance(module, nn.Conv1d):
            # The sum over k bytes and D channels keeps the scale of the embeddings.
            nn.init.normal_(module.weight, std=(self.config.conv_kernel_size * self.config.hidden_size) ** -0.5)
        elif isinstance(module, ByteFormerEmbeddings):
            self._init_positions(module.position_embeddings)

    def _init_positions(self, positions):
        if not self.config.sinusoidal_pos_emb:
            nn.init.trunc_normal_(positions, std=self.config.initializer_range)
        elif not is_loaded(positions):
            positions.copy_(sinusoidal_positions(*positions.shape[2:]))

    @classmethod
    def _autoset_attn_implementation(cls, config, *args, **kwargs):  # transformers before 4.56
        config._attn_implementation = without_missing_flash(getattr(config, "_attn_implementation_internal", None))
        return super()._autoset_attn_implementation(config, *args, **kwargs)

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):  # and later
        return super()._check_and_adjust_attn_implementation(without_missing_flash(attn_implementation), *args, **kwargs)

    @classmethod
    def _can_set_attn_implementation(cls):
        return True  # transformers guesses from the source text otherwise


def is_loaded(parameter: torch.Tensor) -> bool:
    """Whether the value came from a checkpoint (transformers 5 marks it so), and is not to be initialised."""
    return getattr(parameter, "_is_hf_initialized", False)


class ByteFormerModel(ByteFormerPreTrainedModel):
    """ByteFormer without a head.

    Args:
        config ([`ByteFormerConfig`]): Sizes and options.

    Example:
        >>> import torch
        >>> from byteformer import ByteFormerConfig, ByteFormerModel
        >>> model = ByteFormerModel(ByteFormerConfig(conv_kernel_size=4)).eval()
        >>> output = model(torch.tensor([list(b"any file, as it lies on the disk")]))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([1, 1, 192]), torch.Size([1, 192]))
    """

    def __init__(self, config: ByteFormerConfig):
        config.check_values()
        super().__init__(config)
        self.embeddings = ByteFormerEmbeddings(config)
        self.encoder = ByteFormerEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.byte_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.byte_embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: Optional[torch.Tensor] = None,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Optional[bool] = None,
        return_dict: Optional[bool] = None,
    ) -> Union[Tuple, BaseModelOutputWithPooling]:
        """Encodes bytes.

        Args:
            input_ids: (B, S) integers. 0..V-2 are bytes, V-1 (256) and -1 are padding. Not modified.
            attention_mask: (B, S), 1 for bytes and 0 for padding. Padding is known from `input_ids`, so the mask may be
                left out. With `mask_padding=True` a 0 also makes padding of a byte; without, the released computation
                has no use for a mask, and one that hides bytes is an error.
            output_attentions: whether to return attention probabilities (computed by the eager backend).
            output_hidden_states: whether to return the hidden states.
            return_dict: False for a tuple.

        Returns:
            last_hidden_state (B, N, D), N the tokens that are left after merging (zero where not real, with
            `mask_padding=True`); pooler_output (B, D), their mean; hidden_states, the embeddings and one per layer
            (B, N of the layer, D); attentions, one per layer (windows of the batch, A, W, W).

        Raises:
            ValueError: ids or masks of the wrong shape, type or range; sequences too short or too long; a mask that
                contradicts the padding.
        """
        output_attentions, output_hidden_states, return_dict = self._output_options(output_attentions, output_hidden_states, return_dict)
        byte_ids, real_bytes = self._read(input_ids, attention_mask)
        rows, length = self._rows(byte_ids, real_bytes)
        tokens = self.embeddings(byte_ids, rows)
        hidden_states, rows, collected, attentions = self.encoder(
            tokens, rows, length, output_attentions, output_hidden_states, may_overwrite(self)
        )
        last_hidden_state, pooler_output = self._pool(hidden_states, rows)
        output = BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=pooler_output,
            hidden_states=collected if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()

    def _output_options(self, output_attentions, output_hidden_states, return_dict):
        given = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states, "return_dict": return_dict}
        return [getattr(self.config, name) if value is None else value for name, value in given.items()]

    def _read(self, input_ids, attention_mask):
        """Checks the input. Returns ids in 0..V-1 (B, S), and which of them are real where padding is masked (else None)."""
        check_input(input_ids, attention_mask, self.config)
        padding_id, kernel_size = self.config.padding_id, self.config.conv_kernel_size
        byte_ids = input_ids.long()
        byte_ids = torch.where(byte_ids < 0, padding_id, byte_ids)
        if not self.config.mask_padding:
            return byte_ids, None
        if attention_mask is not None:
            byte_ids = torch.where(attention_mask.bool(), byte_ids, padding_id)
        if byte_ids.shape[1] < kernel_size:
            byte_ids = F.pad(byte_ids, (0, kernel_size - byte_ids.shape[1]), value=padding_id)
        return byte_ids, byte_ids != padding_id

    def _rows(self, byte_ids, real_bytes):
        """The rows that the bytes make and the number N of tokens in the longest."""
        kernel_size = self.config.conv_kernel_size
        batch, length = byte_ids.shape[0], (byte_ids.shape[1] - kernel_size) // (kernel_size // 2) + 1
        if real_bytes is None:
            return Rows((length,) * batch, None), length
        real = real_tokens(real_bytes, kernel_size)
        if is_tracing():
            return Rows((length,) * batch, F.pad(real.flatten(), (0, 1))), length
        numbers = torch.arange(1, length + 1, device=real.device)
        lengths = tuple((real * numbers).amax(1).tolist())  # up to the last real token
        if min(lengths) == 0:
            raise ValueError(f"every row of input_ids needs a byte, got only padding in row {lengths.index(0)}")
        kept = numbers <= torch.tensor(lengths, device=real.device)[:, None]
        return Rows(lengths, F.pad(real[kept], (0, 1))), length

    def _pool(self, hidden_states, rows):
        """Final norm and the mean over the tokens that count."""
        hidden_states = self.layernorm(hidden_states)
        if rows.real is None:
            return hidden_states, hidden_states.mean(1)
        indices = window_indices(rows.lengths, hidden_states.shape[1], 0, True, hidden_states.device)
        real = rows.real[indices][..., None]
        hidden_states = hidden_states.masked_fill(~real, 0)
        return hidden_states, hidden_states.sum(1) / real.sum(1).clamp(min=1)


def check_input(input_ids, attention_mask, config: ByteFormerConfig) -> None:
    """Raises ValueError for what the model cannot read."""
    if not isinstance(input_ids, torch.Tensor) or input_ids.dim() != 2 or input_ids.numel() == 0:
        raise ValueError(f"input_ids must be a tensor of shape (batch, bytes), neither of them 0, got {describe(input_ids)}")
    if input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool:
        raise ValueError(f"input_ids must be integers, got {describe(input_ids)}")
    check_length(input_ids.shape[1], config)
    if not is_tracing() and not input_ids.is_meta:
        low, high = (int(value) for value in input_ids.aminmax())
        if low < -1 or high >= config.vocab_size:
            raise ValueError(
                f"input_ids must lie in 0..{config.padding_id - 1}, or be {config.padding_id} or -1 for padding, got {low if low < -1 else high}"
            )
    if attention_mask is not None:
        check_mask(input_ids, attention_mask, config)


def check_length(length: int, config: ByteFormerConfig) -> None:
    """Raises ValueError for sequences that make no token, or more tokens than there are positions."""
    kernel_size, stride = config.conv_kernel_size, config.conv_kernel_size // 2
    if length < kernel_size and not config.mask_padding:
        raise ValueError(
            f"input_ids must hold at least conv_kernel_size = {kernel_size} bytes, got {length}; "
            f"pad with {config.padding_id}, or set mask_padding=True"
        )
    longest = (config.max_position_embeddings - 1) * stride + kernel_size + stride - 1
    if length > longest:
        raise ValueError(
            f"input_ids must hold at most {longest} bytes (max_position_embeddings = {config.max_position_embeddings} tokens), got {length}"
        )


def check_mask(input_ids, attention_mask, config: ByteFormerConfig) -> None:
    """Raises ValueError for a mask that is none, or that contradicts the padding among the ids."""
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask must be a tensor of the shape of input_ids, {tuple(input_ids.shape)}, got {describe(attention_mask)}")
    if is_tracing() or input_ids.is_meta:
        return
    shown = attention_mask.bool()
    if not torch.equal(shown.to(attention_mask.dtype), attention_mask):
        raise ValueError("attention_mask must hold only 0 and 1")
    padding = (input_ids == config.padding_id) | (input_ids == -1)
    if bool((shown & padding).any()):
        raise ValueError(f"attention_mask contradicts the padding: it is 1 where input_ids hold {config.padding_id} or -1")
    if not config.mask_padding and bool((~shown & ~padding).any()):
        raise ValueError(
            "attention_mask contradicts the padding: it hides bytes, which the released computation cannot; "
            f"write {config.padding_id} in their place, or set mask_padding=True"
        )


def describe(value) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


class ByteFormerForClassification(ByteFormerPreTrainedModel):
    """ByteFormer with a linear head on the mean token. The two public models differ in their output class alone."""

    output_class = ImageClassifierOutput

    def __init__(self, config: ByteFormerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.byteformer = ByteFormerModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self):
        return self.byteformer.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.byteformer.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: Optional[torch.Tensor] = None,
        labels: Optional[torch.Tensor] = None,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Optional[bool] = None,
        return_dict: Optional[bool] = None,
    ):
        """Classifies bytes.

        Args:
            input_ids, attention_mask, output_attentions, output_hidden_states, return_dict: as for [`ByteFormerModel`].
            labels: (B,) integers for one label each, (B, num_labels) numbers in 0..1 for several, (B,) or
                (B, num_labels) numbers for regression; `config.problem_type` decides, or else type and num_labels.

        Returns:
            loss if labels are given, logits (B, num_labels), hidden_states and attentions if asked for.

        Raises:
            ValueError: as [`ByteFormerModel`], or labels of the wrong shape or range.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        outputs = self.byteformer(input_ids, attention_mask, output_attentions, output_hidden_states, return_dict=True)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        output = self.output_class(loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions)
        return output if return_dict else output.to_tuple()


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: ByteFormerConfig) -> torch.Tensor:
    """The loss that the labels call for: squared error, cross entropy, or binary cross entropy per label."""
    problem_type = config.problem_type
    if problem_type is None:
        single = not (labels.is_floating_point() or labels.dim() > 1)
        problem_type = "regression" if config.num_labels == 1 else "single_label_classification" if single else "multi_label_classification"
    labels = labels.to(logits.device)
    if problem_type == "single_label_classification":
        if labels.numel() != logits.shape[0]:
            raise ValueError(f"labels must be {logits.shape[0]} integers, one per row, got {describe(labels)}")
        return F.cross_entropy(logits.float(), labels.view(-1).long())
    if labels.numel() != logits.numel():
        raise ValueError(f"labels must have the shape of the logits, {tuple(logits.shape)}, got {describe(labels)}")
    labels = labels.view_as(logits).float()
    if problem_type == "regression":
        return F.mse_loss(logits.float(), labels)
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


class ByteFormerForImageClassification(ByteFormerForClassification):
    """ByteFormer for the bytes of image files.

    Example:
        >>> import torch
        >>> from byteformer import ByteFormerConfig, ByteFormerForImageClassification
        >>> model = ByteFormerForImageClassification(ByteFormerConfig(num_labels=1000)).eval()
        >>> model(torch.randint(0, 256, (2, 5000))).logits.shape
        torch.Size([2, 1000])
    """

    output_class = ImageClassifierOutput


class ByteFormerForAudioClassification(ByteFormerForClassification):
    """ByteFormer for the bytes of audio files.

    Example:
        >>> import torch
        >>> from byteformer import ByteFormerConfig, ByteFormerForAudioClassification
        >>> model = ByteFormerForAudioClassification(ByteFormerConfig(num_labels=12)).eval()
        >>> model(torch.randint(0, 256, (2, 5000))).logits.shape
        torch.Size([2, 12])
    """

    output_class = SequenceClassifierOutput


ByteFormerModel.register_for_auto_class("AutoModel")
ByteFormerForImageClassification.register_for_auto_class("AutoModelForImageClassification")
ByteFormerForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = [
    "ByteFormerForAudioClassification",
    "ByteFormerForImageClassification",
    "ByteFormerModel",
    "ByteFormerPreTrainedModel",
]
