"""How many parameters a configuration describes, told by arithmetic before anything is built."""

from types import SimpleNamespace
from typing import Any, Mapping

from ..errors import UserError
from ..packages import Package
from .schema import arguments_of

MAX_PARAMETERS = 100 * 10**9


def parameters_of(package: str, config: Any) -> int:
    """The number of parameters, to within the few that single vectors have."""
    return _PACKAGES[package](config) + (config.hidden_size + 1) * config.num_labels


def described_by(package: Package, content: Mapping[str, Any]) -> int:
    """The number of parameters that a checked config.json describes, without its class being imported; a lower bound."""
    defaults = arguments_of(package.folder / f"{package.configuration}.py", package.config_class)
    values = {**defaults, "num_labels": 0, **{key: value for key, value in content.items() if value is not None}}
    values["downsample"] = values.get("downsample") or []
    return parameters_of(package.name, SimpleNamespace(**values))


def _blocks(config: Any) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * width**2 + 2 * width * inner + inner + 9 * width)


def _llava_vit(config: Any) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    head = 4 * width**2 + 2 * width * inner if config.use_head else 0
    return _blocks(config) + head + width * config.num_channels * config.patch_size**2


def _byteformer(config: Any) -> int:
    width = config.hidden_size
    merging = sum(map(bool, config.downsample)) * 2 * width**2
    tables = width * (config.vocab_size + config.max_position_embeddings + width * config.conv_kernel_size)
    return _blocks(config) + merging + tables


_PACKAGES = {"llavavit": _llava_vit, "byteformer": _byteformer}


def check_parameters(package: str, config: Any, where: str) -> None:
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
