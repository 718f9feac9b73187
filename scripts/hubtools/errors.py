"""One way to report bad input from a script: one line on stderr and exit code 2."""

import argparse
import contextlib
import reprlib
import signal
import sys
from typing import Callable, Iterable, Iterator, Optional, Sequence

from safetensors import SafetensorError

# What libraries raise when the system refuses them something; RuntimeErrors are most often something else.
SYSTEM_ERRORS = (OSError, SafetensorError, RuntimeError)


MAX_MESSAGE = 500  # characters


def plain(text: object, limit: int = MAX_MESSAGE) -> str:
    """Text of any origin as one line for a terminal: control, bidirectional and other unseen characters are spelled out.

    Args:
        text: what to show.
        limit: characters; what is longer is cut in its middle, so that both its beginning and its end are seen.
    """
    words = " ".join(str(text)[: 20 * limit].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in words)
    if len(line) <= limit:
        return line
    end = limit // 3
    return f"{line[: limit - end - 5]} ... {line[len(line) - end :]}"


def shown(value: object, limit: int = 80) -> str:
    """A value for a message: Python's way to write it, a strings's and a container's beginning only."""
    short = reprlib.Repr()
    short.maxlevel, short.maxdict, short.maxlist, short.maxtuple, short.maxstring, short.maxother, short.maxlong = (
        2,
        3,
        4,
        4,
        limit,
        limit,
        40,
    )
    try:
        return plain(value if isinstance(value, str) and limit > 80 else short.repr(value), limit)
    except ValueError:  # a number of more digits than Python writes
        return f"a very large {type(value).__name__}"


class UserError(Exception):
    """Bad input. The message is the one line that the user reads: what was wrong, the value seen, what is accepted."""

    exit_code = 2


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors, and which knows `--debug`."""

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**kwargs)
        self.add_argument("--debug", action="store_true", help="show the stack trace of an error")

    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


def run_script(main: Callable[[Optional[Sequence[str]]], int], argv: Optional[Sequence[str]] = None) -> None:
    """Runs `main(argv)` and leaves the process with its exit code.

    UserError and errors of the system become one line on stderr and exit code 2; `--debug` among the arguments keeps the stack trace.
    SIGTERM unwinds like an exception, so that what a script builds aside is cleared away.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter shows its number
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = main(argv)
    except (UserError, *SYSTEM_ERRORS) as error:
        message = str(error) if isinstance(error, UserError) else system_error(error)
        if message is None or "--debug" in argv:
            raise
        print(plain(f"error: {message}"), file=sys.stderr)
        code = getattr(error, "exit_code", 2)
    except MemoryError:
        if "--debug" in argv:
            raise
        print("error: the memory of this machine does not suffice", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def system_error(error: Exception) -> Optional[str]:
    """What the system refused, such as to fill a full disk, where that is what an exception is about; None otherwise."""
    if isinstance(error, (OSError, SafetensorError)):
        return str(error)
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # Path.resolve, before Python 3.13
        return str(error)
    if isinstance(error, RuntimeError) and "inline_container" in str(
        error
    ):  # torch.save's writer, which hides the reason at times
        return (
            str(error.__context__)
            if isinstance(error.__context__, OSError)
            else "a file could not be written to its end"
        )
    return None


@contextlib.contextmanager
def system_errors_told(before: str, after: str = "") -> Iterator[None]:
    """What the system refuses inside the block becomes the UserError "before: what it was; after"."""
    try:
        yield
    except SYSTEM_ERRORS as error:
        refused = system_error(error)
        if refused is None:
            raise
        raise UserError(f"{before}: {refused}{after and '; '}{after}") from error


def some(names: Iterable[str], limit: int = 5) -> str:
    """'a, b, c and 7 more': names for a one-line message."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
