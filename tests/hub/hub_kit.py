"""What the tests of upload and download share: a folder of files, and the scripts as processes against a Hub of the test's own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional

from hub_clients import COLD, INSTALLED, client_env
from local_hub import LocalHub

TESTS = Path(__file__).resolve().parent
SCRIPTS = TESTS.parents[1] / "scripts"
READ_ON_IMPORT = ("PYTHONPATH", "HF_DEBUG")  # which release of the client it is, and what it logs
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"
CONFIG = {
    "architectures": ["TinyModel"],
    "auto_map": {"AutoModel": "modeling_tiny.TinyModel", "AutoModelForImageClassification": "modeling_tiny.TinyHead"},
}


def make_folder(folder: Path, weights: bytes = b"") -> Path:
    """Files as a model's folder has them. They need not be a model: the transfer does not look into them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "README.md").write_text(CARD)
    (folder / "modeling_tiny.py").write_text("# code\n")
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights or os.urandom(300_000))
    return folder


def names_and_bytes(folder: Path) -> Dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@dataclass
class Ran:
    """How a process ended. `lines` are those of its stderr."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def run_python(script: Path, *arguments: str, env: Dict[str, str], timeout: int = 300) -> Ran:
    python = COLD if any(name in env for name in READ_ON_IMPORT) else sys.executable
    command = [python, str(script), *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=str(env.get("HF_HOME", ".")),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def run_upload(
    hub: LocalHub,
    *arguments: str,
    token: Optional[str] = None,
    client: str = INSTALLED,
    verified: bool = False,
    **more: str,
) -> Ran:
    """upload.py as a process, by default without its verification, which has tests of its own."""
    script = SCRIPTS / "upload.py" if verified else TESTS / "upload_unverified.py"
    return run_python(script, *arguments, env=hub.env(token, **client_env(client), **more))


FETCH = """
import sys
sys.path.insert(0, {scripts!r})
from hubtools.errors import run_script
from hubtools.hub.download import fetch_verified
from hubtools.hub.secrets import take_token
run_script(lambda argv: print(fetch_verified(argv[0], *argv[1:2], token=take_token())) or 0)
"""


def run_fetch(hub: LocalHub, *arguments: str, token: Optional[str] = None, client: str = INSTALLED, **more: str) -> Ran:
    """The part of verify.py that comes before the checks: fetch REPO_ID [REVISION] and compare hashes."""
    script = Path(hub.env()["HF_HOME"]) / "fetch.py"
    script.write_text(FETCH.format(scripts=str(SCRIPTS)))
    return run_python(script, *arguments, env=hub.env(token, **client_env(client), **more))


def holds(hub: LocalHub, repo_id: str, folder: Path, revision: str = "main") -> bool:
    """Whether the repository's files are the folder's, byte for byte (and the .gitattributes that every repository has)."""
    remote = {
        path: hub.content(repo_id, path, revision)
        for path in hub.repo(repo_id).tree(revision)
        if path != ".gitattributes"
    }
    return remote == names_and_bytes(folder)
