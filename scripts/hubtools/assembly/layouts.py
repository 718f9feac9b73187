"""The layouts in which users hold the two models, as data, and the way from each to the Hub layout and back.

A rule pairs a key template with one Hub template, or with several whose tensors are stacked on dimension 0. `{i}` stands
for a layer number, `{p}` for `weight` or `bias`. Templates read in both directions, so one table serves both conversions.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from ..errors import UserError, some
from ..packages import PACKAGES

LONGEST_NAME, MOST_NUMBERS = 300, 4  # of a tensor: no layout has longer names, or more numbers in one
PLACEHOLDERS = {"{i}": r"(?P<i>\d+)", "{p}": r"(?P<p>weight|bias)"}


@dataclass(frozen=True)
class Rule:
    """One line of a key map: `source` in the foreign layout, `targets` in the Hub layout (several: stacked in the source)."""

    source: str
    targets: Tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A named key map. `dropped` are keys that carry no information, such as stored rotary frequencies."""

    name: str
    rules: Tuple[Rule, ...]
    dropped: Tuple[str, ...] = ()

    @cached_property
    def _by_source(self) -> Dict[str, Rule]:
        return {rule.source: rule for rule in reversed(self.rules)}

    def match(self, name: str) -> Optional[Tuple[Rule, Dict[str, str]]]:
        """The rule whose source is `name`, and what stands at its placeholders; looked up, so that many names take no time."""
        for template, groups in _templates_of(name):
            if template in self._by_source:
                return self._by_source[template], groups
        return None

    def drops(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.dropped)


def _templates_of(name: str) -> Iterator[Tuple[str, Dict[str, str]]]:
    """The templates that could stand for a name: with a number in it as {i}, and its ending as {p}."""
    if len(name) > LONGEST_NAME:
        return
    stem, _, ending = name.rpartition(".")
    endings = [(name, {})] + ([(f"{stem}.{{p}}", {"p": ending})] if ending in ("weight", "bias") else [])
    for template, groups in endings:
        yield template, groups
        for number in islice(re.finditer("[0-9]+", stem), MOST_NUMBERS):
            start, end = number.span()
            yield f"{template[:start]}{{i}}{template[end:]}", {**groups, "i": number[0]}


@lru_cache(maxsize=None)
def _pattern(template: str) -> "re.Pattern[str]":
    pattern = re.escape(template)
    for placeholder, group in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), group)
    return re.compile(pattern)


def _fill(template: str, groups: Mapping[str, str]) -> str:
    for placeholder in PLACEHOLDERS:
        template = template.replace(placeholder, groups.get(placeholder[1:-1]) or "")
    return template


def _rules(*pairs: Tuple[str, object]) -> Tuple[Rule, ...]:
    return tuple(Rule(source, (target,) if isinstance(target, str) else tuple(target)) for source, target in pairs)


def _same(*templates: str) -> Tuple[Rule, ...]:
    return _rules(*((template, template) for template in templates))


ROTARY_BUFFERS = (r"(^|\.)(video_rope|rotary_emb|rope)\.", r"(^|\.)inv_freq\w*$")

_LAYER = "encoder.layers.{i}."
_QKV = (_LAYER + "self_attn.q_proj.{p}", _LAYER + "self_attn.k_proj.{p}", _LAYER + "self_attn.v_proj.{p}")
_LLAVA_VIT_HEAD = _same(
    "head.probe",
    "head.attention.in_proj_weight",
    "head.attention.in_proj_bias",
    "head.attention.out_proj.{p}",
    "head.norm.weight",
    "head.mlp.fc1.{p}",
    "head.mlp.fc2.{p}",
)
_LLAVA_VIT_BLOCK = _same(
    _LAYER + "layer_norm1.{p}",
    _LAYER + "layer_norm2.{p}",
    _LAYER + "mlp.fc1.{p}",
    _LAYER + "mlp.fc2.{p}",
)
_LLAVA_VIT_NORMS = _same("layernorm_pre.{p}", "layernorm_post.{p}")

