"""What export.py cannot do it says in one line, and leaves nothing behind."""

import export
import pytest
from export_kit import BYTES, PIXELS, needs_onnx, small_folder
from hubtools.errors import UserError
from hubtools.exporting.folder import refuse_links
from hubtools.packages import PACKAGES
from small import call

pytestmark = pytest.mark.usefixtures("warm_python")


def refused(*arguments):
    result = call(export.main, *arguments)
    assert result.code in (1, 2) and result.err.startswith("error: ") and len(result.err.strip().splitlines()) == 1
    return result.err


def test_arguments(tmp_path):
    assert "is not a folder" in refused(tmp_path / "none", "--to", "onnx")
    assert "--quantize goes with --to onnx" in refused(tmp_path, "--to", "torch-export", "--quantize", "int8")
    assert "accepted: 18 to 23" in refused(tmp_path, "--to", "onnx", "--opset", "3")
    assert "invalid choice" in refused(tmp_path, "--to", "coreml")


@needs_onnx
def test_output_inside_the_folder(tmp_path):
    folder = small_folder(tmp_path, BYTES, "whole")
    (tmp_path / "link").symlink_to(folder)
    before = sorted(folder.rglob("*"))
    for output in (folder / "copy", tmp_path / "link" / "onnx" / "copy"):
        assert f"lies in {folder}" in refused(folder, "--to", "onnx", "--output", output)
    assert sorted(folder.rglob("*")) == before


def test_links_out_of_the_folder(tmp_path):
    """The copy would hold what they lead to: a file, or a whole folder."""
    folder, package = tmp_path / "model", PACKAGES["llavavit"]
    (folder / ".git").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    (folder / "config.json").write_text("{}")
    (folder / "again.json").symlink_to("config.json")
    (folder / "modeling_llava_vit.py").symlink_to(package.folder / "modeling_llava_vit.py")
    (folder / ".git" / "hook").symlink_to(tmp_path / "private" / "key")
    refuse_links(folder, package)
    for name, target in (("notes.txt", "private/key"), ("onnx", "private")):
        (folder / name).symlink_to(tmp_path / target)
        with pytest.raises(UserError, match=f"{name} is a link out of the folder"):
            refuse_links(folder, package)
        (folder / name).unlink()


def test_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("hubtools.exporting.extras.missing", lambda modules: ["onnxscript"])
    message = refused(tmp_path, "--to", "onnx")
    assert "onnxscript, which is not installed: pip install -r requirements-export.txt" in message


@needs_onnx
def test_folder_that_verify_refuses(tmp_path, monkeypatch):
    folder = small_folder(tmp_path, BYTES, "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert "does not pass verify: files: weights: model.safetensors" in refused(folder, "--to", "onnx")
    assert not (tmp_path / "broken-onnx").exists()
    monkeypatch.chdir(folder)
    (tmp_path / "broken-onnx").mkdir()
    for name in (".", "../broken/", folder):
        assert f"{folder}-onnx exists" in refused(name, "--to", "onnx"), name


@needs_onnx
@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_model_that_cannot_be_exported(tmp_path, to):
    toml = PIXELS.replace("[config]", "[config]\nframe_windows_size = 4\nuse_head = false\nout_hidden_size = 32")
    folder = small_folder(tmp_path, toml, "tower")
    assert "frame_windows_size = 4 cannot be exported" in refused(folder, "--to", to)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["tower"]
