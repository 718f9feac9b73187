"""Where the weights of a folder come from: decided once, from a script's arguments, and handed on whole. Imports no
torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from ..errors import ArgumentParser, UserError


@dataclass(frozen=True)
class Origin:
    """A checkpoint, or (None) fresh weights.

    Attributes:
        checkpoint: what `open_checkpoint` takes.
        key: which of a pickled file's state dicts.
        prefix: of the names of the tensors to take.
        seed: of fresh weights.
    """

    checkpoint: Optional[Path] = None
    key: Optional[str] = None
    prefix: Optional[str] = None
    seed: int = 0

    @classmethod
    def of(cls, weights: Union["Origin", Path, str, None]) -> "Origin":
        """The origin itself, or that of a checkpoint by its path."""
        return weights if isinstance(weights, Origin) else cls(None if weights is None else Path(weights))

    def __str__(self) -> str:
        if self.checkpoint is None:
            return f"random weights, seed {self.seed}"
        return f"{self.checkpoint}{f' ({self.key})' if self.key else ''}"


def add_checkpoint_arguments(parser: ArgumentParser, what: str) -> None:
    """--checkpoint, described as `what`, and the two that choose a part of it."""
    parser.add_argument("--checkpoint", type=Path, metavar="FILE|FOLDER", help=what)
    parser.add_argument(
        "--key", metavar="K", help="which state dict of a pickled checkpoint that holds several, such as model_ema"
    )
    parser.add_argument(
        "--prefix",
        metavar="P",
        help="take the tensors whose names begin with P, such as model.visual. (default: all; usual prefixes "
        "are known)",
    )


def origin_from(arguments, seed: int = 0) -> Origin:
    """What `add_checkpoint_arguments` made of a command line."""
    for name in ("key", "prefix"):
        if getattr(arguments, name) is not None and arguments.checkpoint is None:
            raise UserError(f"--{name} {getattr(arguments, name)} chooses a part of --checkpoint, which is not given")
    return Origin(arguments.checkpoint, arguments.key, arguments.prefix, seed)
