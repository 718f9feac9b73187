"""Packages of AOTInductor, which the compiler takes a minute or two for: `make compiled`. What is refused is quick."""

import os

import export
import pytest
import torch
from export_kit import BYTES, assert_runs_without_transformers, small_folder
from small import call

from byteformer import ByteFormerForImageClassification

compiling = pytest.mark.skipif("COMPILE_AHEAD" not in os.environ, reason="takes minutes: make compiled")
OPENED = 'torch._inductor.aoti_load_package("model.pt2")'


@compiling
def test_machine_code_runs_without_transformers_for_inputs_of_any_size(tmp_path):
    folder = small_folder(tmp_path, BYTES, "bytes")
    result = call(export.main, folder, "--to", "aot-inductor", "--output", tmp_path / "model.pt2")
    assert result.code == 0 and "equals the model within" in result.out, result.err
    model = ByteFormerForImageClassification.from_pretrained(folder).eval()
    inputs = {f"{n} bytes": torch.randint(0, 257, (batch, n)) for batch, n in ((1, 6), (1, 40), (3, 65), (2, 333))}
    assert_runs_without_transformers(tmp_path, OPENED, model, inputs)


def test_refused_in_one_line_and_nothing_is_made(tmp_path, monkeypatch):
    folder = small_folder(tmp_path, BYTES, "bytes")
    before = sorted(tmp_path.iterdir())
    told = {
        "must end in .pt2": ["--output", tmp_path / "model"],
        "--overwrite replaces folders": ["--overwrite"],
        "--quantize goes with --to onnx": ["--quantize", "int8"],
        f"output {folder / 'config.json'}": ["--output", folder / "config.json"],
        "needs a C++ compiler, found none": ["--output", tmp_path / "model.pt2"],
    }
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    for message, options in told.items():
        result = call(export.main, folder, "--to", "aot-inductor", *options)
        assert result.code == 2 and message in result.err, result.err
        assert result.err.startswith("error: ") and len(result.err.strip().splitlines()) == 1, result.err
    assert sorted(tmp_path.iterdir()) == before
