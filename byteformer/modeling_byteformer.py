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
- Nothing writes into its input. Without autograd a layer works through its windows in chunks, so that what it needs
  beside the tokens is small and stays in the cache; hooks on the parts of a layer are then called once per chunk.

Shape letters: B batch, S bytes, V vocabulary, k kernel, N tokens of the longest row, T tokens of all rows, D hidden size,
n windows, W window, A heads, d = D/A head dim, M intermediate size or merged tokens.
"""

import difflib
import inspect
import math
from functools import partial
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput, SequenceClassifierOutput
from transformers.utils import logging

from .configuration_byteformer import ByteFormerConfig

# --- Shared: from here to the end mark modeling_llava_vit.py and modeling_byteformer.py are equal letter for letter ---
# --- (tests/models/test_shared_code.py holds them so: each file has to stand alone, a question has one answer).     ---

try:  # transformers >= 4.48
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError:
    ALL_ATTENTION_FUNCTIONS = {}

try:  # transformers >= 4.53
    from transformers.modeling_layers import GradientCheckpointingLayer
except ImportError:

    class GradientCheckpointingLayer(nn.Module):
        """A layer that is computed again in the backward pass where the model was told so."""

        gradient_checkpointing = False

        def __call__(self, *args, **kwargs):
            if self.gradient_checkpointing and self.training:
                return self._gradient_checkpointing_func(partial(super().__call__, **kwargs), *args)
            return super().__call__(*args, **kwargs)


try:
    from flash_attn import flash_attn_func
except ImportError:
    flash_attn_func = None

logger = logging.get_logger(__name__)

# What transformers passes to whatever model it holds, and no model here has a use for.
UNUSED_KEYWORDS = ("num_items_in_batch", "use_cache", "return_loss", "output_router_logits", "interpolate_pos_encoding")


def require(condition: bool, message: str, *values: object) -> None:
    """Refuses an input: ValueError with the values in the message's places, a tensor as its dtype and shape."""
    if not condition:
        tensor = "{0.dtype} of shape {1}"
        shown = (tensor.format(x, tuple(x.shape)) if isinstance(x, torch.Tensor) else x for x in values)
        raise ValueError(message.format(*shown))


def require_tensor(name: str, value: object) -> None:
    require(isinstance(value, torch.Tensor), "{} must be a torch.Tensor, got {}", name, type(value).__name__)


def refuse_keywords(forward: Callable, keywords: Dict[str, object]) -> None:
    """Raises TypeError for keywords that `forward` does not know: a misspelt one must not be ignored."""
    for name in keywords:
        if name not in UNUSED_KEYWORDS:
            known = [known for known in inspect.signature(forward).parameters if known != "kwargs"]
            close = difflib.get_close_matches(name, known, 1, cutoff=0.8)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise TypeError(f"forward() got an unexpected keyword argument {name!r}; {hint}")


def is_integer(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def is_tracing() -> bool:
    """Whether a graph is being recorded, so that nothing may depend on the values of tensors."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def has_values(tensor: torch.Tensor) -> bool:
    """Whether values may be read: not on the meta device, and not while a graph is being recorded."""
    return not (tensor.is_meta or is_tracing())


def works_in_chunks() -> bool:
    """Autograd would keep the intermediates of every chunk, and a recorded graph would be as long as there are chunks."""
    return not (torch.is_grad_enabled() or is_tracing())


def hidden_states_to_keep(asked: Union[bool, int, Sequence[int], None], count: int) -> Set[int]:
    """Which of `count` hidden states to return: all for True, else those numbered. The others are None in the output."""
    if asked is None or isinstance(asked, bool):
        return set(range(count)) if asked else set()
    chosen = [asked] if isinstance(asked, int) else list(asked)
    rule = "output_hidden_states must be True, False or numbers from {} to {}, got {}"
    require(all(isinstance(n, int) and -count <= n < count for n in chosen), rule, -count, count - 1, asked)
    return {number % count for number in chosen}


def eager_attention(module, query, key, value, attention_mask=None, scaling=1.0, dropout=0.0, **kwargs):
    """(B, A, N, d), additive mask -> (B, N, A, d) and the probabilities (B, A, N, N); softmax in float32."""
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    dropped = F.dropout(probabilities, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2), probabilities


def sdpa_attention(module, query, key, value, attention_mask=None, scaling=1.0, dropout=0.0, **kwargs):
    """(B, A, N, d), bool mask -> (B, N, A, d), by torch's scaled_dot_product_attention."""
    output = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout_p=dropout, scale=scaling)
    return output.transpose(1, 2), None


