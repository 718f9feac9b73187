"""The models that the tools serve, by package name. What is known of each stands in its file of `models/`."""

import importlib
import pkgutil
from typing import Dict, Optional

from . import models
from .errors import UserError
from .facts import ROOT, Package

__all__ = ["PACKAGES", "ROOT", "Package", "package_named", "package_of_type"]


def known_packages() -> Dict[str, Package]:
    """The PACKAGE of every file in `models/`."""
    found = [
        importlib.import_module(f"{models.__name__}.{file.name}").PACKAGE
        for file in pkgutil.iter_modules(models.__path__)
    ]
    return {package.name: package for package in found}


PACKAGES = known_packages()


def package_named(name: str) -> Package:
    if name not in PACKAGES:
        raise UserError(f"unknown package {name!r}; known: {', '.join(PACKAGES)}")
    return PACKAGES[name]


def package_of_type(model_type: object, with_aliases: bool = False) -> Optional[Package]:
    """The package of a `model_type`, or of a foreign one that it takes as its own; None where there is none."""
    for package in PACKAGES.values():
        if model_type == package.model_type or with_aliases and model_type in package.aliases:
            return package
    return None
