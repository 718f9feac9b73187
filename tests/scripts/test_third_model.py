"""A model that the tools have never seen: its package and its file of facts are all that it takes to assemble and
verify it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hubtools.packages import ROOT
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("warm_python")

HERE = Path(__file__).resolve().parent
RECIPE = """
package = "toymodel"
architecture = "ToyModel"
[config]
hidden_size = 6
[processor]
size = 32
crop_size = 32
[card]
license = "apache-2.0"
summary = "A toy."
"""


@pytest.fixture
def repository(tmp_path):
    """A repository in which a third model has been put beside the two."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(HERE / "toymodel", tmp_path / "toymodel", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(HERE / "toymodel_facts.py", tmp_path / "scripts" / "hubtools" / "models" / "toymodel.py")
    (tmp_path / "toy.toml").write_text(RECIPE)
    return tmp_path


def test_a_third_model_assembles_and_verifies(repository):
    state = {"module.stem.conv.weight": torch.randn(6, 3, 4, 4), "module.stem.conv.bias": torch.randn(6)}
    torch.save({"model": state}, repository / "toy.pth")

    def run(script, *arguments):
        command = [sys.executable, repository / "scripts" / script, *arguments]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True)

    result = run("assemble.py", "toy.toml", "--checkpoint", "toy.pth", "--output", "made")
    assert result.returncode == 0, result.stdout + result.stderr
    for check in (
        "files: code",
        "load: processor",
        "load: model",
        "forward: image",
        "example: runs",
        "round trip: reload",
        "weights: checkpoint",
    ):
        assert any(row.startswith(f"PASS  {check}") for row in result.stdout.splitlines()), (check, result.stdout)
    stored = load_file(repository / "made" / "model.safetensors")
    assert torch.equal(stored["patches.weight"], state["module.stem.conv.weight"])
    assert (
        json.loads((repository / "made" / "config.json").read_text())["auto_map"]["AutoModel"]
        == "modeling_toymodel.ToyModel"
    )
    torch.save(
        {"stem.conv.weight": torch.zeros(8, 3, 4, 4), "stem.conv.bias": torch.zeros(8)}, repository / "other.pth"
    )
    wrong = run("assemble.py", "toy.toml", "--checkpoint", "other.pth", "--output", "wrong")
    assert wrong.returncode == 2 and "hidden_size is 8, expected 6" in wrong.stderr, wrong.stderr
