"""One virtual environment per transformers release, all of them sharing the torch that runs this script.

Torch is by far the largest package and the one whose build a user chose (CPU, CUDA, ...), so it is never installed again: a `.pth` file in
each environment names one folder of links to torch and what torch needs. pip sees the linked metadata too and leaves them alone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from ..errors import UserError
from ..staging import replace_text

FLOOR = (4, 46)
LINKED = (
    "torch",
    "numpy",
    "pillow",
    "pytest",
    "psutil",
    "av",
)  # with everything that these require; of them, what is installed
EXTRA = ("accelerate",)  # device_map and low_cpu_mem_usage need it on every release
MARKER = "release.json"


class InstallError(UserError):
    """A release that this Python cannot install; the message is pip's own reason."""


@dataclass(frozen=True)
class Environment:
    """A ready environment: its interpreter and what is installed in it."""

    python: Path
    packages: Dict[str, str]


def parse_version(text: str) -> Tuple[int, ...]:
    """ "4.46.3" -> (4, 46, 3).

    Raises:
        UserError: for anything but numbers between dots.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise UserError(f"{text!r} is not a transformers release; expected numbers such as 4.46.3")
    return tuple(int(part) for part in text.split("."))


def minor(version: str) -> str:
    return ".".join(str(part) for part in parse_version(version)[:2])


def last_patches(versions: Iterable[str], floor: Tuple[int, int] = FLOOR) -> List[str]:
    """The last patch release of every minor from `floor` on, oldest first. Pre-releases are left out."""
    last: Dict[str, str] = {}
    for version in sorted((v for v in versions if re.fullmatch(r"\d+(\.\d+)+", v)), key=parse_version):
        if parse_version(version)[:2] >= floor:
            last[minor(version)] = version
    return list(last.values())


def representative(versions: Sequence[str]) -> List[str]:
    """The four that stand for all: the floor, the last 4.x, the first 5.x, the newest."""
    ordered = sorted(versions, key=parse_version)
    fours = [version for version in ordered if parse_version(version)[0] == 4]
    fives = [version for version in ordered if parse_version(version)[0] == 5]
    return list(dict.fromkeys([ordered[0], *fours[-1:], *fives[:1], ordered[-1]]))


def published_releases() -> List[str]:
    """The last patch of every minor on the registry that pip is configured for.

    Raises:
        InstallError: where pip cannot reach it.
    """
    output = _pip(["index", "versions", "transformers"])
    listed = re.search(r"^Available versions: (.+)$", output, re.MULTILINE)
    if listed is None:
        raise InstallError(f"pip index answered without a list of versions: {output.strip()[:200]}")
    return last_patches(listed.group(1).split(", "))


def build_environment(version: str, folder: Path) -> Environment:
    """Returns the environment of one release under `folder`, building it where it is missing or was left half-built.

    Args:
        version: the release, such as "4.46.3".
        folder: where the environments live; `folder/tf-VERSION` is this one.

    Raises:
        InstallError: the release cannot be installed on this Python or from this registry.
    """
    parse_version(version)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"tf-{version}"
    from filelock import FileLock  # a requirement of torch: always there, but not before the environment is set up

    with FileLock(str(folder / f"tf-{version}.lock")):
        ready = _read_marker(target, version)
        if ready is not None:
            return ready
        shutil.rmtree(target, ignore_errors=True)
        _create(target, _link_shared(folder))
        constraints = target / "constraints.txt"
        constraints.write_text(f"torch=={metadata.version('torch')}\n", encoding="utf-8")
        python = _python_of(target)
        _pip(
            [
                "--python",
                str(python),
                "install",
                "--quiet",
                "--no-compile",
                "-c",
                str(constraints),
                f"transformers=={version}",
                *EXTRA,
            ]
        )
        packages = _installed(python)
        if packages.get("transformers") != version:
            raise InstallError(
                f"pip installed transformers {packages.get('transformers')} where {version} was asked for"
            )
        replace_text(target / MARKER, json.dumps({"shared": metadata.version("torch"), "packages": packages}, indent=1))
        return Environment(python, packages)


def _read_marker(target: Path, version: str) -> Optional[Environment]:
    marker, python = target / MARKER, _python_of(target)
    if not (marker.is_file() and python.exists()):
        return None
    content = json.loads(marker.read_text(encoding="utf-8"))
    if content["packages"].get("transformers") != version or content["shared"] != metadata.version("torch"):
        return None
    return Environment(python, content["packages"])


def _python_of(target: Path) -> Path:
    return target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _create(target: Path, shared: Path) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(target)
    site_packages = next(target.glob("[Ll]ib/**/site-packages"))
    # Named last in sys.path: what pip installs in the environment wins over what is linked.
    (site_packages / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")


def _link_shared(folder: Path) -> Path:
    """A folder of links to LINKED and their requirements as installed here; made anew when torch's build changes."""
    shared = folder / f"shared-torch-{metadata.version('torch')}-py{sys.version_info[0]}{sys.version_info[1]}"
    from filelock import FileLock

    with FileLock(str(shared) + ".lock"):
        shared.mkdir(exist_ok=True)
        wanted: Dict[str, Path] = {}
        for source in _top_levels(_closure(LINKED)):
            wanted[source.name] = source
        for link in filter(Path.is_symlink, shared.iterdir()):  # what is compiled of linked modules lies beside them
            if wanted.get(link.name) != Path(os.readlink(link)):  # upgraded or moved since
                link.unlink()
        for name, source in wanted.items():
            if not (shared / name).is_symlink():
                (shared / name).symlink_to(source, target_is_directory=source.is_dir())
    return shared


def _closure(names: Sequence[str]) -> List[metadata.Distribution]:
    """The installed distributions that `names` need, extras left out; a requirement that is not installed does not apply here."""
    found: Dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for requirement in found[name].requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.match(r"[\w.-]+", requirement).group())
    if "torch" not in found:
        raise UserError(
            f"torch is not installed for {sys.executable}; run this with the environment whose torch is to be shared"
        )
    return list(found.values())


def _top_levels(distributions: Iterable[metadata.Distribution]) -> List[Path]:
    tops = set()
    for distribution in distributions:
        root = Path(str(distribution.locate_file("")))
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith(".pth"):
                tops.add(root / top)
    return sorted(path for path in tops if path.exists())


def _installed(python: Path) -> Dict[str, str]:
    names = ("transformers", "huggingface_hub", "tokenizers", "safetensors", "accelerate", "numpy", "torch")
    code = (
        f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {names!r}}}))"
    )
    return json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout)


def _pip(arguments: Sequence[str]) -> str:
    """Runs this environment's pip (23 knows `--python`, so that the releases' environments need no pip of their own)."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"})
    if done.returncode != 0:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise InstallError(" ".join(reasons[-3:]).strip() or f"pip ended with {done.returncode}")
    return done.stdout