def flash_attention_2(module, query, key, value, attention_mask=None, scaling=1.0, dropout=0.0, **kwargs):
    """The flash-attn library, called directly: transformers' own wrapper differs from release to release."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, A, N, d) -> (B, N, A, d)
    return flash_attn_func(query, key, value, dropout_p=dropout, softmax_scale=scaling, causal=False), None


OWN_BACKENDS = {"eager": eager_attention, "sdpa": sdpa_attention, "flash_attention_2": flash_attention_2}


def flash_attention_obstacle(name: str, query: Optional[torch.Tensor] = None, masked: bool = False) -> Optional[str]:
    """Why a flash attention cannot run here, on `query` if given; None if it can, and for other implementations."""
    if "flash" not in name:
        return None
    if name == "flash_attention_2" and flash_attn_func is None:  # transformers looks for the others itself
        return "the package flash-attn is not installed"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if query is not None and not query.is_cuda:
        return f"the model is on {query.device.type}"
    if query is not None and query.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 and bfloat16, not {query.dtype}"
    return "it takes no mask" if masked else None


def without_obstacle(name: str, query: Optional[torch.Tensor] = None, masked: bool = False) -> str:
    """The implementation asked for, or sdpa in place of a flash attention that cannot run."""
    obstacle = flash_attention_obstacle(name, query, masked)
    if obstacle is None:
        return name
    if not is_tracing():
        # The reason is left to the debug log: one warning per process, whatever the reasons.
        logger.warning_once("flash attention cannot run here, using sdpa instead.")
        logger.debug("%s cannot run: %s", name, obstacle)
    return "sdpa"


def attention_backend(config, query: torch.Tensor, masked: bool = False, output_attentions: bool = False) -> str:
    """The name of the implementation that computes attention for this call; ValueError for one that nobody offers."""
    name = "eager" if output_attentions else getattr(config, "_attn_implementation", None) or "sdpa"
    name = without_obstacle(name, query, masked)
    known = sorted({*OWN_BACKENDS, *ALL_ATTENTION_FUNCTIONS})
    require(name in known, "unknown attention implementation {!r}; this transformers offers {}", name, ", ".join(known))
    return name


def attend(module, query, key, value, mask=None, output_attentions=False):
    """Attention of one layer by the backend that its configuration names at this call.

    (B, A, N, d), mask (B, 1, N or 1, N) bool, True where a query may look -> (B, N, A, d) and, where asked for, the
    probabilities (B, A, N, N). `module` has `config`, `scaling`, `dropout`, and `is_causal = False` for transformers.
    """
    name = attention_backend(module.config, query, mask is not None, output_attentions)
    if mask is not None and name != "sdpa":
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        mask = mask.expand(-1, -1, query.shape[2], -1)
    function = OWN_BACKENDS.get(name) or ALL_ATTENTION_FUNCTIONS[name]
    # is_causal is spelled out: without it and without a mask transformers' sdpa would attend causally.
    options = {"scaling": module.scaling, "dropout": module.dropout if module.training else 0.0, "is_causal": False}
    output, probabilities = function(module, query, key, value, mask, **options)
    return output, probabilities if output_attentions else None


class AttentionBackendMixin:
    """What `PreTrainedModel` asks about attention: every backend may be set, flash attention falls back to sdpa."""

    # Old and new names of the same promises; each release reads its own.
    _supports_sdpa = True
    _supports_flash_attn_2 = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def _autoset_attn_implementation(cls, config, *args, **kwargs):
        # transformers up to 4.55 checks the implementation here, on the class.
        asked = getattr(config, "_attn_implementation_internal", None) or ""
        if without_obstacle(asked) != asked:
            config._attn_implementation = without_obstacle(asked)
        return super()._autoset_attn_implementation(config, *args, **kwargs)

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):
        # Later releases check it here, on the model.
        name = attn_implementation and without_obstacle(attn_implementation)
        return super()._check_and_adjust_attn_implementation(name, *args, **kwargs)

    @classmethod
    def _can_set_attn_implementation(cls):
        return True  # transformers guesses from the source text otherwise


class UnquantizedModulesMixin:
    """Names what keeps its weights when a model is loaded with a `quantization_config`, of whatever method.

    Quantisers read `_keep_in_fp32_modules`, which without one would turn these modules into float32 amid float16: they
    are named only to a quantiser. In float32 some releases have them all the same, so inputs are cast where they enter.
    """

    # Not None on the class, which would tell releases before 4.50 not to ask the model; but on it, where nothing is to be
    # kept: of an empty list 4.51 and 4.52 make a pattern that fits every name.
    _keep_in_fp32_modules: Optional[List[str]] = []
    _modules_to_not_quantize: Tuple[str, ...] = ()  # by their last names, wherever they stand in the model

    def post_init(self):
        super().post_init()
        quantised = getattr(self.config, "quantization_config", None) is not None
        names = [name for name, _ in self.named_modules() if name.split(".")[-1] in self._modules_to_not_quantize]
        self._keep_in_fp32_modules = names if quantised and names else None


def cast_to_weight(module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """An input in the precision of the module's weight, unless that is quantised by something that casts for itself."""
    weight = getattr(module, "weight", None)
    is_plain_weight = isinstance(weight, torch.Tensor) and weight.is_floating_point()
    return tensor.to(weight.dtype) if is_plain_weight else tensor


