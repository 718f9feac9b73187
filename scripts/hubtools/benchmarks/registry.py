"""All benchmark cases by name."""

from typing import Dict

from ..errors import UserError
from . import byteformer_cases, llava_vit_cases
from .case import Case

CASES: Dict[str, Case] = {case.name: case for module in (llava_vit_cases, byteformer_cases) for case in module.CASES}


def case_named(name: str) -> Case:
    if name not in CASES:
        raise UserError(f"unknown case {name!r}; known: {', '.join(CASES)}")
    return CASES[name]
