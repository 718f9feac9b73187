"""The scripts in a terminal of 120 columns, where bars are drawn: those that no test of the documents' shell blocks
(test_snippets.py) or of the benchmark (test_benchmark.py) runs in one already."""

import json
import os
import shutil
import sys

import pytest
from hub_kit import holds
from hubtools.matrix.suite import fingerprint
from hubtools.packages import ROOT
from local_hub import LocalHub
from terminal import COLUMNS, run_in_terminal

pytestmark = pytest.mark.usefixtures("warm_python")

SCRIPTS = ROOT / "scripts"
DIGITS = ROOT / "hub_repos" / "byteformer-digits"
RESULT = {"status": "passed", "passed": 3, "failed": {}, "not_applicable": {}, "seconds": 30.0, "install_seconds": 1.0}


def run_script(name, *arguments, cwd, **environment):
    shown = run_in_terminal(
        [sys.executable, SCRIPTS / name, *arguments], cwd, {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )
    assert "Traceback" not in shown.text, shown.text[-3000:]
    too_long = [state for state in shown.redrawn if len(state) > COLUMNS]
    assert not too_long, "a bar that does not fit its line is drawn over many lines"
    return shown


def test_upload_then_verify_from_the_hub(tmp_path):
    with LocalHub(tmp_path / "hub") as hub:
        token = hub.add_account("user")
        shutil.copytree(DIGITS, tmp_path / "digits")  # with the code that it has links to
        sent = run_script("upload.py", tmp_path / "digits", "user/digits", cwd=tmp_path, **hub.env(token))
        assert sent.code == 0, sent.text
        assert holds(hub, "user/digits", DIGITS) and token not in sent.text
        assert any("hashing" in state for state in sent.redrawn), "no bar was drawn: this is no terminal to the script"
        verified = run_script("verify.py", "user/digits", cwd=tmp_path, **hub.env())
    assert verified.code == 0 and "PASS  user/digits" in verified.text, verified.text


def test_demo(tmp_path):
    shown = run_script("demo.py", "--output", tmp_path / "shown", cwd=tmp_path)
    assert shown.code == 0, shown.text[-3000:]
    for name in ("trained.png", "china_features.png", "video.png", "clip-h264.mp4", "clip-hevc.mp4"):
        assert (tmp_path / "shown" / name).is_file(), name


def test_matrix(tmp_path):
    """A release that has passed with the code as it is stands, so that nothing is run anew."""
    kept = {
        "5.23.0": {**RESULT, "packages": {"huggingface_hub": "2.4.0", "torch": "2.13.0"}, "fingerprint": fingerprint()}
    }
    (tmp_path / "results.json").write_text(json.dumps({"releases": kept}))
    shown = run_script(
        "matrix.py", "5.23.0", "--results", tmp_path / "results.json", "--logs", tmp_path / "logs", cwd=tmp_path
    )
    assert shown.code == 0 and "1 passed, 0 failed" in shown.text, shown.text