def mean_of(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """The mean of a dimension by a sum in float32 at least: in float16 that of thousands of tokens would overflow."""
    return tensor.mean(dim, dtype=torch.promote_types(tensor.dtype, torch.float32)).to(tensor.dtype)


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, config, num_items_in_batch: Union[torch.Tensor, int, None] = None
) -> torch.Tensor:
    """The loss of logits (B, num_labels) by `config.problem_type`, which the first labels decide where it is open.

    One label: regression, squared error. Integer labels (B,) or (B, 1), one class each (-100 is ignored): cross
    entropy. Others (B, num_labels), several classes each: binary cross entropy per label. As transformers does, the
    type is kept in the configuration, where pipelines read it. `num_items_in_batch`, from Trainer, is what the sum is
    divided by: the labels of all batches that are accumulated; None for the mean. ValueError where labels do not fit.
    """
    require_tensor("labels", labels)
    several = "single_label_classification" if is_integer(labels) else "multi_label_classification"
    problem_type = config.problem_type or ("regression" if config.num_labels == 1 else several)
    check_labels(labels, logits, problem_type)
    config.problem_type = problem_type
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels, reduction = labels.to(logits.device), "mean" if num_items_in_batch is None else "sum"
    if problem_type == "single_label_classification":
        loss = F.cross_entropy(logits, labels.flatten().long(), reduction=reduction)
    else:
        function = F.mse_loss if problem_type == "regression" else F.binary_cross_entropy_with_logits
        loss = function(logits, labels.view_as(logits).to(logits.dtype), reduction=reduction)
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device)
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def check_labels(labels: torch.Tensor, logits: torch.Tensor, problem_type: str) -> None:
    """Raises ValueError unless the labels are of the shape, type and range that the problem type asks for."""
    known = ("regression", "single_label_classification", "multi_label_classification")
    require(problem_type in known, "problem_type must be one of {}, got {!r}", ", ".join(known), problem_type)
    batch, num_labels = logits.shape
    if problem_type != "single_label_classification":
        fits = labels.shape[:1] == (batch,) and labels.numel() == logits.numel() and not labels.is_complex()
        require(fits, "labels for {} must be numbers of shape {}, got {}", problem_type, (batch, num_labels), labels)
        if problem_type == "multi_label_classification" and has_values(labels):
            wrong = labels[~((labels >= 0) & (labels <= 1))]
            require(not wrong.numel(), "labels for {} must lie in [0, 1], got {}", problem_type, *wrong[:1].tolist())
        return
    fits = tuple(labels.shape) in ((batch,), (batch, 1)) and is_integer(labels)
    require(
        fits, "labels for {} must be integers of shape ({},), one class each; floating point {} for several; got {}",
        problem_type, batch, (batch, num_labels), labels,
    )  # fmt: skip
    if has_values(labels):
        wrong = labels[((labels < 0) | (labels >= num_labels)) & (labels != -100)]
        require(not wrong.numel(), "labels must lie in [0, {}) or be -100, got {}", num_labels, *wrong[:1].tolist())


# --- End of what the two files share ---


# Tokens per chunk of windows: intermediates of a few megabytes.
CHUNK_TOKENS = 2048


class Even(NamedTuple):
    """Lengths of rows that are all alike, for recorded graphs, in which both numbers may be symbols."""

    rows: int
    length: int


# Tokens of each row.
Lengths = Union[Tuple[int, ...], Even]


class Rows(NamedTuple):
    """How `tokens` (T + 1, D) divides into the rows of a batch.

    lengths: tokens of each row, T in all.
    real: (T + 1,) bool, which tokens count; None where all do, padding included (`mask_padding=False`).
    """

    lengths: Lengths
    real: Optional[torch.Tensor]


# What a layer attends within: indices into `tokens` (n, W) and which of them are real (None: all).
Windows = List[Tuple[torch.Tensor, Optional[torch.Tensor]]]


def total_of(lengths: Lengths) -> int:
    """T."""
    return lengths.rows * lengths.length if isinstance(lengths, Even) else sum(lengths)


