"""A vision tower inside a language model's checkpoint: which tensors are its own, told by names alone."""

import re
from typing import Iterable, Optional

from ..errors import UserError, some

TOWER_PREFIXES = ("model.visual.", "visual.")
LANGUAGE_MODEL = re.compile(r"(model\.)?(language_model|embed_tokens|layers)\.|lm_head\.")


def tower_prefix(names: Iterable[str], where: object) -> Optional[str]:
    """What the tower's names begin with; None where the checkpoint is no language model's, nor a tower cut out of one.

    Raises:
        UserError: a language model without a tower.
    """
    names = list(names)
    has_language = any(LANGUAGE_MODEL.match(name) for name in names)
    for prefix in TOWER_PREFIXES:
        inside = sum(name.startswith(prefix) for name in names)
        if inside and (has_language or inside == len(names)):
            return prefix
    if has_language:
        prefixes = " or ".join(TOWER_PREFIXES)
        raise UserError(
            f"{where} holds a language model without a vision tower: no tensor's name begins with {prefixes}; "
            f"there are {some(names, 3)}"
        )
    return None


def parts_named(names: Iterable[str]) -> str:
    """'412 tensors of lm_head, model.language_model': what whole tensors' names begin with, for a one-line message."""
    names = list(names)
    parts = sorted({re.match(r"(model\.)?[^.]*", name).group() for name in names})
    return f"{len(names)} tensor{'s' * (len(names) > 1)} of {some(parts)}"
