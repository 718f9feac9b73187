"""One way to report bad input from a script: one line on stderr and exit code 2."""

import sys
from typing import Callable, Optional, Sequence


class UserError(Exception):
    """Bad input. The message is the one line that the user reads: what was wrong, the value seen, what is accepted."""


def run_script(main: Callable[[Optional[Sequence[str]]], int], argv: Optional[Sequence[str]] = None) -> None:
    """Runs `main(argv)` and leaves the process with its exit code.

    UserError and OSError become one line on stderr and exit code 2; `--debug` among the arguments keeps the stack trace.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        code = main(argv)
    except (UserError, OSError) as error:
        if "--debug" in argv:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
