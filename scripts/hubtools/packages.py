"""The models that the tools serve, by package name. What is known of each stands in its file of `models/`."""

import importlib
import pkgutil
from typing import Dict, Optional, Tuple

from . import models
from .errors import UserError
from .facts import ROOT, Host, Package

__all__ = ["PACKAGES", "ROOT", "Package", "host_of_type", "package_named", "package_of_type"]


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


def host_of_type(model_type: object) -> Tuple[Optional[Package], Optional[Host]]:
    """The package that a bigger model has as a part, and where; None and None for any other `model_type`."""
    for package in PACKAGES.values():
        if isinstance(model_type, str) and model_type in package.hosts:
            return package, package.hosts[model_type]
    return None, None


def package_of_type(model_type: object, with_aliases: bool = False) -> Optional[Package]:
    """The package of a `model_type`, or of a foreign one that it takes as its own; None where there is none."""
    for package in PACKAGES.values():
        if model_type == package.model_type or with_aliases and model_type in package.aliases:
            return package
    return None
