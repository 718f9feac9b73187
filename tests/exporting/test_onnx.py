"""Exported graphs, from the command to the answers they give where neither torch nor transformers is."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import verify
from export_kit import AUDIO, BYTES, MASKED, PIXELS, exported, needs_onnx, padded_bytes, session_of, small_folder
from hubtools.exporting import card, onnx_files
from hubtools.facts import Graph
from hubtools.packages import PACKAGES
from measure import relative_error
from PIL import Image
from small import call

from byteformer import ByteFormerConfig, ByteFormerForImageClassification, ByteFormerModel
from llavavit import LlavaViTModel

pytestmark = [needs_onnx, pytest.mark.usefixtures("warm_python")]
COLD = sys.executable  # has not imported torch yet
FLOAT32 = 1e-4  # of the largest magnitude
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def bytes_folder(tmp_path_factory):
    room = tmp_path_factory.mktemp("bytes")
    return exported(small_folder(room, BYTES, "bytes"), "--to", "onnx", "--quantize", "int8")


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory):
    toml = MASKED.replace("ByteFormerForImageClassification", "ByteFormerModel")
    return exported(small_folder(tmp_path_factory.mktemp("masked"), toml, "masked"), "--to", "onnx")


@pytest.fixture(scope="module")
def audio_folder(tmp_path_factory):
    return exported(small_folder(tmp_path_factory.mktemp("audio"), AUDIO, "audio"), "--to", "onnx")


@pytest.fixture(scope="module")
def pixels_folder(tmp_path_factory):
    return exported(small_folder(tmp_path_factory.mktemp("pixels"), PIXELS, "pixels"), "--to", "onnx")


def names_of(values):
    return {value.name: value.shape for value in values}


def assert_same(session, model, inputs):
    """Every output of the graph is the model's."""
    with torch.no_grad():
        expected = model(**inputs)
    names = list(names_of(session.get_outputs()))
    for name, found in zip(names, session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})):
        error = relative_error(torch.from_numpy(found), expected[name])
        sizes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        assert error <= FLOAT32, f"{name} of {sizes}: off by {error:.1e}"


def test_bytes_of_twenty_lengths_give_what_the_model_gives(bytes_folder):
    session, model = session_of(bytes_folder), ByteFormerForImageClassification.from_pretrained(bytes_folder).eval()
    assert names_of(session.get_inputs()) == {"input_ids": ["batch", "bytes"]}
    assert names_of(session.get_outputs()) == {"logits": ["batch", 10]}
    for number, length in enumerate((4, 5, 6, 7, 8, 9, 15, 16, 33, 34, 35, 64, 66, 67, 100, 129, 130, 257, 511, 800)):
        assert_same(session, model, {"input_ids": padded_bytes(1 + number % 3, length)})
    ids = padded_bytes(2, 70)
    same = session.run(None, {"input_ids": torch.where(ids == 256, -1, ids).numpy()})[0]
    assert np.array_equal(same, session.run(None, {"input_ids": ids.numpy()})[0]), "padding as -1"


def test_masked_padding_is_without_effect_in_the_graph(masked_folder):
    session, model = session_of(masked_folder), ByteFormerModel.from_pretrained(masked_folder).eval()
    assert set(names_of(session.get_inputs())) == {"input_ids", "attention_mask"}
    for length in (6, 33, 64, 67, 200, 515):
        ids = padded_bytes(2, length)
        mask = (ids != 256).long()
        with torch.no_grad():
            expected = model(ids, mask).pooler_output
        names = list(names_of(session.get_outputs()))
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[
            names.index("pooler_output")
        ]
        assert relative_error(torch.from_numpy(found), expected) <= FLOAT32, f"{length} bytes"


def test_what_a_graph_of_bytes_cannot_take_is_an_error(bytes_folder):
    session = session_of(bytes_folder)
    for ids in (torch.randint(0, 256, (1, 3)), torch.randint(0, 256, (1, 900)), torch.full((1, 40), 300)):
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            session.run(None, {"input_ids": ids.numpy()})


def test_pixels_of_twenty_sizes_give_what_the_model_gives(pixels_folder):
    session, model = session_of(pixels_folder), LlavaViTModel.from_pretrained(pixels_folder).eval()
    assert names_of(session.get_inputs()) == {"pixel_values": ["batch", 3, "frames", "height", "width"]}
    assert names_of(session.get_outputs()) == {
        "last_hidden_state": ["batch", "patches", 64],
        "pooler_output": ["batch", 64],
    }
    for number in range(20):
        batch, frames, rows, columns = 1 + number % 3, 1 + number % 7, 1 + number % 5, 1 + number * 3 % 8
        assert_same(session, model, {"pixel_values": torch.randn(batch, 3, frames, 8 * rows, 8 * columns)})


