"""What a case takes: its two models, with equal weights, and its inputs."""

from pathlib import Path
from typing import Dict, Union

import torch
from torch import nn

from ..assembly.layouts import from_hub_layout, recognise, stack
from ..errors import UserError
from ..facts import Case, Load
from ..packages import ROOT, package_named
from ..verification.references import load_function, split_reference

OURS, REFERENCE = "model", "reference"
Inputs = Dict[str, torch.Tensor]


def reference_file(spec: str) -> str:
    """FILE.py:NAME with the full path of FILE.py, as it stands here or else in the repository; as given where it does
    not exist."""
    file, colon, name = spec.rpartition(":")
    for path in (Path(file), ROOT / file):
        if path.is_file():
            return f"{path.resolve()}{colon}{name}"
    return spec


def load_reference(spec: str):
    """The class or function NAME of FILE.py."""
    return load_function(*split_reference(reference_file(spec)))


def seeded_state(model: nn.Module) -> Dict[str, torch.Tensor]:
    """Weights that depend on the seed alone: 0.02 noise on what the initialisation gave, so that biases matter too."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value + 0.02 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }


def build(case: Case, which: str, reference: str) -> nn.Module:
    """The package's model or the reference, in eval mode. Both get the package model's weights."""
    package = package_named(case.package)
    module = package.load()
    torch.manual_seed(0)
    config = getattr(module, package.config_class)(**case.config)
    ours = getattr(module, case.architecture)(config).eval()
    state = seeded_state(ours)
    if which == OURS:
        ours.load_state_dict(state, strict=True)
        return ours
    other = load_reference(reference)(config.to_dict()).eval()
    layout = recognise(package.name, other.state_dict())
    keys = from_hub_layout(package.name, layout.name, state)
    try:
        other.load_state_dict({key: stack([state[name] for name in names]) for key, names in keys.items()}, strict=True)
    except RuntimeError as error:
        raise UserError(
            f"{reference} ({layout.name} layout) does not take the model's weights: {str(error)[:300]}"
        ) from error
    return other


def inputs_of(case: Union[Case, Load]) -> Inputs:
    return case.make_inputs(torch.Generator().manual_seed(1))