LLAVA_VIT_LAYOUTS = (
    Layout(
        "hub",
        _same("embeddings.patch_embedding.weight", *_QKV, _LAYER + "self_attn.out_proj.{p}", "classifier.{p}")
        + _LLAVA_VIT_NORMS
        + _LLAVA_VIT_BLOCK
        + _LLAVA_VIT_HEAD,
        ROTARY_BUFFERS,
    ),
    Layout(
        "training",
        _rules(
            ("conv1.weight", "embeddings.patch_embedding.weight"),
            ("ln_pre.{p}", "layernorm_pre.{p}"),
            ("ln_post.{p}", "layernorm_post.{p}"),
            ("transformer.layers.{i}.ln_1.{p}", _LAYER + "layer_norm1.{p}"),
            ("transformer.layers.{i}.ln_2.{p}", _LAYER + "layer_norm2.{p}"),
            ("transformer.layers.{i}.attn.in_proj.{p}", _QKV),
            ("transformer.layers.{i}.attn.out_proj.{p}", _LAYER + "self_attn.out_proj.{p}"),
            ("transformer.layers.{i}.attn.proj.{p}", _LAYER + "self_attn.out_proj.{p}"),  # older trainings
            ("transformer.layers.{i}.mlp.0.{p}", _LAYER + "mlp.fc1.{p}"),
            ("transformer.layers.{i}.mlp.2.{p}", _LAYER + "mlp.fc2.{p}"),
        )
        + _LLAVA_VIT_HEAD,
        ROTARY_BUFFERS,
    ),
    Layout(
        "packed",
        _rules(
            ("patch_embed.proj.weight", "embeddings.patch_embedding.weight"),
            (_LAYER + "self_attn.qkv.{p}", _QKV),
            (_LAYER + "self_attn.proj.{p}", _LAYER + "self_attn.out_proj.{p}"),
        )
        + _LLAVA_VIT_NORMS
        + _LLAVA_VIT_BLOCK
        + _LLAVA_VIT_HEAD,
        ROTARY_BUFFERS,
    ),
)

BYTEFORMER_LAYOUTS = (
    Layout(
        "hub",
        _same(
            "embeddings.byte_embeddings.weight",
            "embeddings.token_reduction.weight",
            "embeddings.position_embeddings",
            _LAYER + "layer_norm1.{p}",
            _LAYER + "self_attn.qkv_proj.{p}",
            _LAYER + "self_attn.out_proj.{p}",
            _LAYER + "layer_norm2.{p}",
            _LAYER + "mlp.fc1.{p}",
            _LAYER + "mlp.fc2.{p}",
            _LAYER + "downsample.reduction.weight",
            _LAYER + "downsample.norm.{p}",
            "layernorm.{p}",
            "classifier.{p}",
        ),
    ),
    Layout(
        "corenet",
        _rules(
            ("embeddings.weight", "embeddings.byte_embeddings.weight"),
            ("token_reduction_net.weight", "embeddings.token_reduction.weight"),
            ("pos_embed.pos_embed.pos_embed", "embeddings.position_embeddings"),
            ("transformer.{i}.pre_norm_mha.0.{p}", _LAYER + "layer_norm1.{p}"),
            ("transformer.{i}.pre_norm_mha.1.qkv_proj.{p}", _LAYER + "self_attn.qkv_proj.{p}"),
            ("transformer.{i}.pre_norm_mha.1.out_proj.{p}", _LAYER + "self_attn.out_proj.{p}"),
            ("transformer.{i}.pre_norm_ffn.0.{p}", _LAYER + "layer_norm2.{p}"),
            ("transformer.{i}.pre_norm_ffn.1.{p}", _LAYER + "mlp.fc1.{p}"),
            ("transformer.{i}.pre_norm_ffn.4.{p}", _LAYER + "mlp.fc2.{p}"),
            ("downsamplers.downsample_{i}.reduction.weight", _LAYER + "downsample.reduction.weight"),
            ("downsamplers.downsample_{i}.norm.{p}", _LAYER + "downsample.norm.{p}"),
            ("post_transformer_norm.{p}", "layernorm.{p}"),
            ("classifier.{p}", "classifier.{p}"),
        ),
    ),
)

LAYOUTS: Mapping[str, Tuple[Layout, ...]] = {"llavavit": LLAVA_VIT_LAYOUTS, "byteformer": BYTEFORMER_LAYOUTS}


