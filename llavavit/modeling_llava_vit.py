# SPDX-License-Identifier: Apache-2.0
"""LLaVA-ViT: a vision transformer for images, video, sparse selections of video patches, and packs of all of them.

Public successor: OneVision-Encoder, arXiv 2602.08683; its published weights load here unchanged. The file stands alone:
torch, transformers and its configuration are all it needs.

Deliberate oddities. They match the released weights; do not fix them, see the tests named:
1. The rotary angles of the three axes are repeated as [a, a], not interleaved
   (test_llava_vit_maths.py::test_angles_are_concatenated).
2. The rotary map acts on adjacent channels all the same, so the two members of a pair carry different angles and the
   map is not a rotation (test_llava_vit_maths.py::test_rotary_acts_on_adjacent_pairs).
3. The residual branch of the pooling head starts at the attended probe, not at the probe, and its norm is an RMSNorm
   whatever `layer_norm_type` says (test_llava_vit_maths.py::test_head_residual_starts_at_attended_probe).
4. The last of `hidden_states` is taken before the post-norm: language-model towers read it
   (test_llava_vit_outputs.py::test_last_hidden_state_entry_is_before_post_norm).

Shape letters: B batch, C channels, T frames, H x W pixels, p patch size, h = H/p, w = W/p, L = T*h*w patches, N visible
patches, D hidden size, A heads, d = D/A head dim, M intermediate size; of a pack P patches in all and S samples.
"""

import copy
import difflib
import inspect
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
)
from transformers.utils import logging

from .configuration_llava_vit import LlavaViTConfig

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

try:
    from flash_attn import flash_attn_varlen_func
except ImportError:
    flash_attn_varlen_func = None

Numbers = Union[torch.Tensor, Sequence[int], Sequence[Sequence[int]]]
Grid = Tuple[int, int, int]  # frames, rows and columns of patches


@dataclass
class LlavaViTModelOutput(BaseModelOutputWithPooling):
    """As BaseModelOutputWithPooling, and `merged_states` of a model with a merger, (B, N/m^2, out) or (P/m^2, out)."""

    merged_states: Optional[torch.FloatTensor] = None


class Patches(NamedTuple):
    """What one call encodes.

    pixel_values: (B, C, T, H, W), or flat patches (P, C*p*p) of a pack.
    indices: (B, N), which patches of the pixels; None for all.
    positions: (B or 1, N, 3) or (P, 3), the (t, row, column) of each.
    lengths: Patches of each sample of a pack; None for pixels.
    runs: Lengths of runs of consecutive tokens that attend to themselves alone; None where each row is one.
    """

    pixel_values: torch.Tensor
    indices: Optional[torch.Tensor]
    positions: torch.Tensor
    lengths: Optional[Tuple[int, ...]] = None
    runs: Optional[Tuple[int, ...]] = None


# Patches of a pack that go through the model at a time on a CPU, or its largest sample: enough for fast products. Of 16
# images of 8 to 48 patches a side, all at once take five times the memory of the largest alone, beside inputs and outputs;
# in turns they take less than once.
PACK_SIZE = 2048

# Bytes of the MLP's intermediates, the widest tensors of all, that are computed at a time without gradients on a CPU. A
# forward of the benchmark's case `video` then adds 222 MiB to the model at rest, instead of 336.
MLP_CHUNK_BYTES = 16 * 2**20


def on_cpu(tensor: torch.Tensor) -> bool:
    """Where computing in turns saves memory for no time: a GPU is the faster for taking all at once."""
    return tensor.device.type == "cpu"


def split_pack(patches: Patches, size: int) -> List[Patches]:
    """Packs of neighbouring samples, each of at most `size` patches or those of the largest sample."""
    limit, runs, start = max(size, *patches.lengths), iter(patches.runs), 0
    groups: List[List[int]] = [[]]
    for length in patches.lengths:
        if sum(groups[-1]) + length > limit:
            groups.append([])
        groups[-1].append(length)
    parts = []
    for lengths in groups:
        part, own = slice(start, start := start + sum(lengths)), []
        while sum(own) < sum(lengths):
            own.append(next(runs))
        pixel_values, positions = patches.pixel_values[part], patches.positions[part]
        parts.append(Patches(pixel_values, None, positions, tuple(lengths), tuple(own)))
    return parts


def join_outputs(parts: Sequence[LlavaViTModelOutput]) -> LlavaViTModelOutput:
    """What packs gave one after the other, as the pack of all their samples gives it."""
    if len(parts) == 1:
        return parts[0]

    def joined(tensors):
        return None if tensors[0] is None else torch.cat(tensors)

    states = None if parts[0].hidden_states is None else zip(*(part.hidden_states for part in parts))
    layers = None if parts[0].attentions is None else zip(*(part.attentions for part in parts))
    return LlavaViTModelOutput(
        last_hidden_state=joined([part.last_hidden_state for part in parts]),
        pooler_output=joined([part.pooler_output for part in parts]),
        hidden_states=states and tuple(joined(tensors) for tensors in states),
        attentions=layers and tuple(sum(runs, ()) for runs in layers),
        merged_states=joined([part.merged_states for part in parts]),
    )


def check_pixel_values(config: LlavaViTConfig, pixel_values: Optional[torch.Tensor]) -> torch.Tensor:
    """(B, C, H, W) or (B, C, T, H, W), floating point, in whole patches -> (B, C, T, H, W); else ValueError."""
    require_tensor("pixel_values", pixel_values)
    shape, channels, side = tuple(pixel_values.shape), config.num_channels, config.patch_size
    forms = "(B, C, H, W) for images or (B, C, T, H, W) for video"
    require(len(shape) in (4, 5), "pixel_values must be {}, got shape {}", forms, shape)
    rule = "pixel_values must be floating point (scaled and normalised by the image processor), got {}"
    require(pixel_values.is_floating_point(), rule, pixel_values.dtype)
    rule = "pixel_values must have {} channels in dimension 1, as {}, got shape {}"
    require(shape[1] == channels, rule, channels, forms, shape)
    require(0 not in shape, "pixel_values must not be empty, got shape {}", shape)
    whole = shape[-2] % side == 0 and shape[-1] % side == 0
    require(whole, "height and width must be multiples of the patch size {}, got {} x {}", side, *shape[-2:])
    return pixel_values if len(shape) == 5 else pixel_values.unsqueeze(2)


