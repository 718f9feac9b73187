"""Valid files with a few bytes changed, at random: each is read as something, or refused in one line; nothing else may happen.

FOREIGN_MUTATIONS sets how many (`make mutations`: 10,000); a few hundred otherwise.
"""

import io
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.checkpoint import open_checkpoint
from hubtools.assembly.corenet_config import read_corenet_config
from hubtools.assembly.published import recipe_from_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.errors import UserError
from hubtools.finetuning.inputs import open_picture
from hubtools.packages import PACKAGES, ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, write_recipe

KINDS = 9  # of files, and of tests below
EXAMPLES = -(-int(os.environ.get("FOREIGN_MUTATIONS", "360")) // KINDS)
EXPERIMENT = """
model:
  classification:
    name: byteformer
    n_classes: 10
    byteformer: {mode: tiny, conv_kernel_size: 4, window_sizes: [32], max_num_tokens: 1000, dropout: 0.0}
  activation.name: gelu
image_augmentation:
  resize: {enable: true, size: 64, interpolation: bicubic}
  pil_save: {enable: true, file_encoding: PNG}
"""
NASTY = [
    b"\x00",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"-1",
    b"1e400",
    b"NaN",
    b"null",
    b"[" * 50,
    b"{",
    b'"',
    b"\n---\n",
    b"\x1b[2J",
    "\u202e".encode(),
    b"9" * 40,
    b"&a [*a]",
    b"..",
    b"R.",
    b"cos\nsystem\n",
]

change = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 2**20), st.sampled_from(NASTY)),
    st.tuples(st.just("byte"), st.integers(0, 2**20), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(0, 2**20), st.integers(1, 64)),
    st.tuples(st.just("copy"), st.integers(0, 2**20), st.integers(1, 64)),
    st.tuples(st.just("end"), st.integers(0, 2**20), st.none()),
)
mutations = st.lists(change, min_size=1, max_size=4)
mutated = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def mutate(content: bytes, changes) -> bytes:
    for kind, place, value in changes:
        place %= max(1, len(content))
        if kind == "put":
            content = content[:place] + value + content[place + len(value) :]
        elif kind == "byte":
            content = content[:place] + bytes([value]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place] + content[place + value :]
        elif kind == "copy":
            content = content[:place] + content[place : place + value] + content[place:]
        else:
            content = content[:place]
    return content


