"""Foreign text in a model card: escaped where it becomes Markdown, and proof afterwards that it added nothing."""

import ast
import re
from typing import Any, Iterator, List, Mapping, Tuple

import yaml

from ..errors import UserError, plain

MARKUP = re.compile(r"([\\`*\[\]<>|&~$])")
BLOCK_START = re.compile(r"\A([#+=_-]|[0-9]+[.)])")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def markdown(text: object) -> str:
    """Text of any origin as one line of Markdown that shows it and does nothing else."""
    escaped = MARKUP.sub(r"\\\1", plain(text, 1000))
    return BLOCK_START.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def slug(text: str) -> str:
    """Text as the name of a repository: what stands in a string of a snippet needs no escaping then."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:96] or "model"


def check_card(card: str, metadata: Mapping[str, Any], model: str) -> None:
    """Reads a finished card back: what it states is `metadata`, and its code is that of `model`, a card with harmless text.

    Raises:
        UserError: text from a recipe or a folder has changed what the card states or what its snippets do.
    """
    front, body = _parts(card)
    if yaml.safe_load(front) != dict(metadata):
        raise UserError(
            "the card's metadata does not read back as it was written; look at license, tags and names in [card]"
        )
    found, expected = list(_outline(body)), list(_outline(_parts(model)[1]))
    if found != expected:
        raise UserError(
            "text in [card] or the model's name changes the code of the card's snippets; accepted: plain text"
        )


def _parts(card: str) -> Tuple[str, str]:
    _, front, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    return front, body


def _outline(body: str) -> Iterator[List[str]]:
    """For each block of code its language and, of Python, what it does; strings and numbers in it are left out."""
    for language, code in FENCE.findall(body):
        tree = ast.parse(code) if language == "python" else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                node.value = type(node.value).__name__
        yield [language, ast.dump(tree)]
