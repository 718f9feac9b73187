"""Every snippet of the documentation runs as it stands, in a folder such as its reader would sit in.

Python blocks of one document run in order in one process; a printed line that a comment announces must come out so.
Shell blocks run under `bash -e` in a terminal, uploads against a Hub on 127.0.0.1. `make` targets are looked up, not
run:
they run this suite.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import embed
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.packages import ROOT
from language_models import golden_config, host
from local_hub import LocalHub
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from small import call, in_layout, random_state
from terminal import run_in_terminal
from video_clips import moving_object, write_video

pytestmark = pytest.mark.usefixtures("warm_python")
COLD = Path(sys.executable)  # a Python that has not imported anything yet
DOCUMENTS = ["README.md", "docs/embedding.md", "docs/video.md", "llavavit/README.md", "byteformer/README.md"]
# One recipe for every template of a model card.
CARDS = [
    "llava-vit-small",
    "onevision-encoder-large-lang",
    "byteformer-imagenet-jpeg-q60-k4-w128",
    "byteformer-speech-commands-wav",
    "byteformer-speech-commands-mp3-k4-w32",
]
TRAINED = "llava-vit-small"  # the documents hold a checkpoint of it
NATIVE = "native"  # a classifier of images at their own size
TOWER = "tower"  # made from a language model's folder, without a recipe
DEMOS = ["byteformer-digits", "llava-vit-moving-digits"]


def blocks(text: str, language: str):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def announced(code: str):
    """What the comments behind print() announce: shapes, a number or a word."""
    return [
        match.group(1)
        for match in re.finditer(r"^\s*print\(.*\)  # (\([\d, ]+\)(?: \([\d, ]+\))*|\S+)$", code, flags=re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the documents mention: models, a photograph, a digit, a checkpoint, the repository's own
    folders."""
    desk = tmp_path_factory.mktemp("desk")
    copy_repository(desk)
    for name in DEMOS:
        shutil.copytree(ROOT / "hub_repos" / name, desk / "your-name" / name)
    for name in CARDS:
        build_folder(desk / "your-name" / name, smaller(name), None)
    Image.fromarray(load_sample_image("china.jpg")).save(desk / "photo.jpg")
    Image.fromarray((load_digits().images[0] * 255 / 16).astype("uint8")).save(desk / "digit.png")
    write_video(desk / "clip.mp4", moving_object(0, frames=12, size=64).frames)
    (desk / "word.mp3").write_bytes(b"ID3" + os.urandom(3000))  # the model reads bytes: any will do
    write_sound(desk / "word.wav")
    recipe = smaller(TRAINED)
    training = in_layout(recipe, random_state(recipe), "training")
    torch.save({"model": {f"module.{key}": value for key, value in training.items()}}, desk / f"{TRAINED}.pth")
    host(desk / "LLaVA-OneVision-2")
    build_folder(desk / "your-name" / TOWER, tower_recipe(), None)
    build_folder(desk / "your-name" / NATIVE, native_recipe(), None)
    for name in ("day", "night"):
        for index in range(4):
            picture, clip = desk / "pictures" / name / f"{index}.jpg", desk / "clips" / name / f"{index}.mp4"
            for path in (picture, clip):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((60 + 20 * index, 50), 30).convert("RGB").save(picture)
            write_video(clip, moving_object(index, frames=6, size=48).frames)
    save_embeddings(desk)
    return desk


def save_embeddings(desk: Path) -> None:
    """What the document on embedding reads, as its own command makes it."""
    text = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    command = blocks(text, "bash")[0].splitlines()[0].split()
    with pytest.MonkeyPatch.context() as here:
        here.chdir(desk)
        made = call(embed.main, *command[2:])
    assert made.code == 0, made


def copy_repository(desk: Path) -> None:
    """The repository as a clone has it, but for the sizes of the model that the documents assemble: the demo assembles
    it whole (test_terminal.py)."""
    for name in ("llavavit", "byteformer", "scripts", "hub_repos"):
        shutil.copytree(ROOT / name, desk / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "docs"):
        (desk / name).symlink_to(ROOT / name)
    recipe = desk / "hub_repos" / f"{TRAINED}.toml"
    text = recipe.read_text(encoding="utf-8")
    for key, value in smaller(TRAINED).config.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    recipe.write_text(text, encoding="utf-8")
    assert load_recipe(str(recipe)).config == smaller(TRAINED).config


