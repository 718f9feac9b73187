"""Runs a command as a person does: in a terminal of 120 columns, where progress bars are drawn and colours are asked
for."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path
from typing import List, Mapping, NamedTuple, Sequence

COLUMNS, ROWS = 120, 40
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shown(NamedTuple):
    """How a command ended, and all that it wrote to the terminal, without colours."""

    code: int
    text: str

    @property
    def redrawn(self) -> List[str]:
        """Every state of a line that was drawn over by another, such as a progress bar's."""
        drawn = [line.split("\r") for line in self.text.split("\n")]
        return [state for states in drawn for state in states[:-1] if state.strip()]


def run_in_terminal(command: Sequence[object], cwd: Path, env: Mapping[str, str]) -> Shown:
    """Runs `command` to its end with stdin, stdout and stderr being one terminal."""
    person, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    own = {key: value for key, value in env.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**own, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    written = b"".join(iter(lambda: read_until_closed(person), b""))
    os.close(person)
    text = ESCAPES.sub("", written.decode("utf-8", "replace")).replace("\r\n", "\n")
    return Shown(process.wait(), text)


def read_until_closed(person: int) -> bytes:
    try:
        return os.read(person, 1 << 16)
    except OSError:  # Linux's way to say that nobody has the terminal open any more
        return b""
