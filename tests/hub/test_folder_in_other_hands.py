"""A folder somewhere else: odd paths, read-only, linked, vendored, by revision, offline, and ten processes at once.

Every case is a process without this repository on its path. HUB_FOLDER_PYTHON names another interpreter to run them with.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hubtools.assembly.build import build_folder
from hubtools.assembly.origin import Origin
from hubtools.assembly.recipes import load_recipe
from hubtools.packages import PACKAGES
from local_hub import LocalHub
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, write_recipe

pytestmark = pytest.mark.usefixtures("warm_python")

TOMLS = {"llavavit": LLAVA_VIT_TOML, "byteformer": BYTEFORMER_TOML}
ODD_NAMES = [
    "with space",
    "dots.v1.5",
    "ends.py",
    "模型-ñ-модель",
    "5-first-a-digit",
    "class",
    "torch",
    "it's [odd]#%20",
    "ends.",
]


def build(base, kind, seed=0):
    base.mkdir(parents=True, exist_ok=True)
    build_folder(base / kind, load_recipe(str(write_recipe(base, TOMLS[kind], kind))), Origin(seed=seed))
    return base / kind


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: build(tmp_path_factory.mktemp("built"), kind) for kind in TOMLS}


def probe(tmp_path, *arguments, env=None, python=None):
    """Runs a case of probe_other_hands.py, copied away from the repository, with an empty cache."""
    tmp_path.mkdir(exist_ok=True)
    script = shutil.copy(Path(__file__).with_name("probe_other_hands.py"), tmp_path)
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_", "PYTHONPATH"))
    }
    env = {**kept, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", **(env or {})}
    command = [python or os.environ.get("HUB_FOLDER_PYTHON", sys.executable), script, *map(str, arguments)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def hub_env(hub):
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="module")
def odd_places(folders, tmp_path_factory, warm):
    """Every odd place a folder can be in -> whether it loaded from there with its weights, and nothing in it changed."""
    base = tmp_path_factory.mktemp("places")
    places = {}
    for kind, folder in folders.items():
        for name in ODD_NAMES:
            places[kind, name] = Path(shutil.copytree(folder, base / kind / name))
        places[kind, "read-only"] = read_only(Path(shutil.copytree(folder, base / kind / "locked" / "model")))
        places[kind, "symbolic link"] = base / kind / "link"
        places[kind, "symbolic link"].symlink_to(folder, target_is_directory=True)
        places[kind, "folder of links"] = base / kind / "links"
        places[kind, "folder of links"].mkdir()
        for file in folder.iterdir():
            (places[kind, "folder of links"] / file.name).symlink_to(file)
    python = os.environ.get("HUB_FOLDER_PYTHON", warm.command)
    found = probe(base / "run", "paths", *places.values(), python=python)
    return {place: found[str(path)] for place, path in places.items()}


def read_only(folder):
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.mark.parametrize("place", [*ODD_NAMES, "read-only", "symbolic link", "folder of links"])
@pytest.mark.parametrize("kind", TOMLS)
def test_loads_from(odd_places, kind, place):
    assert odd_places[kind, place]


@pytest.mark.parametrize("kind", TOMLS)
def test_vendored_into_another_package(folders, kind, tmp_path):
    """The files of the folder, in a package of another name and two levels down, used by relative import."""
    package = PACKAGES[kind]
    home = tmp_path / "vendor" / "their_library" / "vision"
    home.mkdir(parents=True)
    for file in folders[kind].glob("*.py"):
        if file.name != "example_usage.py":
            shutil.copy(file, home)
    (home.parent / "__init__.py").touch()
    class_name = next(iter(package.models.values()))
    (home / "__init__.py").write_text(f"from .{package.modeling} import {class_name} as Renamed\n")
    found = probe(
        tmp_path, "vendored", tmp_path / "vendor", "their_library.vision", "Renamed", folders[kind], tmp_path / "saved"
    )
    assert found["module"] == f"their_library.vision.{package.modeling}" and found["weights"] and found["again"]
    assert found["remote module"].startswith("transformers_modules.") and found["repository seen"] == []
    assert {f"{package.modeling}.py", f"{package.configuration}.py"} <= {
        file.name for file in (tmp_path / "saved").iterdir()
    }


@pytest.mark.parametrize("kind", TOMLS)
def test_two_revisions_in_one_process(kind, tmp_path):
    old, new = build(tmp_path / "old", kind, seed=1), build(tmp_path / "new", kind, seed=2)
    with LocalHub(tmp_path / "hub") as hub:
        for folder, ref in ((old, "main"), (new, "v2")):
            with open(folder / f"{PACKAGES[kind].modeling}.py", "a") as code:
                code.write(f'\nREVISION = "{ref}"\n')
            hub.put("user/model", {file.name: file.read_bytes() for file in folder.iterdir()}, ref=ref)
        found = probe(tmp_path, "revisions", "user/model", "main", old, "v2", new, env=hub_env(hub))
    assert found == {"main": ["main", True], "v2": ["v2", True]}


def test_local_files_only(folders, tmp_path):
    with LocalHub(tmp_path / "hub") as hub:
        hub.put("user/model", {file.name: file.read_bytes() for file in folders["llavavit"].iterdir()})
        found = probe(tmp_path, "local_only", "user/model", folders["llavavit"], env=hub_env(hub))
    assert found == {"refused before": True, "weights": True}


@pytest.mark.parametrize("source", ["folder", "Hub"])
def test_ten_processes_at_once_into_one_empty_cache(folders, tmp_path, source):
    folder, other = folders["llavavit"], folders["byteformer"]
    with LocalHub(tmp_path / "hub") as hub:
        hub.put("user/model", {file.name: file.read_bytes() for file in folder.iterdir()})
        name = folder if source == "folder" else "user/model"
        found = probe(tmp_path, "at_once", 10, name, folder, other, env=hub_env(hub))
    assert found == ["ok"] * 10
