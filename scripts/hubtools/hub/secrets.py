"""Keeps the access token out of everything that a script prints, whoever prints it.

A Hub may echo the token in an error, a client may log it, a stack trace may hold it; the one place that all of them
pass is the stream. The scripts therefore hide the token at the stream and not at each message.
"""

import os
import sys
from typing import List, Optional

from ..errors import UserError

_hidden: List[str] = []
MASK = "<token>"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class HidingStream:
    """A text stream that writes `MASK` for every hidden text, and is the wrapped stream in all else."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        for secret in _hidden:
            text = text.replace(secret, MASK)
        return self._stream.write(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def hide(secret: str) -> None:
    """From now on, neither stdout nor stderr shows `secret`."""
    if secret and secret not in _hidden:
        _hidden.append(secret)
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), HidingStream):
            setattr(sys, name, HidingStream(getattr(sys, name)))


def take_token(argument: Optional[str] = None) -> Optional[str]:
    """The token of the argument, else of HF_TOKEN, else of the saved login; None where there is none.

    It is hidden, and leaves the environment: the checks run a model's code in processes that inherit the environment,
    and that code has no business with the token.

    Raises:
        UserError: If the token holds characters that no header can carry. The message does not show it.
    """
    found = [os.environ.pop(name, None) for name in TOKEN_VARIABLES]
    for secret in filter(None, [argument, *found]):
        hide(secret.strip())
    token = argument if argument is not None else next(filter(None, found), None)
    if token is None:
        # The import waits until here because a logger that huggingface_hub sets up keeps the stream that it found.
        from huggingface_hub import get_token

        token = get_token()
    if token is None:
        return None
    token = token.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise UserError(
            "the token is empty or holds spaces, line breaks or letters outside ASCII; accepted: a token as the Hub's "
            "settings page shows it"
        )
    hide(token)
    return token
