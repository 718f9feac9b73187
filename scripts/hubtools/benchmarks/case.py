"""What a benchmark case is. A model's cases stand in a file of their own; `registry.py` lists them all."""

from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Tuple

import torch

Inputs = Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Load:
    """Inputs of another size, and how many units of work they are."""

    name: str
    make_inputs: Callable[[torch.Generator], Inputs]
    units: int


@dataclass(frozen=True)
class Case:
    """One named measurement: a package's model and a reference, with equal weights and equal inputs, in float32.

    Args:
        name: What `--case` asks for.
        package: Name in `packages.PACKAGES`.
        architecture: Class of the package.
        config: Keyword arguments of its configuration class; as a dictionary, the reference's argument.
        make_inputs: Makes the keyword arguments of the model's forward, from a seeded generator.
        reference: Default reference, FILE.py:NAME relative to the repository.
        output: Key of the outputs, a named tuple or dictionary, whose largest difference is reported.
        loads: Inputs over which the time per unit of work should stay the same.
        unit: What `Load.units` counts.
    """

    name: str
    package: str
    architecture: str
    config: Mapping[str, object]
    make_inputs: Callable[[torch.Generator], Inputs]
    reference: str
    output: str
    loads: Tuple[Load, ...] = ()
    unit: str = ""
