"""A Python that begins with torch and transformers imported, for tests that start many processes: importing them takes
several seconds, most tests' own work a fraction of one.

`WarmPython` keeps a process that has imported them and nothing of this repository; the command `WarmPython.command`
takes an interpreter's arguments, hands them to a fork of that process, and ends as the fork ends. Environment, working
directory, search path, standard streams (a terminal too) and exit status are those of a process of its own, and what a
fork does is not seen by the next one. What is promised of an interpreter's start itself, or of its limits and signals,
is tested with `sys.executable`.
"""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


class WarmPython:
    """A context manager, at whose end the processes are gone. Elsewhere than on Linux it is the plain interpreter."""

    def __enter__(self) -> "WarmPython":
        self.command = sys.executable
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        if sys.platform != "linux":
            return self
        self.command = self._write_command(Path(self._folder.name))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{self._folder.name}/socket")
            listener.listen(64)
            server = [sys.executable, "-I", str(HERE / "server.py"), str(listener.fileno()), self.command]
            self._server = subprocess.Popen(server, pass_fds=[listener.fileno()], stdin=subprocess.PIPE)
        subprocess.run(
            [self.command, "-c", "pass"], check=True
        )  # ready, so that no deadline of a test counts the imports
        return self

    def _write_command(self, folder: Path) -> str:
        command = folder / "python"
        code = (HERE / "client.py").read_text(encoding="utf-8")
        command.write_text(f"#!{sys.executable} -IS\n{code}", encoding="utf-8")
        command.chmod(0o755)
        return str(command)

    def __exit__(self, *_) -> None:
        if self.command != sys.executable:
            self._server.stdin.close()  # which tells it to end
            self._server.wait()
        self._folder.cleanup()