def test_selected_patches_give_what_the_model_gives(pixels_folder):
    session, model = (
        session_of(pixels_folder, "model_visible_indices"),
        LlavaViTModel.from_pretrained(pixels_folder).eval(),
    )
    for number in range(20):
        batch, frames, rows, columns = 1 + number % 2, 1 + number % 4, 1 + number % 3, 2 + number % 5
        patches = frames * rows * columns
        indices = torch.stack([torch.randperm(patches)[: 1 + patches // 2] for _ in range(batch)])
        pixels = torch.randn(batch, 3, frames, 8 * rows, 8 * columns)
        assert_same(session, model, {"pixel_values": pixels, "visible_indices": indices})
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        session.run(None, {"pixel_values": pixels.numpy(), "visible_indices": (indices + patches).numpy()})


def test_eight_bits_are_smaller_and_near(bytes_folder):
    files = {name: (bytes_folder / f"onnx/{name}.onnx").stat().st_size for name in ("model", "model_quantized")}
    assert files["model_quantized"] < 0.9 * files["model"]
    ids = padded_bytes(8, 300).numpy()
    logits, near = (session_of(bytes_folder, name).run(None, {"input_ids": ids})[0] for name in files)
    assert 0 < np.abs(logits - near).max() < 0.5 * np.abs(logits).max()


def test_a_table_of_positions_is_in_eight_bits_row_by_row(tmp_path):
    """Rows of very different sizes: with one scale for all of them most would be off by a tenth."""
    config = ByteFormerConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, conv_kernel_size=4,
        max_position_embeddings=40_000, window_sizes=[16], window_shifts=[0], downsample=[False],
    )  # fmt: skip
    model = ByteFormerModel(config).eval()
    with torch.no_grad():
        model.embeddings.position_embeddings.mul_(torch.logspace(-2, 3, 40_000)[:, None])
        model.embeddings.position_embeddings[0, 0, 7] = 0
    (tmp_path / "onnx").mkdir()
    file = onnx_files.write_onnx(model, PACKAGES["byteformer"].graphs(config, "ByteFormerModel")[0], tmp_path / "onnx")
    assert onnx_files.quantize(file).stat().st_size < 0.3 * file.stat().st_size
    for length in (4, 1000, 30_000):
        ids = {"input_ids": padded_bytes(1, length).numpy()}  # one row: nothing in it is padding
        states, near = (session_of(tmp_path, name).run(None, ids)[0] for name in ("model", "model_quantized"))
        assert np.abs(near - states).max() < 0.02 * np.abs(states).max(), f"{length} bytes"


def test_a_new_section_of_the_card_leaves_the_users_own(tmp_path):
    graph = Graph("model", inputs={"input_ids": ()}, outputs={"logits": ()}, make_inputs=dict, trials=())
    file = tmp_path / "README.md"
    file.write_text("# Model\n\n```sh\n# remark\n```\n")
    card.add_program_section(tmp_path, graph, "old.pt2")
    file.write_text(file.read_text() + "\n## Licence\n\nMine.\n")
    for _ in range(2):
        card.add_program_section(tmp_path, graph, "new.pt2")
    text = file.read_text()
    assert text.startswith("# Model\n\n```sh\n# remark\n```\n") and "\n## Licence\n\nMine.\n" in text
    assert "old.pt2" not in text and text.count(card.PROGRAM_HEADING) == 1 and text.count("# program(") == 1


@pytest.mark.parametrize("kind", ["bytes_folder", "pixels_folder", "audio_folder"])
def test_the_cards_lines_run_without_torch_and_transformers(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    card = (folder / "README.md").read_text()
    snippet = re.search(r"## Without torch and transformers.*?```python\n(.*?)```", card, re.DOTALL).group(1)
    (tmp_path / "onnx").symlink_to(folder / "onnx")
    Image.effect_noise((40, 30), 60).save(tmp_path / "photo.jpg", quality=20)
    (tmp_path / "sound.wav").write_bytes(b"RIFF" + bytes(500))
    run = subprocess.run([COLD, "-c", WITHOUT_TORCH + snippet], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert re.search(r"^\d+$|\(1, 16, 64\)", run.stdout.strip()), run.stdout


def test_the_graph_says_nothing_of_the_machine_it_was_made_on(bytes_folder, pixels_folder):
    for file in [*bytes_folder.glob("onnx/*.onnx"), *pixels_folder.glob("onnx/*.onnx")]:
        assert b".py" not in file.read_bytes(), file.name


def test_the_copy_is_the_folder_and_verify_checks_the_graphs(bytes_folder, tmp_path):
    source = bytes_folder.with_name("bytes")
    for name in ("config.json", "model.safetensors", "modeling_byteformer.py"):
        assert (bytes_folder / name).read_bytes() == (source / name).read_bytes(), name
    assert not (source / "onnx").exists()
    picture = tmp_path / "picture.png"
    Image.effect_noise((6, 6), 80).save(picture)
    result = call(verify.main, bytes_folder, "--files", picture, "--json", tmp_path / "result.json")
    assert result.code == 0, result.out
    checks = {check["name"]: check for check in json.loads((tmp_path / "result.json").read_text())["checks"]}
    assert checks["exported: onnx/model.onnx"]["status"] == "PASS"
    assert "own label on 1 of 1" in checks["exported: onnx/model_quantized.onnx"]["detail"]


def test_verify_refuses_a_graph_of_other_weights(pixels_folder, tmp_path):
    import shutil

    import onnx

    folder = shutil.copytree(pixels_folder, tmp_path / "altered")
    graph = onnx.load(folder / "onnx/model.onnx")
    largest = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = np.frombuffer(largest.raw_data, np.float32)[::-1].tobytes()
    onnx.save(graph, folder / "onnx/model.onnx")
    result = call(verify.main, folder)
    assert result.code == 1
    assert re.search(r"FAIL  exported: onnx/model.onnx .*differs by", result.out), result.out