def pickled(legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.manual_seed(0)
    torch.save(
        {"model": {"a.weight": torch.randn(4, 3), "b": torch.randn(5).half()}, "epoch": 3},
        file,
        _use_new_zipfile_serialization=not legacy,
    )
    return file.getvalue()


def read_or_refuse(read, *errors) -> None:
    """Whatever is not one of `errors` escapes, and fails the test."""
    try:
        read()
    except errors as error:
        assert str(error).strip()


def read_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.names():
            assert tuple(checkpoint.tensor(name).shape) == checkpoint.shape(name)


def through_children(contents, folder: Path) -> list:
    """What children would make of many pickles, in one of them: see read_many.py."""
    (folder / "contents.json").write_text(json.dumps([content.hex() for content in contents]))
    command = [
        sys.executable,
        "-I",
        Path(__file__).with_name("read_many.py"),
        ROOT / "scripts",
        folder / "contents.json",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_checkpoints(tmp_path, legacy):
    """All in one child: none of them ends it, and what the reader finds in them is tensors, tables and words."""
    whole, contents = pickled(legacy), []

    @mutated
    @given(mutations)
    def collect(changes):
        contents.append(mutate(whole, changes))

    collect()
    kinds = through_children([whole, *contents], tmp_path)
    assert kinds[0] == "m" and len(kinds) == 1 + len(contents)
    # A sample goes the whole way: a child each, then the numbers.
    read = [content for content, kind in zip(contents, kinds[1:]) if kind == "m"]
    for content in [*read[:5], *contents[:5]]:
        (tmp_path / "mutated.pth").write_bytes(content)
        read_or_refuse(lambda: read_all(tmp_path / "mutated.pth"), UserError)
    assert sorted(os.listdir(tmp_path)) == ["contents.json", "mutated.pth"]


def test_safetensors(tmp_path):
    whole = save({"a.weight": torch.randn(4, 3), "b": torch.randn(5).half(), "c": torch.zeros(0, 2)}, {"format": "pt"})

    @mutated
    @given(mutations)
    def run(changes):
        (tmp_path / "mutated.safetensors").write_bytes(mutate(whole, changes))
        read_or_refuse(lambda: read_all(tmp_path / "mutated.safetensors"), UserError)

    run()


@pytest.mark.parametrize("toml", [LLAVA_VIT_TOML, BYTEFORMER_TOML], ids=["llavavit", "byteformer"])
def test_configurations(tmp_path, toml):
    recipe = load_recipe(str(write_recipe(tmp_path, toml)))
    build_folder(tmp_path / "folder", recipe, None)
    (tmp_path / "folder" / "README.md").unlink()  # its reading starts a process
    whole = {name: (tmp_path / "folder" / name).read_bytes() for name in ("config.json", "preprocessor_config.json")}

    @mutated
    @given(mutations, st.sampled_from(sorted(whole)))
    def run(changes, name):
        for file, content in whole.items():
            (tmp_path / "folder" / file).write_bytes(mutate(content, changes) if file == name else content)
        read_or_refuse(lambda: recipe_from_folder(tmp_path / "folder").build_config(), UserError)

    run()


def direct(monkeypatch) -> None:
    """Reads TOML and YAML in this process: a child for each of thousands would take hours. Its own limits are tested elsewhere."""
    from hubtools.foreign import child, documents

    def read(reader, file, path, what, language):
        try:
            return json.loads(
                json.dumps(
                    {"TOML": documents.read_toml, "YAML": documents.read_yaml}[language](io.BytesIO(file.read()))
                )
            )
        except child.Refused as refused:
            raise UserError(f"{path} {refused}") from refused

    monkeypatch.setattr(documents, "read_in_child", read)


def test_recipes(tmp_path, monkeypatch):
    direct(monkeypatch)

    @mutated
    @given(mutations)
    def run(changes):
        (tmp_path / "mutated.toml").write_bytes(mutate(BYTEFORMER_TOML.encode(), changes))
        read_or_refuse(lambda: load_recipe(str(tmp_path / "mutated.toml")).build_config(), UserError)

    run()


def test_experiment_files(tmp_path, monkeypatch):
    direct(monkeypatch)

    @mutated
    @given(mutations)
    def run(changes):
        (tmp_path / "mutated.yaml").write_bytes(mutate(EXPERIMENT.encode(), changes))
        read_or_refuse(lambda: read_corenet_config(tmp_path / "mutated.yaml"), UserError)

    run()


def test_pictures(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((24, 18), 50).convert("RGB").save(file, "PNG")
    processor = PACKAGES["byteformer"].load().ByteFormerImageProcessor(size=16, crop_size=16, file_encoding="PNG")

    @mutated
    @given(mutations)
    def run(changes):
        (tmp_path / "mutated.png").write_bytes(mutate(file.getvalue(), changes))
        read_or_refuse(
            lambda: processor(open_picture(tmp_path / "mutated.png"), return_tensors="pt"), UserError, ValueError
        )

    run()


def test_sounds(tmp_path):
    package = PACKAGES["byteformer"].load()
    with wave.open(str(tmp_path / "whole.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(os.urandom(600))
    whole = (tmp_path / "whole.wav").read_bytes()
    extractor = package.ByteFormerFeatureExtractor()

    def decode(content: bytes) -> None:
        samples, _ = package.feature_extraction_byteformer.decode_wav(content)
        extractor(samples, return_tensors="pt")

    @mutated
    @given(mutations)
    def run(changes):
        read_or_refuse(lambda: decode(mutate(whole, changes)), ValueError)

    run()
