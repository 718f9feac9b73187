"""The way from each layout in which users hold a model to the Hub layout, and back. The layouts themselves are facts
of the models."""

from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import torch

from ..errors import UserError, some
from ..facts import Layout, Package, fill
from ..packages import PACKAGES, package_named
from .checkpoint import Checkpoint


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
            raise UserError(
                f"{self.source} has shape {tuple(source_shape)}, which is not {self.count} tensors stacked on "
                "dimension 0"
            )
        return (source_shape[0] // self.count, *source_shape[1:])

    def read(self, checkpoint: Checkpoint) -> torch.Tensor:
        """The part from disk; of the rest of its source nothing is read."""
        return checkpoint.tensor(self.source, self.index, self.count)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.count == 1 else tensor.chunk(self.count)[self.index]


def recognise(package: str, names: Iterable[str]) -> Layout:
    """The layout of `package` that explains most of `names`."""
    model = package_named(package)
    names = [model.without_prefix(name) for name in names]
    scores = [(sum(layout.match(name) is not None for name in names), layout) for layout in model.layouts]
    best = max(score for score, _ in scores)
    if not best:
        known = ", ".join(layout.name for _, layout in scores)
        others = [
            other.name
            for other in PACKAGES.values()
            if any(layout.match(other.without_prefix(name)) for layout in other.layouts for name in names)
        ]
        hint = f"; they look like {' or '.join(others)}" if others else ""
        raise UserError(f"no layout of {package} fits keys such as {some(names, 3)}; known layouts: {known}{hint}")
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
    model, layout = package_named(package), recognise(package, names)
    parts: Dict[str, Part] = {}
    unexpected: List[str] = []
    for name in names:
        filled = _targets_of(layout, model, name, expected)
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


def _targets_of(layout: Layout, model: Package, name: str, expected: set) -> Optional[List[Tuple[str, Part]]]:
    """The Hub keys that `name` fills: none where it is dropped, None where it is not expected."""
    parts = parts_of(layout, model, name)
    if parts is None:
        return [] if layout.drops(model.without_prefix(name)) else None
    if layout.may_leave(name) and not any(layout.may_leave(target) for target in expected):
        return []
    resolved = [target if target in expected else model.base_prefix + target for target, _ in parts]
    if any(target not in expected for target in resolved):
        return None
    return list(zip(resolved, (part for _, part in parts)))


def parts_of(layout: Layout, model: Package, name: str) -> Optional[List[Tuple[str, Part]]]:
    """The Hub keys, without the base model's prefix, that a key of `layout` has the tensors of; None for a key that
    is not of it."""
    match = layout.match(model.without_prefix(name))
    if match is None:
        return None
    rule, groups = match
    return [(fill(target, groups), Part(name, index, len(rule.targets))) for index, target in enumerate(rule.targets)]


def hub_shapes(layout: Layout, model: Package, shapes: Mapping[str, Sequence[int]]) -> Dict[str, Tuple[int, ...]]:
    """Shapes in `layout` as shapes in the Hub layout, without the base model's prefix; keys that are not of the
    layout are left out."""
    return {
        target: part.shape(shape)
        for name, shape in shapes.items()
        for target, part in parts_of(layout, model, name) or ()
    }


def from_hub_layout(package: str, layout_name: str, names: Iterable[str]) -> Dict[str, Tuple[str, ...]]:
    """The way back: for every key of the foreign layout, the Hub keys whose tensors are stacked to make it.

    Raises:
        UserError: an unknown layout, or Hub keys that the layout has no place for.
    """
    model = package_named(package)
    layout = model.layout(layout_name)
    bare = {model.without_prefix(name): name for name in names}
    result: Dict[str, Tuple[str, ...]] = {}
    for name in bare:
        rule, groups = layout.match_target(name) or (None, {})
        hub = [fill(target, groups) for target in rule.targets] if rule else []
        if hub and all(target in bare for target in hub):
            result[fill(rule.source, groups)] = tuple(bare[target] for target in hub)
    left = sorted(set(bare.values()) - {hub for sources in result.values() for hub in sources})
    if left:
        raise UserError(f"the {layout_name} layout has no place for {some(left)}")
    return result


def stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Undoes the split of a packed projection."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
