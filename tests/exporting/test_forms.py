"""The benchmark's case `export`: every form of a small model gives what eager float32 gives, and the tables say so."""

import contextlib

import pytest
import torch
from export_kit import needs_onnx
from hubtools.benchmarks import export
from hubtools.benchmarks.forms import FLOAT32, FORMS, Form, make
from hubtools.packages import PACKAGES

from byteformer import ByteFormerConfig, ByteFormerForImageClassification

CONFIG = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_kernel_size=4,
    max_position_embeddings=400, window_sizes=[16], window_shifts=[0], downsample=[True],
)  # fmt: skip
FARTHEST = {"float32": 1e-5, "bfloat16": 0.05, "float16": 0.01, "int8": 0.1}
MADE = [form for form in FORMS if form.way != "compiled" and form.obstacle is None]


class InThisProcess:
    """A worker of a small model whose forward is said to take a second, in eager float32 two."""

    def __init__(self, form, room):
        torch.manual_seed(0)
        model = ByteFormerForImageClassification(ByteFormerConfig(**CONFIG)).eval()
        self.form, self.made = form, make(form, model, PACKAGES["byteformer"], room)
        self.data = torch.randint(0, 256, (3, 90), generator=torch.Generator().manual_seed(0))

    def logits(self):
        with torch.no_grad():
            return self.made.run(input_ids=self.data)["logits"]

    def seconds(self):
        return 2.0 if self.form == FLOAT32 else 1.0

    def peak_bytes(self):
        return 2**20

    def file_bytes(self):
        return self.made.file_bytes

    def save_output(self, file):
        torch.save(self.logits(), file)

    def save_logits(self, file):
        torch.save({"logits": self.logits().float(), "labels": torch.zeros(3, dtype=torch.long)}, file)


@needs_onnx
def test_the_tables_hold_every_form_and_how_far_it_is_off(tmp_path, monkeypatch):
    workers = {}

    def worker_of(subject, form, threads):
        room = tmp_path / form.name.replace(", ", "-")
        if form not in workers:
            room.mkdir()
            workers[form] = InThisProcess(form, room)
        return contextlib.nullcontext(workers[form])

    monkeypatch.setattr(export, "worker_of", worker_of)
    missing = Form("onnx", "int4", "no_such_package")
    result = export.measure(2, 1, ("image",), (*MADE, missing))
    for form in MADE:
        found = result["subjects"]["image"][form.name]
        assert found["difference"] <= FARTHEST[form.precision], form.name
        assert form.precision == "float32" or found["difference"] > 0, form.name
        assert result["accuracy"]["byteformer-digits"][form.name][1] == pytest.approx(found["difference"])
    sizes = {form.name: result["subjects"]["image"][form.name]["file_bytes"] for form in MADE}
    assert sizes["eager, bfloat16"] < 0.7 * sizes["eager, float32"]
    told = export.describe({**result, "threads": 1})
    assert "| onnx, float32 | 1.00 | 2.00 | 1 | " in told
    assert "not measured: onnx, int4 (no_such_package is not installed)" in told


def test_precisions_without_units_are_measured_once(monkeypatch):
    for units, expected in (("avx2", False), ("avx2, avx512f, avx512_bf16", True)):
        monkeypatch.setattr(export, "processor_units", lambda units=units: units)
        assert export.is_repeated(Form("eager", "bfloat16")) is expected
        assert export.is_repeated(FLOAT32)
