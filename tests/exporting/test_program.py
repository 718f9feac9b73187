"""Programs of torch.export: run without transformers, and nothing in them is pickled."""

import zipfile

import pytest
import torch
import verify
from export_kit import BYTES, assert_runs_without_transformers, small_folder
from hubtools.exporting.programs import write_program
from hubtools.packages import PACKAGES
from hubtools.verification.exported import PROGRAM, why_not_plain
from hubtools.verification.files import check_files
from hubtools.verification.probes.protocol import CheckFailed
from small import call

from byteformer import ByteFormerConfig, ByteFormerForImageClassification

CONFIG = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_kernel_size=4,
    max_position_embeddings=400, window_sizes=[16], window_shifts=[0, 8], downsample=[True, False],
)  # fmt: skip
OPENED = 'torch.export.load("model.pt2").module()'


def test_a_program_runs_without_transformers_and_holds_no_pickle(tmp_path):
    model = ByteFormerForImageClassification(ByteFormerConfig(**CONFIG)).eval()
    graph = PACKAGES["byteformer"].graphs(model.config, type(model).__name__)[0]
    write_program(model, graph, tmp_path / "model.pt2")
    sizes = ((1, 6), (1, 40), (3, 65), (2, 333), (1, 800))
    inputs = {f"{batch} x {length}": torch.randint(0, 257, (batch, length)) for batch, length in sizes}
    assert_runs_without_transformers(tmp_path, OPENED, model, inputs)
    assert why_not_plain(tmp_path / "model.pt2") is None


def test_verify_refuses_a_program_with_something_pickled_in_it(tmp_path):
    class Halved(torch.nn.Module):
        def forward(self, x):
            return x / 2

    program = torch.export.export(Halved(), (torch.ones(2),))  # with its example inputs, which are pickled
    file = tmp_path / PROGRAM
    file.parent.mkdir()
    torch.export.save(program, file)
    assert "sample inputs, which are pickled" in why_not_plain(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02.")
    assert "holds model/data.pkl" in why_not_plain(file)
    file.write_bytes(b"no archive")
    with pytest.raises(CheckFailed, match="is no program of torch.export"):
        check_files(tmp_path, PACKAGES["byteformer"])


def test_verify_does_not_open_an_exported_file_of_a_folder_with_unsafe_ones(tmp_path):
    folder = small_folder(tmp_path, BYTES, "unsafe")
    (folder / PROGRAM).parent.mkdir()
    (folder / PROGRAM).write_bytes(b"no archive")
    result = call(verify.main, folder)
    assert result.code == 1 and "is no program of torch.export" in result.out
    assert f"SKIP  exported: {PROGRAM}" in result.out, result.out
