"""benchmark.py as a user runs it: a bad call is told in one line, and a good one ends in one JSON document."""

import json
import os
import sys

import benchmark
import pytest
import torch
from hubtools.benchmarks import CASES
from hubtools.benchmarks.measure import count_flops
from hubtools.benchmarks.models import load_reference, reference_file
from hubtools.packages import ROOT
from small import call
from terminal import run_in_terminal

pytestmark = pytest.mark.usefixtures("warm_python")

REFUSED = {
    "an unknown case": (["--case", "images"], "unknown case 'images'; known: jpeg, tiff"),
    "no such reference file": (["--case", "tiff", "--reference", "none.py:Plain"], "none.py does not exist"),
    "no such name in the file": (
        ["--case", "tiff", "--reference", "tests/plain_byteformer.py:Plainer"],
        "has no 'Plainer'",
    ),
    "a reference that is no reference": (["--case", "tiff", "--reference", "plain"], "accepted: FILE.py:NAME"),
    "a JSON file in no folder": (["--case", "tiff", "--json", "/nowhere/result.json"], "/nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case):
    arguments, reason = REFUSED[case]
    result = call(benchmark.main, *arguments)
    assert result.code == 2 and reason in result.err and result.err.count("\n") == 1, result.err


def test_a_reference_that_fails_is_told_in_one_line(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def Mine(config):\n    raise ValueError(config['model_type'] + ' is not mine')\n"
    )
    result = call(benchmark.main, "--case", "tiff", "--reference", f"{tmp_path}/mine.py:Mine")
    assert result.code == 2 and result.err.count("\n") == 1 and "byteformer is not mine" in result.err, result.err


def test_a_case_is_measured_and_written(tmp_path):
    """In a terminal, with a reference beside the user, that prints."""
    (tmp_path / "mine.py").write_text(f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from plain_byteformer import PlainByteFormer as Plain
class Mine(Plain):
    def forward(self, *args, **kwargs):
        print("mine")
        return super().forward(*args, **kwargs)
""")
    arguments = ["--case", "tiff", "--repeats", "1", "--reference", "mine.py:Mine", "--json", tmp_path / "result.json"]
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", *arguments]
    shown = run_in_terminal(command, tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})
    assert shown.code == 0 and "Traceback" not in shown.text, shown.text[-3000:]
    printed = json.loads(shown.text.splitlines()[-1])
    assert printed == json.loads((tmp_path / "result.json").read_text())
    measured = printed["results"][0]
    assert measured["largest_difference"] <= 1e-5 * measured["largest_magnitude"]
    assert measured["median_seconds"]["model"] > 0 and measured["peak_bytes"]["reference"] > 0
    assert measured["ratio_ceiling"] * measured["arithmetic_seconds"] == pytest.approx(
        measured["median_seconds"]["reference"]
    )


def test_every_case_has_a_reference_unless_asked_otherwise():
    for case in CASES.values():
        assert callable(load_reference(reference_file(case.reference))), case.name


class Attention(torch.nn.Module):
    """(N, D) -> (N, D), one head; the sum is taken in place, as the packages do."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x)[None, None].chunk(3, dim=-1)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)[0, 0]
        return (x + self.out.bias).addmm_(attended, self.out.weight.t())


def test_every_matrix_product_is_counted():
    projections, attention = 2 * 10 * 8 * (24 + 8), 2 * 2 * 10 * 10 * 8
    assert count_flops(Attention(), dict(x=torch.randn(10, 8))) == projections + attention
