"""example_usage.py: every template runs on a folder of its kind, as verify.py runs it, and shows what the model is
for."""

import json
import os
import subprocess
import sys

import pytest
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.packages import PACKAGES, ROOT
from hubtools.verification import SKIP
from hubtools.verification.check import CheckFailed, CheckList
from hubtools.verification.child import run_isolated
from hubtools.verification.files import EXAMPLES
from hubtools.verification.probes.example import run_example
from hubtools.verification.runner import _Verification
from huggingface_hub import ModelCard
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, write_recipe

pytestmark = pytest.mark.usefixtures("warm_python")

VERIFICATION = ROOT / "scripts" / "hubtools" / "verification"
AUDIO = BYTEFORMER_TOML.replace("ImageClassification", "AudioClassification").partition("[processor]")[0]
MODELS = {  # template -> (recipe, what its output shows)
    "llavavit_features": (LLAVA_VIT_TOML, "image: (1, 16, 64), finite: True"),
    "llavavit_image": (LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForImageClassification"), "LABEL_"),
    "llavavit_native": (
        LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForImageClassification").replace(
            "[card]", '[processor]\nimage_processor_type = "LlavaViTImageProcessor"\nmax_num_patches = 50\n\n[card]'
        ),
        "640 x 320 pixels, 5 x 10 patches: LABEL_",
    ),
    "llavavit_video": (
        LLAVA_VIT_TOML.replace("LlavaViTModel", "LlavaViTForVideoClassification"),
        "all 96 patches: LABEL_",
    ),
    "byteformer_features": (
        BYTEFORMER_TOML.replace("ByteFormerForImageClassification", "ByteFormerModel"),
        "pooled: (1, 64)",
    ),
    "byteformer_image": (BYTEFORMER_TOML, "LABEL_"),
    "byteformer_audio": (AUDIO + '[processor]\nfile_encoding = "WAV"\n', "LABEL_"),
    "byteformer_audio of MP3 files": (AUDIO + '[processor]\nfile_encoding = "MP3"\n', "LABEL_"),
}


RUN_ALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from probes.example import run_example
del sys.path[0]
print(json.dumps([run_example(path) for path in sys.argv[2:]]))
"""


def run_isolated_code(workdir, code, *arguments):
    """What a process that sees nothing of this repository prints."""
    environment = {**os.environ, "HF_HOME": str(workdir), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=workdir, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_all(folders, workdir):
    """What verify.py's check gives for each folder's example; one process for all of them."""
    printed = run_isolated_code(workdir, RUN_ALL, VERIFICATION, *(folder / "example_usage.py" for folder in folders))
    return json.loads(printed.splitlines()[-1])


def test_the_example_of_every_kind_of_model_runs_and_shows_what_it_is_for(tmp_path):
    assert {path.name for path in EXAMPLES.glob("*_example.py")} - {
        "any_example.py",
        "llavavit_tower_example.py",
    } == {  # towers: test_tower.py
        f"{name.split()[0]}_example.py" for name in MODELS
    }
    kinds = sum(len(package.models) for package in PACKAGES.values()) + 1  # a classifier of images has two
    assert kinds == len({name.split()[0] for name in MODELS})
    for name, (toml, _) in MODELS.items():
        build_folder(tmp_path / name, load_recipe(str(write_recipe(tmp_path, toml))), None)
        assert (tmp_path / name / "example_usage.py").read_bytes() == (
            EXAMPLES / f"{name.split()[0]}_example.py"
        ).read_bytes()
    for (name, (_, shown)), printed in zip(MODELS.items(), run_all([tmp_path / name for name in MODELS], tmp_path)):
        assert shown in printed, f"{name}: {printed}"


def test_the_examples_of_the_trained_models(tmp_path):
    motion, digits = run_all(
        [ROOT / "hub_repos" / name for name in ("llava-vit-moving-digits", "byteformer-digits")], tmp_path
    )
    assert [line.split(": ")[1].split()[0] for line in motion.splitlines()] == ["right"] * 3, (
        "a square that moves to the right"
    )
    assert " bytes" in digits and len(digits.splitlines()) == 5


def test_an_example_that_is_not_ours_is_not_run(tmp_path):
    folder, workdir = tmp_path / "folder", tmp_path / "work"
    build_folder(folder, load_recipe(str(write_recipe(tmp_path))), None)
    (folder / "example_usage.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    verification = _Verification(folder, None, None, CheckList())
    verification.look(run_foreign_code=True)
    workdir.mkdir()
    checks = CheckList()
    run_isolated(
        {**verification.job(workdir), "mode": "inspect", "checks": ["load: model", "example: runs"]}, checks, workdir
    )
    assert checks.checks[-1].status == SKIP and "none that assemble.py writes" in checks.checks[-1].detail
    assert not (tmp_path / "it ran").exists()


def test_an_example_that_prints_nothing_fails(tmp_path):
    (tmp_path / "silent.py").write_text("x = 1\n")
    with pytest.raises(CheckFailed, match="prints nothing"):
        run_example(str(tmp_path / "silent.py"))


RUN_PIPELINES = """
import json, sys
import numpy
from PIL import Image
from transformers import pipeline
given = {
    "image": Image.effect_mandelbrot((320, 240), (-3, -2.5, 2, 2.5), 100).convert("RGB"),
    "video": (numpy.arange(6 * 40 * 48 * 3) % 251).astype("uint8").reshape(6, 40, 48, 3),
    "audio": {"raw": numpy.sin(numpy.arange(16000) * 0.1, dtype="float32"), "sampling_rate": 16000},
}
for tag, folder in json.loads(sys.argv[1]):
    answer = pipeline(tag, model=folder, trust_remote_code=True)(given[tag.split("-")[0]])
    print(json.dumps([tag, len(answer)]))
"""


def test_a_card_promises_the_pipelines_that_answer(tmp_path):
    """A video model's is the one that its folder brings: transformers' own would give the frames as a batch of images."""
    promised = {}
    for name, (toml, _) in MODELS.items():
        long = toml.replace("max_position_embeddings = 400", "max_position_embeddings = 34000")
        build_folder(tmp_path / name, load_recipe(str(write_recipe(tmp_path, long))), None)
        promised[name] = ModelCard.load(tmp_path / name / "README.md").data.pipeline_tag
    assert promised.pop("byteformer_audio of MP3 files") == "audio-classification"
    asked = json.dumps([[tag, str(tmp_path / name)] for name, tag in promised.items()])
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN_PIPELINES, asked],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [tag for tag, _ in answers] == list(promised.values()) and all(length for _, length in answers)
    assert set(promised.values()) == {
        "image-feature-extraction", "image-classification", "video-classification", "audio-classification",
    }  # fmt: skip
