"""benchmark.py as a user runs it: a bad call is told in one line, and a good one ends in one JSON document."""

import json

import benchmark
import pytest
from small import call

REFUSED = {
    "an unknown case": (["--case", "images"], "unknown case 'images'; known: image, video, sparse, jpeg"),
    "no such reference file": (["--case", "tiff", "--reference", "none.py:Plain"], "none.py does not exist"),
    "no such name in the file": (["--case", "tiff", "--reference", "tests/plain_byteformer.py:Plainer"], "has no 'Plainer'"),
    "a reference that is no reference": (["--case", "tiff", "--reference", "plain"], "accepted: FILE.py:NAME"),
    "a JSON file in no folder": (["--case", "tiff", "--json", "/nowhere/result.json"], "/nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case):
    arguments, reason = REFUSED[case]
    result = call(benchmark.main, *arguments)
    assert result.code == 2 and reason in result.err and result.err.count("\n") == 1, result.err


def test_a_case_is_measured_and_written(tmp_path):
    result = call(benchmark.main, "--case", "tiff", "--repeats", "1", "--json", tmp_path / "result.json")
    assert result.code == 0, result.err
    printed = json.loads(result.out.splitlines()[-1])
    assert printed == json.loads((tmp_path / "result.json").read_text())
    measured = printed["results"][0]
    assert measured["largest_difference"] <= 1e-5 * measured["largest_magnitude"]
    assert measured["median_seconds"]["model"] > 0 and measured["peak_bytes"]["reference"] > 0