def window_indices(lengths: Lengths, window: int, shift: int, wrap: bool, device) -> torch.Tensor:
    """Cuts rows of these lengths, T tokens in all, into windows -> indices of tokens (n, W), T outside of the row.

    With `wrap`, the filled-up row is rolled left by `shift` first, so that its last window also holds its first tokens.
    Without, those first tokens have a window of their own: for a row of 5, a window of 4 and a shift of 1 (`.` is T)

        wrap:    [1 2 3 4] [. . . 0]
        no wrap: [. . . 0] [1 2 3 4]
    """
    lead = 0 if wrap else -shift % window
    if isinstance(lengths, Even):
        return even_window_indices(lengths, window, shift if wrap else -lead, device)
    counts = tuple(-(-(length + lead) // window) for length in lengths)
    sizes = torch.tensor([lengths, counts], device=device)  # (2, B)
    per_row = torch.cat([sizes, sizes.cumsum(1) - sizes])  # (4, B), with where each row and its windows start
    per_window = per_row.repeat_interleave(sizes[1], dim=1, output_size=sum(counts))[:, :, None]  # (4, n, 1)
    length, count, start, first = per_window.unbind(0)
    number = torch.arange(sum(counts), device=device)[:, None] - first
    position = number * window + (shift if wrap else -lead) + torch.arange(window, device=device)  # (n, W), in the row
    if wrap and shift:
        position = position % (count * window)
    inside = position < length
    if lead:
        inside = inside & (position >= 0)
    return torch.where(inside, start + position, sum(lengths))


def even_window_indices(lengths: Even, window: int, first: int, device) -> torch.Tensor:
    """`window_indices` by formulas that hold for any number and length of rows; the windows start at token `first`."""
    count = (lengths.length - min(first, 0) + window - 1) // window
    position = torch.arange(count * window, device=device) + first  # in the row
    beyond = position >= count * window
    position = torch.where(beyond, position - count * window, position)
    inside = (position >= 0) & (position < lengths.length)
    starts = torch.arange(lengths.rows, device=device) * lengths.length
    indices = torch.where(inside, starts[:, None] + position, total_of(lengths))  # (B, n/B * W)
    return indices.flatten().unflatten(0, (-1, window))


def attention_windows(rows: Rows, window: int, shift: int, fixed: bool, device: torch.device) -> Windows:
    """The windows of a layer: one group, or with masking several, so that the work follows the number of real tokens.

    Attention has no order within a window. A window with unreal tokens is therefore cut down to its real ones, up to a
    quarter of W, and stands in a group with those of the same width; windows without a real token are left out. Not so
    where `fixed`: recorded graphs need fixed shapes.
    """
    indices = window_indices(rows.lengths, window, shift, rows.real is None, device)
    if rows.real is None:
        return [(indices, None)]
    real = rows.real.to(device)[indices]
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


def real_indices(rows: Rows, window: int, device: torch.device) -> torch.Tensor:
    """Cuts every row into windows without a shift: indices (n, W), T for tokens that do not count as well."""
    return without_unreal(window_indices(rows.lengths, window, 0, True, device), rows)


def row_indices(rows: Rows, length: int, device: torch.device) -> torch.Tensor:
    """Indices (B, N) of a padded batch whose longest row has `length` tokens, T for tokens that do not count as well."""
    if not isinstance(rows.lengths, Even):
        return real_indices(rows, length, device)
    indices = torch.arange(total_of(rows.lengths), device=device)  # as one window a row, without a division by symbols
    return without_unreal(indices.unflatten(0, (rows.lengths.rows, length)), rows)


def without_unreal(indices: torch.Tensor, rows: Rows) -> torch.Tensor:
    if rows.real is None:
        return indices
    return indices.masked_fill(~rows.real.to(indices.device)[indices], total_of(rows.lengths))


def merged_rows(rows: Rows) -> Rows:
    """The rows after merging. A merged token is real when either half is."""
    if isinstance(rows.lengths, Even):
        lengths = Even(rows.lengths.rows, (rows.lengths.length + 1) // 2)
    else:
        lengths = tuple(-(-length // 2) for length in rows.lengths)
    if rows.real is None:
        return Rows(lengths, None)
    real = real_indices(rows, 2, rows.real.device) < total_of(rows.lengths)
    return Rows(lengths, F.pad(real.any(1), (0, 1)))


def unpack(tokens: torch.Tensor, rows: Rows, length: int) -> torch.Tensor:
    """(T + 1, D) -> (B, N, D) with zeros where there is no real token."""
    return F.embedding(row_indices(rows, length, tokens.device), tokens)


def pack(hidden_states: torch.Tensor, rows: Rows) -> torch.Tensor:
    """(B, N, D) -> (T + 1, D), with a zero row at the end."""
    kept = places_of(rows, hidden_states.shape[1], hidden_states.device)
    return F.pad(take(hidden_states, kept), (0, 0, 0, 1))


def places_of(rows: Rows, length: int, device: torch.device) -> Optional[torch.Tensor]:
    """(B, N) bool, the places of the rows' tokens in a padded batch; None where they fill it."""
    if isinstance(rows.lengths, Even) or min(rows.lengths) == length:
        return None
    return torch.arange(length, device=device) < torch.tensor(rows.lengths, device=device)[:, None]


def take(values: torch.Tensor, kept: Optional[torch.Tensor]) -> torch.Tensor:
    """(B, N, ...) -> (T, ...), the kept entries of all rows (None: all) one after the other."""
    return values.flatten(0, 1) if kept is None else values[kept]


def real_tokens(real_bytes: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """(B, S) bool -> (B, N) bool: a token is real when its whole convolution window is.

    A row without such a token, because it is shorter than the kernel, has one: the first that holds a real byte.
    """
    windows = real_bytes.unfold(1, kernel_size, kernel_size // 2)  # (B, N, k)
    whole, touched = windows.all(-1), windows.any(-1)
    first = touched & (touched.cumsum(1) == 1)
    return whole | (first & ~whole.any(1, keepdim=True))


def sinusoidal_positions(length: int, width: int) -> torch.Tensor:
    """(P, D): row n is [sin(n f) | cos(n f)] with f_i = 10000^(-i / (D/2 - 1))."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def look_ups_pay(tokens: int, vocabulary: int) -> bool:
    """A convolution costs one product with its weights per token, the tables one per entry of the vocabulary."""
    return tokens > vocabulary


def is_plain(module: nn.Module) -> bool:
    """Whether calling the module is its arithmetic and no more: no adapter, hook, quantisation or offloading."""
    recording = getattr(torch.compiler, "is_exporting", is_tracing)()  # torch.export puts stand-ins in weights' places
    own_weight = recording or type(module.weight) is nn.Parameter
    plain = type(module) in (nn.Conv1d, nn.Embedding) and own_weight
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return plain and not (any(hooks) or "forward" in vars(module))


def is_loaded(parameter: torch.Tensor) -> bool:
    """Whether the value came from a checkpoint (transformers 5 marks it so), and is not to be initialised."""
    return getattr(parameter, "_is_hf_initialized", False)


def check_input(input_ids: torch.Tensor, attention_mask: Optional[torch.Tensor], config: ByteFormerConfig) -> None:
    """Raises ValueError for what the model cannot read."""
    require_tensor("input_ids", input_ids)
    fits = input_ids.dim() == 2 and input_ids.numel() > 0
    require(fits, "input_ids must be a tensor of shape (batch, bytes), neither of them 0, got {}", input_ids)
    require(is_integer(input_ids), "input_ids must be integers, got {}", input_ids)
    check_length(input_ids.shape[1], config)
    if has_values(input_ids):
        low, high = (int(value) for value in input_ids.aminmax())
        accepted = f"lie in 0..{config.padding_id - 1}, or be {config.padding_id} or -1 for padding"
        wrong = low if low < -1 else high
        require(-1 <= wrong < config.vocab_size, "input_ids must {}, got {}", accepted, wrong)
    if attention_mask is not None:
        check_mask(input_ids, attention_mask, config)


def check_length(length: int, config: ByteFormerConfig) -> None:
    """Raises ValueError for sequences that make no token, or more tokens than there are positions."""
    kernel_size, positions = config.conv_kernel_size, config.max_position_embeddings
    rule = "input_ids must hold at least conv_kernel_size = {} bytes, got {}; pad with {}, or set mask_padding=True"
    require(length >= kernel_size or config.mask_padding, rule, kernel_size, length, config.padding_id)
    longest = (positions + 2) * (kernel_size // 2) - 1  # the kernel is two strides
    rule = "input_ids must hold at most {} bytes (max_position_embeddings = {} tokens), got {}"
    require(length <= longest, rule, longest, positions, length)


def check_mask(input_ids: torch.Tensor, attention_mask: torch.Tensor, config: ByteFormerConfig) -> None:
    """Raises ValueError for a mask that is none, or that contradicts the padding among the ids."""
    require_tensor("attention_mask", attention_mask)
    rule = "attention_mask must have the shape of input_ids, {}, got {}"
    require(attention_mask.shape == input_ids.shape, rule, tuple(input_ids.shape), attention_mask)
    if not has_values(input_ids):
        return
    shown = attention_mask.bool()
    require(torch.equal(shown.to(attention_mask.dtype), attention_mask), "attention_mask must hold only 0 and 1")
    padding = (input_ids == config.padding_id) | (input_ids == -1)
    rule = "attention_mask contradicts the padding: it is 1 where input_ids hold {} or -1"
    require(not (shown & padding).any(), rule, config.padding_id)
    rule = "attention_mask hides bytes, which the released computation cannot; write {} there, or set mask_padding=True"
    require(config.mask_padding or bool((shown | padding).all()), rule, config.padding_id)


class ByteFormerSelfAttention(nn.Module):
    """Self-attention within windows."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.scaling = config.head_dim**-0.5
        self.dropout = config.attention_probs_dropout_prob
        self.is_causal = False  # read by transformers' attention functions
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, real: Optional[torch.Tensor] = None, output_attentions: bool = False
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """(n, W, D), which tokens are real (n, W) -> (n, W, D), probabilities (n, A, W, W) if asked for."""
        qkv = self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, -1))  # (n, W, 3, A, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, A, W, d)
        mask = None if real is None else real[:, None, None, :]
        context, probabilities = attend(self, query, key, value, mask, output_attentions)
        return self.out_proj(context.flatten(2)), probabilities


class ByteFormerMLP(nn.Module):
    """D -> M -> D with an activation in between."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        known = ", ".join(sorted(ACT2FN))
        require(config.hidden_act in ACT2FN, "hidden_act must be one of {}, got {!r}", known, config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        leaky = config.hidden_act == "leaky_relu"
        self.activation = nn.LeakyReLU(config.leaky_relu_slope) if leaky else ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.activation_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(self.activation(self.fc1(hidden_states))))


class ByteFormerTokenMerging(nn.Module):
    """Merges pairs of neighbouring tokens."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        self.reduction = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """(T + 1, D), (M, 2) -> (M + 1, D)."""
        chunks = pairs.split(CHUNK_TOKENS) if works_in_chunks() else [pairs]
        return torch.cat([*(self.merge(F.embedding(chunk, tokens)) for chunk in chunks), tokens[-1:]])

    def merge(self, both: torch.Tensor) -> torch.Tensor:
        """(M, 2, D) -> (M, D)."""
        # The released weights expect channel 0 of both, channel 1 of both, ...: [a0 b0 a1 b1 ..].
        return self.norm(self.reduction(both.transpose(1, 2).flatten(1)))


class ByteFormerLayer(GradientCheckpointingLayer):
    """A pre-norm transformer block inside each window, and merging after it where the configuration says so."""

    def __init__(self, config: ByteFormerConfig, index: int):
        super().__init__()
        self.window = config.window_size_of(index)
        self.shift = config.window_shift_of(index)
        self.drop_path_rate = config.drop_path_rate * index / max(config.num_hidden_layers - 1, 1)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = ByteFormerSelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ByteFormerMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.downsample = ByteFormerTokenMerging(config) if config.downsample[index] else None

    def forward(
        self, tokens: torch.Tensor, rows: Rows, output_attentions: bool = False
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Tokens (T + 1, D) of these rows -> tokens, fewer after merging, probabilities (n, A, W, W) if asked for."""
        windows = attention_windows(rows, self.window, self.shift, output_attentions or is_tracing(), tokens.device)
        # Every token is in one window, but for those that masking leaves out: they become zero.
        updated, attentions = torch.empty_like(tokens) if rows.real is None else torch.zeros_like(tokens), []
        for indices, real in split_windows(windows) if works_in_chunks() else windows:
            hidden_states, probabilities = self.block(F.embedding(indices, tokens), real, output_attentions)
            updated.index_copy_(0, indices.flatten(), hidden_states.flatten(0, 1).to(tokens.dtype))
            attentions.append(probabilities)
        updated[-1] = 0  # what sticks out of a row was written there
        if self.downsample is not None:
            updated = self.downsample(updated, real_indices(rows, 2, tokens.device))
        if not output_attentions:
            return updated, None
        return updated, attentions[0] if len(attentions) == 1 else torch.cat(attentions)

    def block(self, hidden_states: torch.Tensor, real: Optional[torch.Tensor], output_attentions: bool):
        """(n, W, D), (n, W) -> (n, W, D), attention probabilities."""
        update, probabilities = self.self_attn(self.layer_norm1(hidden_states), real, output_attentions)
        hidden_states = hidden_states + self.drop(update)
        return hidden_states + self.drop(self.mlp(self.layer_norm2(hidden_states))), probabilities

    def drop(self, update: torch.Tensor) -> torch.Tensor:
        """Dropout and stochastic depth, which drops the update of whole windows and scales the others up."""
        update, rate = self.dropout(update), self.drop_path_rate
        if rate == 0.0 or not self.training:
            return update
        kept = torch.rand(update.shape[0], 1, 1, device=update.device) >= rate
        return update * kept.to(update.dtype) / (1.0 - rate)


class ByteFormerEmbeddings(nn.Module):
    """Bytes to tokens: embedding, convolution and positions."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        size = config.hidden_size
        self.byte_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.padding_id)
        self.token_reduction = nn.Conv1d(size, size, config.conv_kernel_size, config.conv_kernel_size // 2, bias=False)
        positions = torch.empty(1, 1, config.max_position_embeddings, size)
        self.position_embeddings = nn.Parameter(positions, requires_grad=not config.sinusoidal_pos_emb)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, byte_ids: torch.Tensor, rows: Rows) -> torch.Tensor:
        """(B, S) ids in 0..V-1 -> tokens (T + 1, D)."""
        windows = byte_ids.unfold(1, self.token_reduction.kernel_size[0], self.token_reduction.stride[0])  # (B, N, k)
        kept = places_of(rows, windows.shape[1], byte_ids.device)
        reduced, positions = self.reduce(byte_ids, take(windows, kept), kept), self.position_embeddings[0, 0]
        if isinstance(rows.lengths, Even):
            placed = reduced.unflatten(0, (rows.lengths.rows, -1)) + positions[: rows.lengths.length]
            return self.dropout(F.pad(placed.flatten(0, 1), (0, 0, 0, 1)))
        tokens = [row + positions[: row.shape[0]] for row in reduced.split(rows.lengths)]
        del reduced  # as large as the tokens, of which there would be three
        return self.dropout(torch.cat([*tokens, positions.new_zeros(1, positions.shape[1])]))

    def reduce(self, byte_ids: torch.Tensor, windows: torch.Tensor, kept: Optional[torch.Tensor]) -> torch.Tensor:
        """Embedding and convolution of the kept tokens, whose bytes are `windows` (T, k) -> (T, D)."""
        plain = is_plain(self.byte_embeddings) and is_plain(self.token_reduction)
        if plain and is_tracing():
            tokens = self.sum_of_taps(byte_ids)
        elif plain and look_ups_pay(windows.shape[0], self.byte_embeddings.num_embeddings):
            taps = torch.arange(windows.shape[1], device=windows.device)
            tokens = F.embedding_bag(windows * windows.shape[1] + taps, self.tables(), mode="sum")
        else:
            embedded = self.byte_embeddings(byte_ids).transpose(1, 2)  # (B, D, S)
            tokens = take(self.token_reduction(embedded).transpose(1, 2), kept)
        return tokens.to(self.position_embeddings.dtype)

    def sum_of_taps(self, byte_ids: torch.Tensor) -> torch.Tensor:
        """(B, S) -> (T, D) by operations that any length and any exporter can follow."""
        kernel_size, stride = self.token_reduction.kernel_size[0], self.token_reduction.stride[0]
        reach = (byte_ids.shape[1] - kernel_size) // stride * stride + 1  # from the first token's tap to the last's
        tables = self.tables().unflatten(0, (-1, kernel_size)).unbind(1)
        taps = (byte_ids[:, tap : tap + reach : stride] for tap in range(kernel_size))
        return sum(F.embedding(tap, table) for tap, table in zip(taps, tables)).flatten(0, 1)

    def tables(self) -> torch.Tensor:
        """(V * k, D): row v * k + j is what byte v adds to a token at tap j. In float32: k of them are added up."""
        with torch.autocast(self.byte_embeddings.weight.device.type, enabled=False):
            weight = self.byte_embeddings.weight.float()
            weight = torch.cat([weight[:-1], weight[-1:].detach()])  # padding is never trained
            taps = self.token_reduction.weight.float().permute(1, 2, 0)  # (D in, k, D out)
            return (weight @ taps.flatten(1)).view(-1, taps.shape[2])


class ByteFormerEncoder(nn.Module):
    """The layers."""

    def __init__(self, config: ByteFormerConfig):
        super().__init__()
        self.layers = nn.ModuleList(ByteFormerLayer(config, index) for index in range(config.num_hidden_layers))

    def forward(self, tokens: torch.Tensor, rows: Rows, length: int, output_attentions: bool, kept_states: Set[int]):
        """Runs all layers on tokens (T + 1, D), of whose rows the padded batch would be `length` long.

        Returns hidden states (B, N, D), their rows, the tuple of those before each layer and after the last (None where
        not in `kept_states`), and the tuple of attentions.
        """
        states, attentions = [], []
        for number, layer in enumerate(self.layers):
            states.append(unpack(tokens, rows, length) if number in kept_states else None)
            if states[-1] is not None:  # go on with what is returned: it has to be part of the graph
                tokens = pack(states[-1], rows)
            tokens, probabilities = layer(tokens, rows, output_attentions)
            attentions.append(probabilities)
            if layer.downsample is not None:
                rows = merged_rows(rows)
                length = rows.lengths.length if isinstance(rows.lengths, Even) else -(-length // 2)
        hidden_states = unpack(tokens, rows, length)
        states.append(hidden_states if len(self.layers) in kept_states else None)
        return hidden_states, rows, tuple(states), tuple(attentions)


class ByteFormerPreTrainedModel(AttentionBackendMixin, UnquantizedModulesMixin, PreTrainedModel):
    """Initialisation, and what transformers may do with the models."""

    config_class = ByteFormerConfig
    base_model_prefix = "byteformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ByteFormerEmbeddings", "ByteFormerLayer"]
    # The tables of bytes are made of the first two, in float32; the classifier is small and has the last word.
    _modules_to_not_quantize = ("byte_embeddings", "token_reduction", "classifier")
    _can_record_outputs = {"hidden_states": ByteFormerLayer, "attentions": ByteFormerSelfAttention}

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
            if module.padding_idx is not None and not is_loaded(module.weight):
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

    def get_input_embeddings(self):
        return getattr(self, self.base_model_prefix, self).embeddings.byte_embeddings

    def set_input_embeddings(self, value):
        getattr(self, self.base_model_prefix, self).embeddings.byte_embeddings = value

    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, *args, **kwargs):
        """Raises ValueError for any size but the present one: the vocabulary is that of bytes, its last row padding."""
        vocabulary, multiple = self.config.vocab_size, pad_to_multiple_of or 1
        size = -(-(new_num_tokens or vocabulary) // multiple) * multiple
        rule = (
            "the byte embeddings have {0} rows and cannot have {1}: the last row is padding, id {2}, and would become "
            "another one; build a new model with ByteFormerConfig(vocab_size={1})"
        )
        require(size == vocabulary, rule, vocabulary, size, self.config.padding_id)
        return self.get_input_embeddings()


class ByteFormerModel(ByteFormerPreTrainedModel):
    """ByteFormer without a head.

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

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: Optional[torch.Tensor] = None,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Union[bool, Sequence[int], None] = None,
        return_dict: Optional[bool] = None,
        **kwargs,
    ) -> Union[Tuple, BaseModelOutputWithPooling]:
        """Encodes bytes.

        Args:
            input_ids: (B, S) integers. 0..V-2 are bytes, V-1 (256) and -1 are padding. Not modified.
            attention_mask: (B, S), 1 for bytes and 0 for padding. Padding is known from `input_ids`, so the mask may be
                left out. With `mask_padding=True` a 0 also makes padding of a byte; without, the released computation
                has no use for a mask, and one that hides bytes is an error.
            output_attentions: whether to return attention probabilities (computed by the eager backend).
            output_hidden_states: whether to return the hidden states, or the numbers of those to return.
            return_dict: False for a tuple.
            **kwargs: keywords that transformers passes to every model; others are a TypeError.

        Returns:
            last_hidden_state (B, N, D), N the tokens that are left after merging (zero where not real, with
            `mask_padding=True`); pooler_output (B, D), their mean; hidden_states, the embeddings and one per layer
            (B, N of the layer, D), None for those not asked for; attentions, one per layer (n of the batch, A, W, W).

        Raises:
            ValueError: ids or masks of the wrong shape, type or range; sequences too short or too long; a mask that
                contradicts the padding.
        """
        refuse_keywords(self.forward, kwargs)
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = config.return_dict if return_dict is None else return_dict
        kept_states = hidden_states_to_keep(output_hidden_states, len(self.encoder.layers) + 1)

        byte_ids, real_bytes = self._read(input_ids, attention_mask)
        rows, length = self._rows(byte_ids, real_bytes)
        tokens = self.embeddings(byte_ids, rows)
        hidden_states, rows, states, attentions = self.encoder(tokens, rows, length, output_attentions, kept_states)
        last_hidden_state, pooler_output = self._pool(hidden_states, rows)
        output = BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=pooler_output,
            hidden_states=states if kept_states else None,
            attentions=attentions if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()

    def _read(self, input_ids, attention_mask):
        """Checks the input. Returns ids in 0..V-1 (B, S) and, where padding is masked, which of them are real."""
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
            return Rows(Even(batch, length) if is_tracing() else (length,) * batch, None), length
        real = real_tokens(real_bytes, kernel_size)
        if is_tracing():
            return Rows(Even(batch, length), F.pad(real.flatten(), (0, 1))), length
        numbers = torch.arange(1, length + 1, device=real.device)
        rows = Rows(tuple((real * numbers).amax(1).tolist()), None)  # up to the last real token
        empty = rows.lengths.index(0) if 0 in rows.lengths else None
        require(empty is None, "every row of input_ids needs a byte, got only padding in row {}", empty)
        real = take(real, places_of(rows, length, real.device))
        return Rows(rows.lengths, F.pad(real, (0, 1))), length

    def _pool(self, hidden_states, rows):
        """Final norm and the mean over the tokens that count."""
        hidden_states = self.layernorm(hidden_states)
        if rows.real is None:
            return hidden_states, mean_of(hidden_states, 1)
        real = row_indices(rows, hidden_states.shape[1], hidden_states.device)[..., None] < total_of(rows.lengths)
        hidden_states = hidden_states.masked_fill(~real, 0)
        total = hidden_states.sum(1, dtype=torch.promote_types(hidden_states.dtype, torch.float32))
        return hidden_states, (total / real.sum(1).clamp(min=1)).to(hidden_states.dtype)


class ByteFormerForClassification(ByteFormerPreTrainedModel):
    """ByteFormer with a linear head on the mean token. The two public models differ in their output class alone."""

    output_class = ImageClassifierOutput

    def __init__(self, config: ByteFormerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.byteformer = ByteFormerModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: Optional[torch.Tensor] = None,
        labels: Optional[torch.Tensor] = None,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Union[bool, Sequence[int], None] = None,
        return_dict: Optional[bool] = None,
        num_items_in_batch: Union[torch.Tensor, int, None] = None,
        **kwargs,
    ):
        """Classifies bytes.

        Args:
            labels: as for `classification_loss`: (B,) integers for one class each, (B, num_labels) numbers in 0..1 for
                several, (B,) or (B, num_labels) numbers for regression.
            num_items_in_batch: labels in all batches whose gradients are accumulated, from Trainer.
            **kwargs, and the others: as for [`ByteFormerModel`].

        Returns:
            loss if labels are given, logits (B, num_labels), hidden_states and attentions if asked for.

        Raises:
            ValueError: as [`ByteFormerModel`], or labels of the wrong shape, type or range.
        """
        refuse_keywords(self.forward, kwargs)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        outputs = self.byteformer(input_ids, attention_mask, output_attentions, output_hidden_states, return_dict=True)
        logits = self.classifier(cast_to_weight(self.classifier, outputs.pooler_output))
        output = self.output_class(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if return_dict else output.to_tuple()


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
