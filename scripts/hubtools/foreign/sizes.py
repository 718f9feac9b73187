"""How many parameters a configuration describes, told by arithmetic before anything is built."""

from types import SimpleNamespace
from typing import Any, Mapping

from ..errors import UserError
from ..packages import Package
from .schema import arguments_of

MAX_PARAMETERS = 100 * 10**9


def parameters_of(package: Package, config: Any) -> int:
    """The number of parameters, to within the few that single vectors have."""
    return package.parameters(config) + (config.hidden_size + 1) * config.num_labels


def described_by(package: Package, content: Mapping[str, Any]) -> int:
    """The number of parameters that a checked config.json describes, without its class being imported; a lower bound."""
    defaults = arguments_of(package.folder / f"{package.configuration}.py", package.config_class)
    values = {**defaults, "num_labels": 0, **{key: value for key, value in content.items() if value is not None}}
    return parameters_of(package, SimpleNamespace(**values))


def check_parameters(package: Package, config: Any, where: str) -> None:
    """Refuses a model that nobody means to build on one machine.

    Raises:
        UserError: more than MAX_PARAMETERS.
    """
    count = parameters_of(package, config)
    if count > MAX_PARAMETERS:
        raise UserError(
            f"{where} describes a model of {count / 1e9:,.0f} billion parameters (hidden_size {config.hidden_size}, num_hidden_layers "
            f"{config.num_hidden_layers}); accepted: up to {MAX_PARAMETERS / 1e9:.0f} billion, or any number with --allow-large"
        )
