"""verify.py as users run it: real folders, real checkpoints, fresh processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
import verify
from hubtools.assembly.build import build_folder
from hubtools.assembly.origin import Origin
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.packages import ROOT
from hubtools.verification import FAIL, PASS, SKIP, verify_folder
from hubtools.verification.check import CheckList
from hubtools.verification.child import last_words, run_beside, run_isolated
from hubtools.verification.runner import _Verification
from safetensors.torch import load_file, save_file
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, call, save_checkpoint, write_recipe

pytestmark = pytest.mark.usefixtures("warm_python")

IMAGE_CLASSIFIER = LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForImageClassification").replace(
    "patch_size = 8", "patch_size = 8\nnum_labels = 5"
)
PLAIN = {"llavavit": "plain_llava_vit.py:PlainLlavaViT", "byteformer": "plain_byteformer.py:PlainByteFormer"}
WEIGHT = "encoder.layers.1.mlp.fc1.weight"


def make(base, toml, layout):
    """A checkpoint in a foreign layout and the folder made from it."""
    checkpoint = save_checkpoint(base / "original.pth", toml, layout)
    build_folder(base / "folder", load_recipe(str(write_recipe(base, toml))), checkpoint)
    return base / "folder", checkpoint


def statuses(checks) -> dict:
    return {check.name: check.status for check in checks}


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "package, toml, layout", [("llavavit", IMAGE_CLASSIFIER, "hub"), ("byteformer", BYTEFORMER_TOML, "corenet")]
)
def test_a_good_folder_passes_every_check(tmp_path, package, toml, layout):
    folder, checkpoint = make(tmp_path, toml, layout)
    command = [
        sys.executable,
        str(ROOT / "scripts" / "verify.py"),
        "folder",
        "--checkpoint",
        "original.pth",
        "--verbose",
        "--json",
        "result.json",
    ]
    reference = f"{ROOT}/tests/{PLAIN[package]}"
    # The repository on PYTHONPATH must not help: the processes that load the folder do not see it.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "unused")}
    done = subprocess.run(
        [*command, "--reference", reference], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    rows = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows[-1].startswith("PASS  folder: ") and "0 failed, 0 skipped" in rows[-1]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["passed"] and {check["status"] for check in result["checks"]} == {PASS}
    names = [check["name"] for check in result["checks"]]
    subjects = (
        ("image", "video", "sparse", "batch", "attention")
        if package == "llavavit"
        else ("bytes", "padded batch", "attention")
    )
    assert {f"forward: {subject}" for subject in subjects} <= set(names)
    assert [row.split("  ")[1].strip() for row in rows if row.startswith("PASS")][:-1] == names
    assert not (tmp_path / "unused").exists() and sorted(path.name for path in folder.iterdir() if path.is_dir()) == []


def test_one_changed_weight_is_found_twice_with_its_size(tmp_path):
    folder, checkpoint = make(tmp_path, LLAVA_VIT_TOML, "training")
    edit_weights(folder, lambda tensors: tensors[WEIGHT][3, 5].add_(1e-2))
    result = call(verify.main, folder, "--checkpoint", checkpoint, "--reference", f"{ROOT}/tests/{PLAIN['llavavit']}")
    rows = {row[6:31].strip(): row for row in result.out.splitlines()}
    assert result.code == 1
    assert (
        rows["weights: checkpoint"].startswith(FAIL)
        and f"1 of 47 tensors differ from the checkpoint's; largest: {WEIGHT} differs by up to 0.01"
        in rows["weights: checkpoint"]
    )
    assert rows["reference: forward"].startswith(FAIL) and "of its largest magnitude" in rows["reference: forward"]
    assert sum(row.startswith(FAIL) for row in rows.values()) == 3  # the two and the verdict
    assert result.out.splitlines()[-1].endswith("weights: checkpoint; reference: forward")


def test_wrong_weights_and_a_model_that_raises(tmp_path):
    folder, _ = make(tmp_path, LLAVA_VIT_TOML, "hub")

    def spoil(tensors):
        tensors[WEIGHT][0, :2] = float("nan")
        tensors["stranger"] = torch.zeros(2)
        del tensors["layernorm_post.bias"]

    edit_weights(folder, spoil)
    modeling = folder / "modeling_llava_vit.py"
    line = "    pixel_values = check_pixel_values(config, pixel_values)\n"
    assert line in modeling.read_text()
    modeling.write_text(
        modeling.read_text().replace(
            line, '    if pixel_values.dim() == 5:\n        raise ValueError("no video today")\n' + line
        )
    )
    checks = {check.name: check for check in verify_folder(folder, run_foreign_code=True)}
    assert checks["files: code"].status == FAIL
    assert checks["weights: finite"].status == FAIL and f"{WEIGHT} has 2 values" in checks["weights: finite"].summary
    loaded = checks["weights: loaded"]
    assert (
        loaded.status == FAIL
        and "layernorm_post.bias is not in the file" in loaded.detail
        and "stranger is in the file" in loaded.detail
    )
    assert checks["forward: image"].status == FAIL and "NaN or infinity" in checks["forward: image"].summary
    assert checks["forward: video"].status == FAIL and checks["forward: video"].summary == "ValueError: no video today"
    assert checks["forward: sparse"].status == SKIP and "not reached" in checks["forward: sparse"].summary
    assert checks["round trip: reload"].status == SKIP


def test_code_that_is_not_ours_is_never_run_unless_asked(tmp_path):
    folder, _ = make(tmp_path, LLAVA_VIT_TOML, "hub")
    trace = tmp_path / "it ran"
    with (folder / "configuration_llava_vit.py").open("a") as file:
        file.write(f"\nopen({str(trace)!r}, 'w')\n")
    found = statuses(verify_folder(folder))
    assert found["files: code"] == FAIL and found["load: configuration"] == SKIP and not trace.exists()


def test_a_folder_that_needs_this_repository_does_not_load(tmp_path, monkeypatch):
    folder, _ = make(tmp_path, LLAVA_VIT_TOML, "hub")
    configuration = folder / "configuration_llava_vit.py"
    configuration.write_text(configuration.read_text() + "\nimport llavavit\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    verification = _Verification(folder, Origin(), None, CheckList())
    verification.look(run_foreign_code=True)
    workdir = tmp_path / "work"
    workdir.mkdir()
    checks = CheckList()
    run_isolated({**verification.job(workdir), "checks": ["load: configuration", "load: model"]}, checks, workdir)
    assert statuses(checks.checks) == {"load: configuration": FAIL, "load: model": SKIP}
    assert "llavavit" in checks.checks[0].detail


def test_a_pickle_that_asks_for_code_is_refused_as_checkpoint(tmp_path):
    trace = tmp_path / "it ran"

    class Payload:
        def __reduce__(self):
            return open, (str(trace), "w")

    torch.save({"model": Payload()}, tmp_path / "evil.pth")
    job = {
        "checkpoint": str(tmp_path / "evil.pth"),
        "package": "llavavit",
        "folder": "",
        "tensors": [],
        "checks": ["weights: checkpoint"],
    }
    with pytest.raises(UserError, match="evil.pth asks for Python code"):
        run_beside("checkpoint", job, CheckList(), tmp_path)
    assert not trace.exists()


def test_a_reference_file_that_fails_says_where(tmp_path):
    (tmp_path / "mine.py").write_text("import a_package_nobody_has\nmake = a_package_nobody_has.make\n")
    job = {
        "reference": (str(tmp_path / "mine.py"), "make"),
        "package": "llavavit",
        "tensors": [],
        "checks": ["reference: configuration", "reference: structure"],
    }
    with pytest.raises(UserError, match="mine.py failed: ModuleNotFoundError: No module named 'a_package_nobody_has'"):
        run_beside("reference", job, CheckList(), tmp_path)


@pytest.mark.parametrize(
    "code, errors, expected",
    [
        (
            1,
            'Traceback (most recent call last):\n  File "x.py", line 1\n    f()\nValueError: first\nsecond\n',
            "ValueError: first second",
        ),
        (-9, "", "killed by SIGKILL; out of memory?"),
        (-11, "noise", "killed by SIGSEGV"),
        (3, "", "ended with code 3"),
        (1, "plain message\n", "plain message"),
    ],
)
def test_why_a_process_ended(code, errors, expected):
    assert expected in last_words(code, errors)
