"""What stands at an output: replaced only where it is a model's folder and the user says so; everything else stays as
it was."""

import json
import os
import socket
import stat
from pathlib import Path

import assemble
import pytest
from hubtools import staging
from hubtools.assembly.build import build_folder
from hubtools.assembly.origin import Origin
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.staging import staged
from small import LLAVA_VIT_TOML, call, save_checkpoint, write_recipe


def write(folder, **files):
    """A folder with these files; `__` in a name stands for a dot."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


MODEL = dict(
    config__json=json.dumps({"model_type": "llava_vit", "architectures": ["LlavaViTModel"]}),
    model__safetensors="weights",
)


def build(file):
    """What a block of `staged` does."""
    write(file, **MODEL, README__md="new")


def snapshot(path):
    """Everything below a path: names, kinds, bytes, where links lead."""
    found = {}
    for parent, folders, files in os.walk(path):
        for name in [*folders, *files]:
            entry = os.path.join(parent, name)
            kind = stat.S_IFMT(os.lstat(entry).st_mode)
            content = (
                os.readlink(entry) if stat.S_ISLNK(kind) else Path(entry).read_bytes() if stat.S_ISREG(kind) else None
            )
            found[os.path.relpath(entry, path)] = (kind, content)
    return found


def a_file(out):
    out.write_text("a thesis")


def a_link_to_a_model(out):
    write(out.with_name("real"), **MODEL)
    out.symlink_to(out.with_name("real"))


def a_link_to_nowhere(out):
    out.symlink_to(out.with_name("nowhere"))


def a_link_to_itself(out):
    out.symlink_to(out)


def a_pipe(out):
    os.mkfifo(out)


def a_socket(out):
    here = os.getcwd()
    os.chdir(out.parent)  # the path of a socket must be short
    socket.socket(socket.AF_UNIX).bind(out.name)
    os.chdir(here)


def an_empty_folder(out):
    out.mkdir()


def a_web_app(out):
    write(out, config__json='{"port": 80}', index__html="<html>")


def a_web_app_with_a_model(out):
    write(out, **{**MODEL, "config__json": '{"port": 80}'})


def a_configuration_without_weights(out):
    write(out, config__json=MODEL["config__json"])


def a_configuration_that_is_a_link(out):
    write(out, model__safetensors="weights")
    (out / "config.json").symlink_to("gone")


def a_configuration_that_is_no_json(out):
    write(out, **{**MODEL, "config__json": "{"})


def a_model_and_a_recipe(out):
    write(out, **MODEL, mine__toml=LLAVA_VIT_TOML)


def a_model_in_a_git_repository(out):
    write(out, **MODEL)
    (out / ".git").mkdir()


REFUSED = {
    a_file: "is a file",
    a_link_to_a_model: "is a link",
    a_link_to_nowhere: "is a link",
    a_link_to_itself: "is a link",
    a_pipe: "is neither a file nor a folder",
    a_socket: "is neither a file nor a folder",
    an_empty_folder: "is not a Hub folder",
    a_web_app: "model_type is None",
    a_web_app_with_a_model: "model_type is None",
    a_configuration_without_weights: "it has no weights",
    a_configuration_that_is_a_link: "it has no config.json",
    a_configuration_that_is_no_json: "is not a Hub folder",
    a_model_and_a_recipe: "holds other files \\(mine.toml\\)",
    a_model_in_a_git_repository: "holds other files \\(.git\\)",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_overwrite_leaves_everything_alone_but_a_models_folder(tmp_path, make):
    make(tmp_path / "out")
    before = snapshot(tmp_path)
    for overwrite, reason in ((False, "exists"), (True, REFUSED[make])):
        with pytest.raises(UserError, match=reason), staged(tmp_path / "out", overwrite) as file:
            build(file)
        assert snapshot(tmp_path) == before


def test_devices_are_left_alone(tmp_path):
    recipe = write_recipe(tmp_path)
    result = call(assemble.main, recipe, "--random-init", "--output", "/dev/null", "--overwrite")
    assert result.code == 2 and "is neither a file nor a folder" in result.err
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_models_folder_is_replaced_when_asked(tmp_path):
    write(tmp_path / "out", **MODEL, modeling_x__py="", preprocessor_config__json="{}")
    with pytest.raises(UserError, match="exists; name another --output, or --overwrite"), staged(tmp_path / "out"):
        raise AssertionError("the block was entered")
    with staged(tmp_path / "out", overwrite=True) as file:
        build(file)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("system", [True, False], ids=["by the system", "without its help"])
@pytest.mark.parametrize(
    "make", [a_file, an_empty_folder, a_web_app, a_link_to_nowhere, a_pipe], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_appears_meanwhile_stays(tmp_path, monkeypatch, system, make, what):
    if not system:
        monkeypatch.setattr(staging, "_renamed_by_system", lambda source, target: False)
    with pytest.raises(UserError, match="has come into being while this was made"), staged(tmp_path / "out") as file:
        build(file) if what == "folder" else file.write_text("state dict")
        make(tmp_path / "out")
        before = snapshot(tmp_path / "out") if make is not a_file else (tmp_path / "out").read_text()
    assert (snapshot(tmp_path / "out") if make is not a_file else (tmp_path / "out").read_text()) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


@pytest.mark.parametrize("system", [True, False], ids=["by the system", "without its help"])
def test_both_ways_of_renaming_make_folders_and_files(tmp_path, monkeypatch, system):
    if not system:
        monkeypatch.setattr(staging, "_renamed_by_system", lambda source, target: False)
    with staged(tmp_path / "folder") as file:
        build(file)
    with staged(tmp_path / "file") as file:
        file.write_text("state dict")
    assert (tmp_path / "folder" / "README.md").read_text() == "new" and (tmp_path / "file").read_text() == "state dict"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_changes_while_its_successor_is_made_stays(tmp_path):
    write(tmp_path / "out", **MODEL)
    with (
        pytest.raises(UserError, match=r"holds other files \(thesis.txt\) while its successor was made"),
        staged(tmp_path / "out", overwrite=True) as file,
    ):
        build(file)
        (tmp_path / "out" / "thesis.txt").write_text("years of work")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "out" / "thesis.txt").unlink()
    with (
        pytest.raises(UserError, match="has changed while its successor was made"),
        staged(tmp_path / "out", overwrite=True) as file,
    ):
        build(file)
        (tmp_path / "out").rename(tmp_path / "kept")
        write(tmp_path / "out", **MODEL, README__md="another")
    assert (tmp_path / "out" / "README.md").read_text() == "another" and (tmp_path / "kept").is_dir()


def test_parents_go_again_when_the_input_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="not good"), staged(tmp_path / "there" / "a" / "b" / "out"):
        raise UserError("not good")
    assert list((tmp_path / "there").iterdir()) == []
    with pytest.raises(UserError, match="not good"), staged(tmp_path / "there" / "a" / "b" / "out"):
        (tmp_path / "there" / "a" / "notes.txt").write_text("mine")
        raise UserError("not good")
    assert list(tmp_path.rglob("*.txt")) == [tmp_path / "there" / "a" / "notes.txt"]


@pytest.mark.parametrize("umask, folder, file", [(0o077, 0o700, 0o600), (0o022, 0o755, 0o644), (0o002, 0o775, 0o664)])
def test_the_umask_is_respected(tmp_path, umask, folder, file):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    before = os.umask(umask)
    try:
        with staged(tmp_path / "new" / "out") as path:
            build_folder(path, recipe, Origin())
    finally:
        os.umask(before)
    for path in (tmp_path / "new", tmp_path / "new" / "out"):
        assert stat.S_IMODE(path.stat().st_mode) == folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "out").iterdir()} == {file}


def test_no_input_is_ever_replaced(tmp_path):
    recipe = write_recipe(tmp_path)
    checkpoint = save_checkpoint(tmp_path / "small.pth")
    build_folder(tmp_path / "model", load_recipe(str(recipe)), checkpoint)
    inside = write_recipe(tmp_path / "model", name="inside")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (tmp_path / "experiment.yaml").write_text("model: {}")
    before = snapshot(tmp_path)
    for arguments in (
        (recipe, "--checkpoint", checkpoint, "--output", recipe),
        (recipe, "--checkpoint", checkpoint, "--output", checkpoint),
        (recipe, "--checkpoint", checkpoint, "--output", tmp_path),
        (inside, "--checkpoint", checkpoint, "--output", tmp_path / "model"),
        (recipe, "--checkpoint", tmp_path / "model" / "model.safetensors", "--output", tmp_path / "model"),
        (recipe, "--checkpoint", tmp_path / "link", "--output", tmp_path / "model"),
        (recipe, "--checkpoint", tmp_path / "model", "--output", tmp_path / "link"),
        ("--checkpoint", tmp_path / "model", "--output", tmp_path / "nowhere" / ".." / "model"),
    ):
        result = call(assemble.main, *arguments, "--overwrite")
        assert result.code == 2 and "would replace the input" in result.err, (arguments, result)
        assert snapshot(tmp_path) == before
