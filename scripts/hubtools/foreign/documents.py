"""Reads YAML and TOML, whose readers take their time with hostile text: in a child process (see child.py)."""

import datetime
import io
import sys
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UserError
from .child import Refused, answer, read_in_child
from .files import MAX_TEXT_BYTES, open_regular, read_text, size_of

MAX_VALUES = 300_000
MAX_DEPTH = 32


def read_document(path: Path) -> Any:
    """The content of a .toml file, or else of a YAML file, in the terms of JSON.

    Raises:
        UserError: no such file, not readable, or more than a person writes: of text, of values, of nesting.
    """
    with open_regular(path) as file:
        if size_of(file) > MAX_TEXT_BYTES:
            raise UserError(f"{path} has {size_of(file):,} bytes; accepted: up to {MAX_TEXT_BYTES:,}")
        language = "TOML" if path.suffix == ".toml" else "YAML"
        return read_in_child("documents", file, path, f"{language} file", language)


def read_front_matter(path: Path) -> dict:
    """What a model card states between two lines of ---; empty where it states nothing.

    Raises:
        UserError: as `read_document`, or the front matter is no mapping.
    """
    lines = read_text(path).splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise UserError(f"{path} begins front matter that does not end; accepted: a second line of ---")
    with open_regular(path) as file:
        stated = read_in_child("documents", file, f"the front matter of {path}", "YAML file", "front matter")
    if not isinstance(stated, (dict, type(None))):
        raise UserError(f"the front matter of {path} is a {type(stated).__name__}; accepted: a mapping")
    return stated or {}


def front_matter(file: BinaryIO) -> Any:
    """Only what stands between the first two lines of ---: see `read_front_matter`, which has seen that there are two."""
    lines = decode(file, "Markdown").splitlines()
    end = next(i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---")
    return read_yaml(io.BytesIO("\n".join(lines[1:end]).encode("utf-8")))


def read_yaml(file: BinaryIO) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise Refused("is YAML, and reading that needs PyYAML: pip install pyyaml") from error
    text = decode(file, "YAML")
    try:
        return Plain().value(yaml.safe_load(text), 0)
    except yaml.YAMLError as error:
        raise Refused(f"is not YAML: {error}") from error
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        LookupError,
        AttributeError,
    ) as error:  # such as the date 2020-99-99
        raise Refused(f"is not readable YAML: {type(error).__name__}: {error}") from error


def read_toml(file: BinaryIO) -> Any:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib
    text = decode(file, "TOML")
    try:
        return Plain().value(tomllib.loads(text), 0)
    except (ValueError, OverflowError) as error:
        raise Refused(f"is not TOML: {error}") from error
    except RecursionError as error:
        raise Refused("is nested too deep") from error


def decode(file: BinaryIO, language: str) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(
            f"is not {language}, which is UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error


class Plain:
    """Values as JSON has them, each one counted wherever it appears: what anchors multiply is refused."""

    def __init__(self):
        self.count = 0

    def value(self, value: Any, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise Refused(
                f"holds {'more than ' + format(MAX_VALUES, ',') + ' values' if depth <= MAX_DEPTH else 'values nested too deep'}"
            )
        if isinstance(value, dict):
            return self.mapping(value, depth)
        if isinstance(value, (list, tuple)):
            return [self.value(inner, depth + 1) for inner in value]
        if isinstance(value, str):
            value.encode("utf-8")  # a lone surrogate is a ValueError
            return value
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, (datetime.date, datetime.time)):
            return str(value)
        raise Refused(f"holds a {type(value).__name__}; accepted: text, numbers, true, false, lists and tables")

    def mapping(self, value: dict, depth: int) -> dict:
        plain = {}
        for key, inner in value.items():
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise Refused(f"has a key that is a {type(key).__name__}; accepted: text")
            if str(key) in plain:
                raise Refused(f"has the key {str(key)[:80]!r} twice")
            plain[str(key)] = self.value(inner, depth + 1)
        return plain


def main() -> None:
    readers = {"YAML": read_yaml, "TOML": read_toml, "front matter": front_matter}
    answer(readers[sys.argv[1]])