def tower_recipe():
    sizes = golden_config("tower_windows")
    return dataclasses.replace(load_recipe("onevision-encoder-large-lang"), name=TOWER, config=sizes)


def native_recipe():
    recipe = smaller("llava-vit-small")
    settings = {"image_processor_type": "LlavaViTImageProcessor", "max_num_patches": 64}
    return dataclasses.replace(recipe, name=NATIVE, architecture="LlavaViTForImageClassification", processor=settings)


def write_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(os.urandom(32000))


def smaller(name: str):
    """The recipe with fewer and narrower layers: the same card and processor, quick to run."""
    recipe = load_recipe(name)
    config = {**recipe.config, "num_hidden_layers": 1}
    if recipe.package.name == "byteformer":
        config.update(max_position_embeddings=30000, window_shifts=[0], downsample=[True])
    else:
        config.update(hidden_size=64, intermediate_size=128, num_attention_heads=2)
    return dataclasses.replace(recipe, config=config)


def environment(desk: Path, **more):
    own = {
        "HF_HOME": str(desk / "cache"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{COLD.parent}:{os.environ['PATH']}",
    }
    return {**os.environ, **more, **own}


def run_python(desk: Path, code: str, python: object = None) -> subprocess.CompletedProcess:
    (desk / "snippets.py").write_text(code, encoding="utf-8")
    result = subprocess.run(
        [python or sys.executable, "snippets.py"],
        cwd=desk,
        env=environment(desk, HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def check_python(desk: Path, text: str) -> int:
    found = blocks(text, "python")
    if found:
        code = "\n".join(found)
        out = run_python(desk, code).stdout.splitlines()
        for line in announced(code):
            assert line in out, f"{line!r} is announced, printed was {out}"
    return len(found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_of_the_documents(desk, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    parts = text.split("## 中文快速上手\n")  # the quick start begins anew: nothing above it is needed
    assert sum(check_python(desk, part) for part in parts) > 0
    assert not re.findall(r"^```(?!python|bash|$)\w*", text, flags=re.MULTILINE), (
        "a block in a language that is not run"
    )


def test_the_first_snippet_runs_on_what_the_repository_holds_and_warns_of_nothing(desk):
    first = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")[0]
    assert "your-name" not in first and len(first.strip().splitlines()) <= 3
    ran = run_python(desk, first, COLD)
    assert ran.stdout == "7\n"
    said = [
        line for line in re.split(r"[\r\n]+", ran.stderr) if line.strip() and not line.startswith("Loading weights")
    ]
    assert said == []


def test_the_readme_is_short_and_leads_to_files_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text)]
    assert linked and all((ROOT / target).exists() for target in linked)


@pytest.mark.parametrize("name", [*CARDS, *DEMOS, TOWER, NATIVE])
def test_python_of_the_model_cards(desk, name):
    card = (desk / "your-name" / name / "README.md").read_text(encoding="utf-8")
    assert check_python(desk, card) > 0


SHELL = [
    (name, index)
    for name in DOCUMENTS
    for index in range(len(blocks((ROOT / name).read_text(encoding="utf-8"), "bash")))
]


@pytest.mark.parametrize("name, index", SHELL)
def test_shell_of_the_documents(desk, tmp_path, name, index):
    block = blocks((ROOT / name).read_text(encoding="utf-8"), "bash")[index]
    if block.startswith("make "):
        for target in re.findall(r"^make (\w+)", block, flags=re.MULTILINE):
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
        return
    with LocalHub(tmp_path) as hub:
        token = hub.add_account("your-name")
        shown = run_in_terminal(["bash", "-e", "-c", block], desk, environment(desk, **hub.env(token)))
    assert shown.code == 0 and "Traceback" not in shown.text, shown.text[-3000:]
