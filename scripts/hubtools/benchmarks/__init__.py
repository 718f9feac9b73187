"""Benchmark cases as data, and how their time and memory are measured. Naming a case takes no torch."""

from typing import Dict

from ..errors import UserError
from ..facts import Case
from ..packages import PACKAGES

CASES: Dict[str, Case] = {case.name: case for package in PACKAGES.values() for case in package.cases}
# Cases that are no model beside a reference: modules of this folder with `measure` and `describe`.
OWN_CASES = ("video-file", "video-recall", "video-digits", "export")


def case_named(name: str) -> Case:
    if name not in CASES:
        raise UserError(f"unknown case {name!r}; known: {', '.join((*CASES, *OWN_CASES))}")
    return CASES[name]