@dataclass(frozen=True)
class Part:
    """Where a Hub tensor comes from: the `index`-th of `count` equal blocks on dimension 0 of the source tensor."""

    source: str
    index: int = 0
    count: int = 1

    def shape(self, source_shape: Sequence[int]) -> Tuple[int, ...]:
        if self.count == 1:
            return tuple(source_shape)
        if not source_shape or source_shape[0] % self.count:
            raise UserError(f"{self.source} has shape {tuple(source_shape)}, which is not {self.count} tensors stacked on dimension 0")
        return (source_shape[0] // self.count, *source_shape[1:])

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.count == 1 else tensor.chunk(self.count)[self.index]


def recognise(package: str, names: Iterable[str]) -> Layout:
    """The layout of `package` that explains most of `names`."""
    names = [_without_prefix(package, name) for name in names]
    scores = [(sum(layout.match(name) is not None for name in names), layout) for layout in LAYOUTS[package]]
    best = max(score for score, _ in scores)
    if not best:
        known = ", ".join(layout.name for _, layout in scores)
        raise UserError(f"no layout of {package} fits keys such as {some(names, 3)}; known layouts: {known}")
    return next(layout for score, layout in scores if score == best)


def to_hub_layout(package: str, names: Iterable[str], expected: Iterable[str]) -> Tuple[Layout, Dict[str, Part]]:
    """Maps the keys of a checkpoint to the Hub layout.

    Args:
        package: "llavavit" or "byteformer".
        names: keys of the checkpoint, as `Checkpoint.names()` gives them.
        expected: keys of the model to be filled, with or without the base model's prefix.

    Returns:
        The layout recognised, and for every expected key the part of the checkpoint that fills it, in key order.

    Raises:
        UserError: missing, unexpected or doubly filled keys, all named.
    """
    names, expected = list(names), set(expected)
    layout = recognise(package, names)
    parts: Dict[str, Part] = {}
    unexpected: List[str] = []
    for name in names:
        filled = _targets_of(layout, package, name, expected)
        if filled is None:
            unexpected.append(name)
            continue
        for target, part in filled:
            if target in parts:
                raise UserError(f"{name} and {parts[target].source} both fill {target}")
            parts[target] = part
    missing = sorted(expected - set(parts))
    problems = [f"missing {some(missing)}"] if missing else []
    problems += [f"unexpected {some(unexpected)}"] if unexpected else []
    if problems:
        raise UserError(f"the checkpoint ({layout.name} layout) does not fit the configuration: {'; '.join(problems)}")
    return layout, {target: parts[target] for target in sorted(parts)}


def _targets_of(layout: Layout, package: str, name: str, expected: set) -> Optional[List[Tuple[str, Part]]]:
    """The Hub keys that `name` fills: none where it is dropped, None where it is not expected."""
    bare = _without_prefix(package, name)
    if layout.drops(bare):
        return []
    match = layout.match(bare)
    if match is None:
        return None
    rule, groups = match
    targets = [_fill(target, groups) for target in rule.targets]
    resolved = [target if target in expected else PACKAGES[package].base_prefix + target for target in targets]
    if any(target not in expected for target in resolved):
        return None
    return [(target, Part(name, index, len(resolved))) for index, target in enumerate(resolved)]


def _without_prefix(package: str, name: str) -> str:
    prefix = PACKAGES[package].base_prefix
    return name[len(prefix) :] if name.startswith(prefix) else name


def from_hub_layout(package: str, layout_name: str, names: Iterable[str]) -> Dict[str, Tuple[str, ...]]:
    """The way back: for every key of the foreign layout, the Hub keys whose tensors are stacked to make it.

    Raises:
        UserError: an unknown layout, or Hub keys that the layout has no place for.
    """
    layouts = {layout.name: layout for layout in LAYOUTS[package]}
    if layout_name not in layouts:
        raise UserError(f"{package} has no layout {layout_name!r}; known: {', '.join(layouts)}")
    bare = {_without_prefix(package, name): name for name in names}
    result: Dict[str, Tuple[str, ...]] = {}
    for name in bare:
        for rule in layouts[layout_name].rules:
            found = _pattern(rule.targets[0]).fullmatch(name)
            if found and _fill(rule.source, found.groupdict()) not in result:
                hub = [_fill(target, found.groupdict()) for target in rule.targets]
                if all(target in bare for target in hub):
                    result[_fill(rule.source, found.groupdict())] = tuple(bare[target] for target in hub)
                break
    left = sorted(set(bare.values()) - {hub for sources in result.values() for hub in sources})
    if left:
        raise UserError(f"the {layout_name} layout has no place for {some(left)}")
    return result


def stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Undoes the split of a packed projection."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