def check_numbers(name: str, form: str, values: torch.Tensor, *expected: int) -> None:
    """Raises ValueError unless the values are real numbers of the expected shape."""
    require_tensor(name, values)
    shape = tuple(values.shape)
    require(shape == expected, "{} must be {} = {}, got shape {}", name, form, expected, shape)
    real = not (values.is_complex() or values.dtype == torch.bool)
    require(real, "{} must be real numbers, got {}", name, values.dtype)


def check_patch_positions(patch_positions: torch.Tensor, *expected: int) -> None:
    check_numbers("patch_positions", "(B, N, 3), a (t, row, column) per visible patch,", patch_positions, *expected)


def rows_of_numbers(name: str, rows: Numbers, width: Optional[int] = None) -> list:
    """Integers of shape (n,), or (n, width), as lists; a tensor or lists already, as a recorded graph needs them."""
    is_tensor = isinstance(rows, torch.Tensor)
    require(not (is_tensor and rows.is_meta), "{} must hold values, got a tensor on the meta device", name)
    found = rows.tolist() if is_tensor else rows
    fits = isinstance(found, (list, tuple)) and len(found) > 0
    for row in found if fits and width else [found]:
        fits = fits and isinstance(row, (list, tuple)) and len(row) == (width or len(row))
        fits = fits and all(isinstance(number, int) and not isinstance(number, bool) for number in row)
    form = f"(n, {width})" if width else "(n,)"
    require(fits, "{} must be integers of shape {}, got {}", name, form, rows)
    return list(found)


def sample_grids(grid_thw: Numbers) -> List[Grid]:
    """The grid of each sample; ValueError unless (S, 3) positive integers."""
    grids = [tuple(grid) for grid in rows_of_numbers("grid_thw", grid_thw, 3)]
    for number, grid in enumerate(grids):
        require(min(grid) > 0, "grid_thw must hold positive numbers, got {} for sample {}", grid, number)
    return grids


def sample_lengths(grid_thw: Optional[Numbers], cu_seqlens: Optional[Numbers]) -> Optional[Tuple[int, ...]]:
    """Patches of each sample of a pack; None where there is none."""
    require(grid_thw is None or cu_seqlens is None, "grid_thw and cu_seqlens exclude each other, got both")
    if grid_thw is not None:
        return tuple(frames * rows * columns for frames, rows, columns in sample_grids(grid_thw))
    if cu_seqlens is None:
        return None
    sums = rows_of_numbers("cu_seqlens", cu_seqlens)
    require(sums[0] == 0 and len(sums) > 1, "cu_seqlens must start with 0 and hold S + 1 prefix sums, got {}", sums)
    lengths = tuple(after - before for before, after in zip(sums, sums[1:]))
    require(min(lengths) > 0, "cu_seqlens must rise, every sample has a patch; got {}", sums)
    return lengths


def check_blocks(positions: torch.Tensor, lengths: Sequence[int], side: int) -> None:
    """Raises ValueError unless each sample's positions (..., N, 3) come in whole blocks of side x side, row by row."""
    way_out = "order patches in blocks, as pack() does, or load with out_hidden_size=None for the encoder alone"
    whole = all(length % side**2 == 0 for length in lengths)
    rule = "merged_states join {0} x {0} patches: a sample of {1} has none left over; {2}"
    require(whole, rule, side, tuple(lengths), way_out)
    if has_values(positions):
        blocks = positions.unflatten(-2, (-1, side**2))
        inside = patch_positions_of(torch.arange(side**2, device=positions.device), (1, side, side))
        fits = bool((blocks - blocks[..., :1, :] == inside).all())
        require(fits, "merged_states join {0} x {0} neighbours, which these patches are not; {1}", side, way_out)


def grid_of(config: LlavaViTConfig, pixel_values: torch.Tensor) -> Grid:
    """The grid of pixels (B, C, T, H, W)."""
    frames, height, width = pixel_values.shape[2:]
    return frames, height // config.patch_size, width // config.patch_size


