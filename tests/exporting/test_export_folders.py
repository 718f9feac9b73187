"""What becomes of a folder that is exported: with weights beside the graph, once more, and to another format."""

import shutil

import export
import numpy as np
import pytest
import torch
import upload
from export_kit import BYTES, TOWER, exported, needs_onnx, padded_bytes, session_of, small_folder
from hubtools.exporting import card, onnx_files
from measure import relative_error
from safetensors.torch import load_file, save_file
from small import call

from byteformer import ByteFormerForImageClassification
from llavavit import LlavaViTModel

pytestmark = [needs_onnx, pytest.mark.usefixtures("warm_python")]
GRAPHS = [f"model{kind}.onnx{data}" for kind in ("", "_quantized") for data in ("", "_data")]


@pytest.fixture(scope="module")
def folder_with_data(tmp_path_factory):
    """An exported folder whose weights did not fit into the graphs, and what export.py said at the end."""
    folder = small_folder(tmp_path_factory.mktemp("beside"), BYTES, "bytes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, "LARGEST", 1000)
        result = call(export.main, folder, "--to", "onnx", "--quantize", "int8")
    assert result.code == 0, result.err
    return folder.with_name("bytes-onnx"), result.out


def names_in(folder, room):
    return sorted(path.name for path in (folder / room).iterdir()) if (folder / room).exists() else []


def error_of(folder, session):
    """How far a graph is from the folder's model."""
    ids = padded_bytes(2, 300)
    with torch.no_grad():
        expected = ByteFormerForImageClassification.from_pretrained(folder).eval()(ids).logits
    return relative_error(torch.from_numpy(session.run(None, {"input_ids": ids.numpy()})[0]), expected)


def test_weights_that_do_not_fit_into_a_graph_stand_beside_it(folder_with_data):
    folder, said = folder_with_data
    assert names_in(folder, "onnx") == sorted(GRAPHS)
    for name in GRAPHS:
        status = (folder / "onnx" / name).stat()
        assert f"onnx/{name} ({status.st_size / 1e6:,.1f} MB)" in said
        assert (status.st_size > 100_000) == name.endswith("_data"), name
        assert status.st_mode == (folder / "model.safetensors").stat().st_mode, name
    assert error_of(folder, session_of(folder)) < 1e-5
    assert 1e-5 < error_of(folder, session_of(folder, "model_quantized")) < 0.2
    text = (folder / "README.md").read_text()
    assert "Weights stand in `model.onnx_data`, `model_quantized.onnx_data`, each needed beside its graph." in text


def test_an_upload_sends_the_weights_beside_the_graph(folder_with_data):
    plan = call(upload.main, folder_with_data[0], "your-name/bytes", "--dry-run")
    assert plan.code == 0, plan.err
    assert all(f"onnx/{name}" in plan.out + plan.err for name in GRAPHS)


def test_an_exported_folder_is_exported_again(folder_with_data, tmp_path):
    """To another format beside the first; to the same with other weights; over a folder that was exported."""
    both = tmp_path / "both"
    result = call(export.main, folder_with_data[0], "--to", "torch-export", "--output", both)
    assert result.code == 0, result.err
    assert names_in(both, "onnx") == sorted(GRAPHS) and names_in(both, "torch_export") == ["model.pt2"]
    text = (both / "README.md").read_text()
    assert text.count(card.ONNX_HEADING) == text.count(card.PROGRAM_HEADING) == 1

    trained = shutil.copytree(folder_with_data[0], tmp_path / "trained")
    weights = load_file(trained / "model.safetensors")
    weights["classifier.weight"] = -weights["classifier.weight"]
    save_file(weights, trained / "model.safetensors", {"format": "pt"})
    refused = call(export.main, trained, "--to", "torch-export", "--output", both, "--overwrite")
    assert refused.code == 1 and "exported: onnx/model.onnx" in refused.err and (both / "torch_export").exists()
    result = call(export.main, trained, "--to", "onnx", "--output", both, "--overwrite")
    assert result.code == 0, result.err
    assert names_in(both, "onnx") == ["model.onnx"] and names_in(both, "torch_export") == []
    assert error_of(both, session_of(both)) < 1e-5
    text = (both / "README.md").read_text()
    assert text.count(card.ONNX_HEADING) == 1 and card.PROGRAM_HEADING not in text and "_data`" not in text


def test_a_vision_tower_with_its_merger(tmp_path):
    folder = exported(small_folder(tmp_path, TOWER, "tower"), "--to", "onnx")
    session, model = session_of(folder), LlavaViTModel.from_pretrained(folder).eval()
    assert names_in(folder, "onnx") == ["model.onnx"]
    names = [output.name for output in session.get_outputs()]
    assert sorted(names) == ["last_hidden_state", "merged_states"]
    for frames, rows, columns in ((1, 2, 2), (3, 4, 2), (5, 6, 8)):
        pixels = torch.randn(2, 3, frames, 8 * rows, 8 * columns)
        found = dict(zip(names, session.run(None, {"pixel_values": pixels.numpy()})))
        with torch.no_grad():
            expected = model(pixels).merged_states
        assert relative_error(torch.from_numpy(found["merged_states"]), expected) < 1e-5
    with pytest.raises(Exception, match="ONNXRuntimeError"):  # three rows of patches are no whole blocks
        session.run(None, {"pixel_values": np.zeros((1, 3, 1, 24, 16), np.float32)})
