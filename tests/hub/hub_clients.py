"""Other releases of huggingface_hub than the installed one, a folder each, which PYTHONPATH puts before the environment's own.

`pytest` runs the tests of the transfer with the installed release and the oldest supported one; HUB_CLIENTS names others:

    HUB_CLIENTS="0.27.1 0.36.2 1.0.1 1.33.0 2.4.0" python -m pytest tests -k hub
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

from filelock import FileLock

INSTALLED = "installed"
FLOOR = "0.27.1"
COLD = sys.executable  # has not imported anything yet
FOLDER = Path(__file__).resolve().parents[2] / ".venvs"


def clients() -> List[str]:
    return os.environ.get("HUB_CLIENTS", f"{INSTALLED} {FLOOR}").split()


def client_env(version: str) -> Dict[str, str]:
    """What to add to a process's environment so that it imports that release; installs it where it is missing."""
    return {} if version == INSTALLED else {"PYTHONPATH": str(install(version))}


def install(version: str) -> Path:
    target = FOLDER / f"hub-{version}"
    FOLDER.mkdir(exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not (target / "complete").exists():
            pip = [
                COLD,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--upgrade",
                "--target",
                str(target),
            ]
            done = subprocess.run([*pip, f"huggingface_hub=={version}"], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"huggingface_hub {version} cannot be installed: {done.stderr}")
            (target / "complete").touch()
    return target