def split_indices(indices: torch.Tensor, rows: int, columns: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frame, row and column of each patch index, all shaped as `indices`."""
    frame = torch.div(indices, rows * columns, rounding_mode="floor")
    row = torch.div(indices, columns, rounding_mode="floor")  # of all frames
    return frame, row - frame * rows, indices - row * columns  # no remainders: ONNX has none by a size


def patch_positions_of(indices: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(...) patch indices -> (..., 3), the (t, row, column) of each."""
    return torch.stack(split_indices(indices, *grid[1:]), dim=-1)


def indices_in_blocks(grid: Grid, side: int, device: torch.device) -> torch.Tensor:
    """The L indices of a grid's patches in blocks of side x side, row by row inside each; 1 for the usual order."""
    frames, rows, columns = grid
    whole = rows % side == 0 and columns % side == 0
    require(whole, "merged_states join {0} x {0} patches, into which {1} x {2} do not divide", side, rows, columns)
    indices = torch.arange(frames * rows * columns, device=device)
    return indices.view(frames, rows // side, side, columns // side, side).transpose(2, 3).flatten()


def cut_patches(pixel_values: torch.Tensor, patch_size: int, indices: Optional[torch.Tensor] = None) -> torch.Tensor:
    """(B, C, T, H, W), indices (B, N) or None for all L in order: frame, row, column -> flat patches (B, N, C*p*p)."""
    grid = pixel_values.unflatten(-1, (-1, patch_size)).unflatten(-3, (-1, patch_size))  # (B, C, T, h, p, w, p)
    if indices is None:
        return grid.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
    frame, row, column = split_indices(indices, grid.shape[3], grid.shape[5])
    sample = torch.arange(indices.shape[0], device=indices.device)[:, None]
    # Indexed dimensions come first in the result: (B, N, C, p, p)
    return grid[sample, :, frame, row, :, column].flatten(2)


def indices_from_residual(residual: torch.Tensor, patch_size: int, max_patches: int) -> torch.Tensor:
    """(B, 1, T, H, W), real -> (B, K), K = min(max_patches, L): the patches with the largest sum of |residual|.

    In ascending order. Of equal scores the earlier patch is kept, on every device.
    """
    scores = residual.float().abs().unflatten(-1, (-1, patch_size)).unflatten(-3, (-1, patch_size))
    scores = scores.sum(dim=(-1, -3)).flatten(1)  # (B, 1, T, h, p, w, p) -> (B, L)
    kept = scores.sort(dim=1, descending=True, stable=True).indices[:, :max_patches]
    return kept.sort(dim=1).values


def choose_patches(config: LlavaViTConfig, pixel_values: torch.Tensor, visible_indices: torch.Tensor):
    """The (B, N) int64 indices of the visible patches and their places on the grid, both as a rule the same."""
    require_tensor("visible_indices", visible_indices)
    visible_indices, shape = visible_indices.to(pixel_values.device), tuple(visible_indices.shape)
    batch_size, frames, rows, columns = pixel_values.shape[0], *grid_of(config, pixel_values)
    if len(shape) == 5:
        name, expected = "a residual given as visible_indices", (batch_size, 1, *pixel_values.shape[2:])
        check_numbers(name, "(B, 1, T, H, W)", visible_indices, *expected)
        indices = indices_from_residual(visible_indices, config.patch_size, config.max_visible_patches)
        return indices, indices
    rule = "visible_indices must be (B, N) patch indices with B = {} and N >= 1, or a (B, 1, T, H, W) residual, got {}"
    require(len(shape) == 2 and shape[0] == batch_size and shape[1] > 0, rule, batch_size, f"shape {shape}")
    rule = "visible_indices of shape (B, N) must be integers, got {}"
    require(is_integer(visible_indices), rule, visible_indices.dtype)
    return indices_and_places(
        visible_indices.long(), frames * rows * columns, config.rope_temporal_size * rows * columns
    )


def are_all_in_order(indices: torch.Tensor, grid: Grid) -> bool:
    """Whether (B, N) indices choose every patch of the grid in its own order: what none at all choose, windows too."""
    frames, rows, columns = grid
    if not has_values(indices) or indices.shape[1] != frames * rows * columns:
        return False
    return bool((indices == torch.arange(indices.shape[1], device=indices.device)).all())


def indices_and_places(visible_indices: torch.Tensor, num_patches: int, num_places: int):
    """Which patches (B, N) visible indices choose, and where these stand; ValueError beyond the patches or places.

    As a rule both are the indices. A row of L indices some of which lie beyond the L patches chooses nothing: it names
    the places of all patches in their own order, on a grid of more frames (the published model card calls it so).
    """
    if not has_values(visible_indices):
        return visible_indices, visible_indices
    low, high = visible_indices.min().item(), visible_indices.max().item()
    places = visible_indices.shape[1] == num_patches and high >= num_patches
    limit = num_places if places else num_patches
    why = " (as many as patches: places on the grid of rope_temporal_size frames)" if places else ""
    rule = "visible_indices must lie in [0, {}){}, got values from {} to {}"
    require(low >= 0 and high < limit, rule, limit, why, low, high)
    if not places:
        return visible_indices, visible_indices
    beyond = (visible_indices >= num_patches).any(dim=1, keepdim=True)
    in_order = torch.arange(num_patches, device=visible_indices.device)
    return torch.where(beyond, in_order, visible_indices), visible_indices


def read_pixels(config: LlavaViTConfig, pixel_values, visible_indices, patch_positions) -> Patches:
    """The patches of images or video, checked."""
    flat = isinstance(pixel_values, torch.Tensor) and pixel_values.dim() == 2
    require(not flat, "a pack, pixel_values (P, C*p*p), needs grid_thw or cu_seqlens for its samples, got neither")
    pixel_values = check_pixel_values(config, pixel_values)
    grid, window, indices, runs = grid_of(config, pixel_values), config.frame_windows_size, None, None
    places = indices_in_blocks(grid, 1, pixel_values.device)[None]
    if visible_indices is not None:
        indices, places = choose_patches(config, pixel_values, visible_indices)
        if are_all_in_order(indices, grid):
            indices = None
    if patch_positions is None:
        patch_positions = patch_positions_of(places, grid)
    else:
        check_patch_positions(patch_positions, pixel_values.shape[0], places.shape[1], 3)
    if 0 < window < grid[0]:
        rule = "visible_indices select from {} frames, which leave no windows; frame_windows_size = {}, set it to 0"
        require(indices is None, rule, grid[0], window)
        runs = attention_runs([grid] * pixel_values.shape[0], window)
    return Patches(pixel_values, indices, patch_positions, None, runs)


def read_pack(config: LlavaViTConfig, pixel_values, visible_indices, patch_positions, grid_thw, lengths) -> Patches:
    """The patches of a pack, checked."""
    require_tensor("pixel_values", pixel_values)
    width, total = config.num_channels * config.patch_size**2, sum(lengths)
    fits = pixel_values.dim() == 2 and pixel_values.shape[1] == width and pixel_values.is_floating_point()
    require(fits, "pixel_values of a pack must be floating point (P, C*p*p) = (P, {}), got {}", width, pixel_values)
    rule = "the samples of the pack have {} patches, pixel_values {}"
    require(total == pixel_values.shape[0], rule, total, pixel_values.shape[0])
    rule = "a pack holds the visible patches alone: pass visible_indices to pack(), not with it"
    require(visible_indices is None, rule)
    if patch_positions is not None:
        check_patch_positions(patch_positions, total, 3)
    if grid_thw is None:
        require(patch_positions is not None, "a pack with cu_seqlens needs patch_positions (P, 3), got none")
        rule = "frame_windows_size = {} needs grid_thw: cu_seqlens does not tell frames apart; set it to 0"
        require(config.frame_windows_size == 0, rule, config.frame_windows_size)
        return Patches(pixel_values, None, patch_positions, lengths, lengths)
    grids = sample_grids(grid_thw)
    if patch_positions is None:
        orders = [indices_in_blocks(grid, 1, pixel_values.device) for grid in grids]
        patch_positions = torch.cat([patch_positions_of(order, grid) for order, grid in zip(orders, grids)])
    return Patches(pixel_values, None, patch_positions, lengths, attention_runs(grids, config.frame_windows_size))


def pack(
    config: LlavaViTConfig,
    samples: Sequence[torch.Tensor],
    visible_indices: Optional[Sequence[Optional[torch.Tensor]]] = None,
    patch_positions: Optional[Sequence[Optional[torch.Tensor]]] = None,
) -> Dict[str, torch.Tensor]:
    """Packs images and videos of any sizes into one input of the models.

    Args:
        config: Of the model. With a merger patches are ordered in its blocks.
        samples: Images (C, H, W) and videos (C, T, H, W), or a batch of them; H and W multiples of p.
        visible_indices: For each sample None for all its patches, (N,) indices, or a residual (1, T, H, W): as
            `LlavaViTModel.forward` takes them, without the batch.
        patch_positions: For each sample None, or (N, 3), the (t, row, column) of its visible patches in their order.

    Returns:
        Keywords of `forward`: `pixel_values` (P, C*p*p), `patch_positions` (P, 3), and `grid_thw` (S, 3), or
        `cu_seqlens` (S + 1,) where a sample is a selection.

    Raises:
        ValueError: A sample or what is said about it does not fit; the message has its number.
    """
    count = len(samples)
    require(count > 0, "pack() needs at least one sample, got none")
    chosen = [None] * count if visible_indices is None else visible_indices
    places = [None] * count if patch_positions is None else patch_positions
    for name, given in (("visible_indices", chosen), ("patch_positions", places)):
        require(len(given) == count, "{} must have an entry for each of {} samples, got {}", name, count, len(given))
    parts = []
    for number in range(count):
        try:
            parts.append(pack_sample(config, samples[number], chosen[number], places[number]))
        except ValueError as error:
            raise ValueError(f"sample {number}: {error}") from None
    patches, positions, grids = zip(*parts)
    packed = {"pixel_values": torch.cat(patches), "patch_positions": torch.cat(positions)}
    if all(indices is None for indices in chosen):
        return {**packed, "grid_thw": torch.tensor(grids)}
    return {**packed, "cu_seqlens": torch.tensor([0, *accumulate(len(sample) for sample in patches)])}


def pack_sample(config: LlavaViTConfig, sample: torch.Tensor, visible_indices, patch_positions):
    """One sample of `pack` -> patches (N, C*p*p), positions (N, 3), grid."""
    rule = "a sample must be an image (C, H, W) or a video (C, T, H, W), got {}"
    require(isinstance(sample, torch.Tensor) and sample.ndim in (3, 4), rule, sample)
    pixel_values = check_pixel_values(config, sample[None])
    grid = grid_of(config, pixel_values)
    if visible_indices is None:
        side = 1 if config.out_hidden_size is None else config.spatial_merge_size
        indices = places = indices_in_blocks(grid, side, sample.device)[None]
    else:
        require_tensor("visible_indices", visible_indices)
        indices, places = choose_patches(config, pixel_values, visible_indices[None])
    if patch_positions is None:
        patch_positions = patch_positions_of(places[0], grid)
    check_patch_positions(patch_positions, indices.shape[1], 3)
    return cut_patches(pixel_values, config.patch_size, indices)[0], patch_positions.to(sample.device), grid


def unpack(states: torch.Tensor, packed: Dict[str, torch.Tensor]) -> List[torch.Tensor]:
    """Splits tokens of a pack, (P, ...) or merged (P/m^2, ...), into one tensor for each sample.

    Args:
        states: `last_hidden_state`, an entry of `hidden_states`, or `merged_states`.
        packed: What `pack` returned.
    """
    lengths = sample_lengths(packed.get("grid_thw"), packed.get("cu_seqlens"))
    require(lengths is not None, "packed must hold grid_thw or cu_seqlens, got {}", sorted(packed))
    joined, rest = divmod(sum(lengths), max(1, states.shape[0]))
    fits = rest == 0 and all(length % max(1, joined) == 0 for length in lengths)
    rule = "states must have the {} patches of the pack in dimension 0, or blocks of them, got {}"
    require(fits, rule, sum(lengths), states)
    return list(states.split([length // joined for length in lengths]))


def attention_runs(grids: Sequence[Grid], window: int) -> Tuple[int, ...]:
    """Lengths of the runs that attend to themselves: of each sample `window` frames at a time and the rest, all for 0.

    Of 6 frames of 2 x 2 patches in windows of 4: (16, 8).
    """
    runs: List[int] = []
    for frames, rows, columns in grids:
        step = window or frames
        runs += [min(step, frames - start) * rows * columns for start in range(0, frames, step)]
    return tuple(runs)


def attend_in_runs(module, query, key, value, runs: Tuple[int, ...], output_attentions: bool = False):
    """(P, A, d) in runs of P tokens in all, each attending to itself -> (P, A, d), (A, n, n) of every run or None.

    Work and memory are the sum of the runs' squares. Neighbours of one length go into one call of `attend`.
    """
    if attention_backend(module.config, query, output_attentions=output_attentions) == "flash_attention_2":
        bounds = torch.tensor([0, *accumulate(runs)], dtype=torch.int32, device=query.device)
        sizes = (bounds, bounds, max(runs), max(runs))
        options = {"dropout_p": module.dropout if module.training else 0.0, "softmax_scale": module.scaling}
        return flash_attn_varlen_func(query, key, value, *sizes, causal=False, **options), None
    outputs, probabilities, start = [], [], 0
    for length, group in groupby(runs):
        shape = (len(list(group)), length)
        stop = start + shape[0] * length
        parts = (x[start:stop].unflatten(0, shape).transpose(1, 2) for x in (query, key, value))  # (runs, A, n, d)
        output, found = attend(module, *parts, output_attentions=output_attentions)
        outputs.append(output.flatten(0, 1))
        probabilities += [] if found is None else found.unbind()
        start = stop
    return torch.cat(outputs), tuple(probabilities) if output_attentions else None


def mean_tokens(tokens: torch.Tensor, lengths: Optional[Tuple[int, ...]]) -> torch.Tensor:
    """(B, N, D) -> (B, D), or (P, D) of samples of these lengths -> (S, D)."""
    if lengths is None:
        return mean_of(tokens, 1)
    return torch.stack([mean_of(sample, 0) for sample in tokens.split(lengths)])


def rotary_cos_sin(positions: torch.Tensor, head_dim: int, theta: float, dtype: torch.dtype):
    """(..., N, 3), real, of (t, row, column) -> cosine and sine (..., N, 1, d) of the rotary angles, for every head.

    The d/2 angles are [t*f_t, row*f_h, column*f_w] with 4:6:6 of the channels, repeated to d as [a, a]
    (oddity 1: concatenated, not interleaved). Computed in float32, whatever `dtype` the result has.
    """
    unit = head_dim // 32
    angles = []
    for axis, size in enumerate((4 * unit, 6 * unit, 6 * unit)):
        exponents = torch.arange(size, dtype=torch.float32, device=positions.device) / size
        angles.append(positions[..., axis, None].float() * (1.0 / theta**exponents))
    angles = torch.cat(angles, dim=-1)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(-2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x * cos + rot(x) * sin, where rot maps each adjacent pair (x0, x1) to (-x1, x0); x (B, N, A, d).

    Oddity 2, the members of a pair have different angles: with d = 32 the angles a repeat after 16 channels, so
    channel 0 uses a[0], channel 1 a[1] and channel 16 a[0] again:
    [x0*cos(a0) - x1*sin(a0), x1*cos(a1) + x0*sin(a1), x2*cos(a2) - x3*sin(a2), ...].
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    if is_tracing():  # ONNX has no writes into slices
        return x * cos + torch.stack((-odd, even), dim=-1).flatten(-2) * sin
    rotated = x * cos
    # In place on the fresh product: stacking -odd and even would write and read another copy of x.
    rotated[..., 0::2].addcmul_(odd, sin[..., 0::2], value=-1)
    rotated[..., 1::2].addcmul_(even, sin[..., 1::2])
    return rotated


class LlavaViTRMSNorm(nn.Module):
    """Root-mean-square norm with a weight, computed in float32."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        x = hidden_states.float()
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * x.to(hidden_states.dtype)


def make_norm(config: LlavaViTConfig) -> nn.Module:
    kind = LlavaViTRMSNorm if config.layer_norm_type == "rms_norm" else nn.LayerNorm
    return kind(config.hidden_size, eps=config.layer_norm_eps)


class LlavaViTPatchEmbedding(nn.Module):
    """The weight of a bias-free convolution of stride p, applied to patches that are already cut out."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        side = config.patch_size
        self.weight = nn.Parameter(torch.zeros(config.hidden_size, config.num_channels, side, side))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, N, C*p*p) -> (B, N, D)."""
        return F.linear(patches.to(self.weight.dtype), self.weight.flatten(1))


class LlavaViTEmbeddings(nn.Module):
    """Pixels to tokens of the visible patches; the others are never projected."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.patch_embedding = LlavaViTPatchEmbedding(config)

    def forward(self, pixel_values: torch.Tensor, indices: Optional[torch.Tensor] = None) -> torch.Tensor:
        """(B, C, T, H, W), patch indices (B, N) or None for all -> (B, N, D); patches (P, C*p*p) -> (P, D)."""
        packed = pixel_values.dim() == 2
        return self.patch_embedding(pixel_values if packed else cut_patches(pixel_values, self.patch_size, indices))


class LlavaViTAttention(nn.Module):
    """Full self-attention with rotary positions; the backend is chosen per call from the configuration."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.is_causal = False  # read by transformers' flash-attention functions
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        output_attentions: bool = False,
        runs: Optional[Tuple[int, ...]] = None,
    ) -> Tuple[torch.Tensor, Union[torch.Tensor, Tuple[torch.Tensor, ...], None]]:
        """(B, N, D); cos, sin (B or 1, N, 1, d) -> (B, N, D); probabilities (B, A, N, N) where asked for, else None.

        With `runs`, of (P, D) or (B, N, D): each run of n tokens attends to itself, with probabilities (A, n, n).
        """
        heads = (-1, self.head_dim)
        query = apply_rotary(self.q_proj(hidden_states).unflatten(-1, heads), cos, sin)
        key = apply_rotary(self.k_proj(hidden_states).unflatten(-1, heads), cos, sin)
        value = self.v_proj(hidden_states).unflatten(-1, heads)
        if runs is None:
            parts = (x.transpose(1, 2) for x in (query, key, value))  # (B, N, A, d) -> (B, A, N, d)
            output, probabilities = attend(self, *parts, output_attentions=output_attentions)
        else:
            parts = (x.flatten(0, -3) for x in (query, key, value))
            output, probabilities = attend_in_runs(self, *parts, runs, output_attentions)
        return self.out_proj(output.reshape(hidden_states.shape)), probabilities


class LlavaViTMLP(nn.Module):
    """Two linear layers with an activation between, (..., D) -> (..., M) -> (..., D)."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        rule = "hidden_act must be a transformers activation, got {!r}; known: {}"
        require(config.hidden_act in ACT2FN, rule, config.hidden_act, ", ".join(ACT2FN))
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # Hooks on the layers expect all tokens at once.
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in self.children())
        if hooked or not (works_in_chunks() and on_cpu(hidden_states)):
            return self.fc2(self.activation_fn(self.fc1(hidden_states)))
        tokens = max(1, MLP_CHUNK_BYTES // (self.fc1.out_features * hidden_states.element_size()))
        parts = [self.fc2(self.activation_fn(self.fc1(part))) for part in hidden_states.flatten(0, -2).split(tokens)]
        return torch.cat(parts).view_as(hidden_states)


class LlavaViTEncoderLayer(GradientCheckpointingLayer):
    """One pre-norm transformer block. Arguments and results are those of `LlavaViTAttention`."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.layer_norm1 = make_norm(config)
        self.self_attn = LlavaViTAttention(config)
        self.layer_norm2 = make_norm(config)
        self.mlp = LlavaViTMLP(config)

    def forward(self, hidden_states, cos, sin, output_attentions=False, runs=None):
        attended, probabilities = self.self_attn(self.layer_norm1(hidden_states), cos, sin, output_attentions, runs)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.layer_norm2(hidden_states)), probabilities


class LlavaViTEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([LlavaViTEncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        output_hidden_states: Union[bool, int, Sequence[int]] = False,
        output_attentions: bool = False,
        runs: Optional[Tuple[int, ...]] = None,
    ) -> BaseModelOutput:
        """Pre-normed tokens (B, N, D) or (P, D), the rest as `LlavaViTAttention` -> outputs before the post-norm."""
        keep = hidden_states_to_keep(output_hidden_states, len(self.layers) + 1)
        collected = [hidden_states if 0 in keep else None]
        attentions = []
        for number, layer in enumerate(self.layers, start=1):
            hidden_states, probabilities = layer(hidden_states, cos, sin, output_attentions, runs)
            collected.append(hidden_states if number in keep else None)
            attentions.append(probabilities)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(collected) if keep else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class LlavaViTProbeAttention(nn.Module):
    """Multi-head attention of one query over the tokens; parameters as torch.nn.MultiheadAttention's.

    With a single query the key and value projections fold into it: scores are tokens . (W_k^T q) up to a constant that
    the softmax cancels, and the values are projected after they were averaged. So no (B, N, 2D) projection is made.
    """

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * config.hidden_size, config.hidden_size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.hidden_size))
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, probe, tokens: torch.Tensor, lengths: Optional[Tuple[int, ...]] = None) -> torch.Tensor:
        """(1, 1, D), (B, N, D) -> (B, D); tokens (P, D) of samples of these lengths -> (S, D)."""
        heads = (self.num_heads, self.head_dim)
        query_weight, key_weight, value_weight = self.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.in_proj_bias.chunk(3)
        query = F.linear(probe.flatten(), query_weight, query_bias).unflatten(0, heads) * self.head_dim**-0.5
        folded = torch.matmul(query[:, None, :], key_weight.unflatten(0, heads)).squeeze(1)  # (A, d) -> (A, D)
        scores = F.linear(tokens, folded)  # (B, N, D) -> (B, N, A)
        if lengths is None:
            averaged = self.average(scores, tokens)
        else:
            samples = zip(scores.split(lengths), tokens.split(lengths))
            averaged = torch.stack([self.average(*sample) for sample in samples])
        values = torch.einsum("bad,aed->bae", averaged, value_weight.unflatten(0, heads))  # (B, A, D) -> (B, A, d)
        return self.out_proj(values.flatten(1) + value_bias)

    def average(self, scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(..., N, A), (..., N, D) -> (..., A, D)."""
        probabilities = F.softmax(scores, dim=-2, dtype=torch.float32).to(tokens.dtype)
        return torch.matmul(probabilities.transpose(-2, -1), tokens)


class LlavaViTPoolingHead(nn.Module):
    """Pooling by one learned probe."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.attention = LlavaViTProbeAttention(config)
        self.norm = LlavaViTRMSNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = LlavaViTMLP(config)

    def forward(self, tokens: torch.Tensor, lengths: Optional[Tuple[int, ...]] = None) -> torch.Tensor:
        """(B, N, D), post-normed -> (B, D); (P, D) of samples of these lengths -> (S, D)."""
        attended = self.attention(self.probe, tokens.to(self.probe.dtype), lengths)
        # Oddity 3: the branch starts at the attended probe, not at the probe.
        return attended + self.mlp(self.norm(attended))


class LlavaViTMerger(nn.Module):
    """Joins blocks of m x m patches into the tokens of a language model."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__()
        self.block = config.spatial_merge_size**2
        width = config.hidden_size * self.block
        self.ln_q = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.out_hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., N, D), every m*m consecutive tokens a block -> (..., N/m^2, out)."""
        hidden_states = cast_to_weight(self.ln_q, hidden_states)
        return self.mlp(self.ln_q(hidden_states).unflatten(-2, (-1, self.block)).flatten(-2))


class LlavaViTPreTrainedModel(AttentionBackendMixin, UnquantizedModulesMixin, PreTrainedModel):
    """What the models share: loading, saving, initialisation, and what transformers may do with them."""

    config_class = LlavaViTConfig
    base_model_prefix = "llava_vit"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _can_record_outputs = {"hidden_states": LlavaViTEncoderLayer, "attentions": LlavaViTAttention}
    _no_split_modules = ["LlavaViTEmbeddings", "LlavaViTEncoderLayer", "LlavaViTPoolingHead"]
    # What stands behind the blocks: no later layer evens out what goes wrong there.
    _modules_to_not_quantize = ("head", "merger", "classifier")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only torch.nn.init functions: transformers guards them, so weights that were loaded are not overwritten.
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, LlavaViTPatchEmbedding)):
            nn.init.normal_(module.weight, mean=0.0, std=std)
        if isinstance(module, LlavaViTProbeAttention):
            nn.init.normal_(module.in_proj_weight, mean=0.0, std=std)
            nn.init.zeros_(module.in_proj_bias)
        if isinstance(module, LlavaViTPoolingHead):
            nn.init.normal_(module.probe, mean=0.0, std=1.0)
        if isinstance(module, (nn.LayerNorm, LlavaViTRMSNorm)):
            nn.init.ones_(module.weight)
        if isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return getattr(self, self.base_model_prefix, self).embeddings.patch_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        getattr(self, self.base_model_prefix, self).embeddings.patch_embedding = value

    def pack(self, samples, visible_indices=None, patch_positions=None) -> Dict[str, torch.Tensor]:
        """See the function `pack`: images and videos of any sizes to the keywords of one forward."""
        return pack(self.config, samples, visible_indices, patch_positions)

    def unpack(self, states: torch.Tensor, packed: Dict[str, torch.Tensor]) -> List[torch.Tensor]:
        """See the function `unpack`: tokens of a pack to one tensor for each sample."""
        return unpack(states, packed)


class LlavaViTModel(LlavaViTPreTrainedModel):
    """The LLaVA-ViT encoder, with its pooling head where the configuration has one.

    Example:
        >>> import torch
        >>> from llavavit import LlavaViTConfig, LlavaViTModel
        >>> config = LlavaViTConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
        >>> outputs = LlavaViTModel(config).eval()(torch.zeros(1, 3, 4, 32, 48))
        >>> tuple(outputs.last_hidden_state.shape), tuple(outputs.pooler_output.shape)
        ((1, 24, 64), (1, 64))
    """

    def __init__(self, config: LlavaViTConfig):
        config.check_values()
        super().__init__(config)
        self.embeddings = LlavaViTEmbeddings(config)
        self.layernorm_pre = make_norm(config)
        self.encoder = LlavaViTEncoder(config)
        self.layernorm_post = make_norm(config) if config.use_head else None
        self.head = LlavaViTPoolingHead(config) if config.use_head else None
        self.merger = LlavaViTMerger(config) if config.out_hidden_size is not None else None
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        visible_indices: Optional[torch.Tensor] = None,
        patch_positions: Optional[torch.Tensor] = None,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Union[bool, int, Sequence[int], None] = None,
        return_dict: Optional[bool] = None,
        grid_thw: Optional[Numbers] = None,
        cu_seqlens: Optional[Numbers] = None,
        **kwargs,
    ) -> Union[tuple, LlavaViTModelOutput]:
        """Encodes images, video, or a pack of both.

        Args:
            pixel_values: (B, C, H, W) images or (B, C, T, H, W) video, floating point, H and W multiples of p. Or a
                pack as `pack` makes it, the flat patches (P, C*p*p) of all samples one after the other.
            visible_indices: Which patches to encode. None: all L, ordered by frame, row, column. (B, N) integers in
                [0, L): these, in the order given (L of them, some beyond L: all patches, in places on a grid of
                `config.rope_temporal_size` frames). (B, 1, T, H, W): a residual signal, of which the
                `config.max_visible_patches` patches with the largest sum of |residual| are kept, in ascending order.
            patch_positions: (B, N, 3), or (P, 3) of a pack: the (t, row, column) of each visible patch, in place of its
                place in the input.
            grid_thw: (S, 3) integers, frames, rows and columns of patches of each sample of a pack. A sample of more
                than `config.frame_windows_size` frames attends within runs of so many (0: as a whole); so does a video.
            cu_seqlens: (S + 1,) integers, in place of `grid_thw` where samples are selections: prefix sums of their
                numbers of patches.
            output_attentions: Whether to return the attention probabilities; computed by the eager backend.
            output_hidden_states: Whether to return the pre-normed tokens and each block's output, or the numbers of
                those to return: [2, -1] for the second block's and the last's, None in the others' places.
            return_dict: False for a plain tuple.
            kwargs: What transformers passes to every model, such as `num_items_in_batch`.

        Returns:
            LlavaViTModelOutput: `last_hidden_state` (B, N, D), `pooler_output` (B, D) or None without a head,
            `hidden_states` (layers + 1) x (B, N, D), the last one before the post-norm, `attentions` layers x
            (B, A, N, N), `merged_states` (B, N/m^2, out) where `config.out_hidden_size` says so. Of a pack (P, D),
            (S, D), (P, D), (A, n, n) for each run of n tokens, (P/m^2, out).

        Raises:
            ValueError: An input has the wrong type, shape, dtype or range.
            TypeError: A keyword that is not known.
        """
        refuse_keywords(self.forward, kwargs)
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = config.return_dict if return_dict is None else return_dict
        lengths = sample_lengths(grid_thw, cu_seqlens)
        if lengths is None:
            patches = read_pixels(config, pixel_values, visible_indices, patch_positions)
        else:
            patches = read_pack(config, pixel_values, visible_indices, patch_positions, grid_thw, lengths)
        in_turns = lengths is not None and works_in_chunks() and on_cpu(patches.pixel_values)
        parts = split_pack(patches, PACK_SIZE) if in_turns else [patches]
        outputs = join_outputs([self.encode(part, output_hidden_states, output_attentions) for part in parts])
        return outputs if return_dict else outputs.to_tuple()

    def encode(self, patches: Patches, output_hidden_states, output_attentions) -> LlavaViTModelOutput:
        """The steps of a forward: embed, place, encode, normalise and pool, merge."""
        config = self.config
        tokens = self.embeddings(patches.pixel_values, patches.indices)
        positions = patches.positions.to(tokens.device)
        cos, sin = rotary_cos_sin(positions, config.head_dim, config.rope_theta, tokens.dtype)
        tokens = self.layernorm_pre(tokens)
        encoded = self.encoder(tokens, cos, sin, output_hidden_states, output_attentions, patches.runs)
        last_hidden_state, pooled = self.pool(encoded.last_hidden_state, patches.lengths)
        return LlavaViTModelOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=pooled,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            merged_states=None if self.merger is None else self.merge(encoded.last_hidden_state, patches),
        )

    def pool(self, hidden_states: torch.Tensor, lengths: Optional[Tuple[int, ...]]):
        """`last_hidden_state` and `pooler_output` of the encoded tokens."""
        if self.head is None:
            return hidden_states, None
        hidden_states = self.layernorm_post(hidden_states)
        return hidden_states, self.head(hidden_states, lengths)

    def merge(self, hidden_states: torch.Tensor, patches: Patches) -> torch.Tensor:
        """`merged_states` of the last block's output; pixels in their own order are put in blocks first."""
        side = self.config.spatial_merge_size
        if patches.lengths is None and patches.indices is None:
            order = indices_in_blocks(grid_of(self.config, patches.pixel_values), side, hidden_states.device)
            return self.merger(hidden_states[:, order])
        check_blocks(patches.positions, patches.lengths or patches.positions.shape[-2:-1], side)
        return self.merger(hidden_states)


class LlavaViTForClassification(LlavaViTPreTrainedModel):
    """A linear classifier on the pooled output, or on the mean token of a model without a pooling head."""

    def __init__(self, config: LlavaViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.llava_vit = LlavaViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        visible_indices: Optional[torch.Tensor] = None,
        patch_positions: Optional[torch.Tensor] = None,
        labels: Optional[torch.Tensor] = None,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Union[bool, int, Sequence[int], None] = None,
        return_dict: Optional[bool] = None,
        grid_thw: Optional[Numbers] = None,
        cu_seqlens: Optional[Numbers] = None,
        num_items_in_batch: Union[torch.Tensor, int, None] = None,
        **kwargs,
    ) -> Union[tuple, ImageClassifierOutput]:
        """Classifies images, video or packs.

        Inputs are those of `LlavaViTModel.forward`; `labels` and `num_items_in_batch` those of `classification_loss`.

        Returns:
            ImageClassifierOutput: `loss` where labels are given, `logits` (B, num_labels) or of a pack (S, num_labels),
            `hidden_states`, `attentions`.
        """
        refuse_keywords(self.forward, kwargs)
        self.check_form(pixel_values)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        inputs = (pixel_values, visible_indices, patch_positions, output_attentions, output_hidden_states)
        encoded = self.llava_vit(*inputs, return_dict=True, grid_thw=grid_thw, cu_seqlens=cu_seqlens)
        pooled = encoded.pooler_output
        if pooled is None:
            pooled = mean_tokens(encoded.last_hidden_state, sample_lengths(grid_thw, cu_seqlens))
        logits = self.classifier(cast_to_weight(self.classifier, pooled))
        outputs = ImageClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return outputs if return_dict else outputs.to_tuple()

    def check_form(self, pixel_values: torch.Tensor) -> None:
        """Raises ValueError for pixels that the task has no answer for."""


class LlavaViTForImageClassification(LlavaViTForClassification):
    """LLaVA-ViT with a linear image classifier.

    Example:
        >>> import torch
        >>> from llavavit import LlavaViTConfig, LlavaViTForImageClassification
        >>> config = LlavaViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_labels=10)
        >>> tuple(LlavaViTForImageClassification(config).eval()(torch.zeros(2, 3, 32, 32)).logits.shape)
        (2, 10)
    """


class LlavaViTForVideoClassification(LlavaViTForClassification):
    """LLaVA-ViT with a linear video classifier.

    Example:
        >>> import torch
        >>> from llavavit import LlavaViTConfig, LlavaViTForVideoClassification
        >>> config = LlavaViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_labels=8)
        >>> tuple(LlavaViTForVideoClassification(config).eval()(torch.zeros(1, 3, 4, 32, 32)).logits.shape)
        (1, 8)
    """

    def check_form(self, pixel_values: torch.Tensor) -> None:
        require(
            not isinstance(pixel_values, torch.Tensor) or pixel_values.dim() != 4,
            "a video classifier takes clips, pixel_values (B, C, T, H, W), got shape {}, which would be images; "
            "of a clip's frames (T, C, H, W) pass frames.transpose(0, 1)[None]; images: LlavaViTForImageClassification",
            tuple(getattr(pixel_values, "shape", ())),
        )


class LlavaViTBackbone(LlavaViTPreTrainedModel):
    """LLaVA-ViT as the backbone of detectors, segmenters and depth models: feature maps of chosen stages.

    The stages are "stem", the pre-normed tokens, and "stage1", "stage2", ..., the blocks' outputs before the post-norm.
    `out_features` or `out_indices` of the configuration choose them; the last where neither does.

    Example:
        >>> import torch
        >>> from llavavit import LlavaViTBackbone, LlavaViTConfig
        >>> config = LlavaViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, out_indices=[1, 2])
        >>> outputs = LlavaViTBackbone(config).eval()(torch.zeros(1, 3, 32, 48))
        >>> [tuple(features.shape) for features in outputs.feature_maps]
        [(1, 64, 2, 3), (1, 64, 2, 3)]
    """

    has_attentions = True
    _keys_to_ignore_on_load_unexpected = [r"(^|\.)(layernorm_post|head|merger)\.", r"^classifier\."]

    def __init__(self, config: LlavaViTConfig):
        # A configuration of its own: what is saved must not promise the parts that a backbone has no use for.
        config = copy.deepcopy(config)
        config.use_head, config.out_hidden_size = False, None
        super().__init__(config)
        self.llava_vit = LlavaViTModel(config)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        self.post_init()

    @property
    def stage_names(self) -> List[str]:
        return self.config.stage_names

    @property
    def out_indices(self) -> List[int]:
        return self.config.stages()

    @property
    def out_features(self) -> List[str]:
        return [self.stage_names[index] for index in self.out_indices]

    @property
    def channels(self) -> List[int]:
        return [self.num_features[index] for index in self.out_indices]

    @property
    def out_feature_channels(self) -> Dict[str, int]:
        return dict(zip(self.stage_names, self.num_features))

    def forward_with_filtered_kwargs(self, *args, **kwargs) -> BackboneOutput:
        """How transformers' models of other tasks call their backbone."""
        return self(*args, **kwargs)

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_attentions: Optional[bool] = None,
        output_hidden_states: Union[bool, int, Sequence[int], None] = None,
        return_dict: Optional[bool] = None,
        **kwargs,
    ) -> Union[tuple, BackboneOutput]:
        """Feature maps of images or video.

        Returns:
            BackboneOutput: `feature_maps`, one per chosen stage, (B, D, h, w) of images (B, C, H, W), (B, D, T, h, w)
            of video (B, C, T, H, W); `hidden_states` and `attentions` as `LlavaViTModel.forward`.
        """
        refuse_keywords(self.forward, kwargs)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        returned = hidden_states_to_keep(asked, len(self.num_features))
        needed = sorted(returned.union(self.out_indices))
        encoded = self.llava_vit(pixel_values, None, None, output_attentions, needed, return_dict=True)
        side = self.config.patch_size
        grid = (*pixel_values.shape[2:-2], pixel_values.shape[-2] // side, pixel_values.shape[-1] // side)
        states = encoded.hidden_states
        outputs = BackboneOutput(
            feature_maps=tuple(states[index].transpose(1, 2).unflatten(2, grid) for index in self.out_indices),
            hidden_states=tuple(x if i in returned else None for i, x in enumerate(states)) if returned else None,
            attentions=encoded.attentions,
        )
        return outputs if return_dict else outputs.to_tuple()


LlavaViTModel.register_for_auto_class("AutoModel")
LlavaViTForImageClassification.register_for_auto_class("AutoModelForImageClassification")
LlavaViTForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
LlavaViTBackbone.register_for_auto_class("AutoBackbone")

__all__ = [
    "LlavaViTAttention",
    "LlavaViTBackbone",
    "LlavaViTEmbeddings",
    "LlavaViTEncoder",
    "LlavaViTEncoderLayer",
    "LlavaViTForImageClassification",
    "LlavaViTForVideoClassification",
    "LlavaViTModel",
    "LlavaViTModelOutput",
    "LlavaViTPreTrainedModel",
    "pack",
    "unpack",
]
