"""finetune.py from the outside: small runs on folders of files, killed ones, several processes, adapters, bad input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import finetune
import pytest
import torch
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from hubtools.packages import PACKAGES, ROOT
from safetensors.torch import load_file
from small import call, files_up_to, trainable_toml, write_recipe

pytestmark = pytest.mark.usefixtures("warm_python")

SCRIPT = ROOT / "scripts" / "finetune.py"
TINY = trainable_toml("ByteFormerModel", 'file_encoding = "PNG"', max_position_embeddings=64)
# Two kinds of files that differ in a way a few steps can learn: small numbers and large ones.
CLASSES = {"low": (0, 100), "high": (100, 200)}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny model without a head, and files of ragged length in two classes."""
    place = tmp_path_factory.mktemp("start")
    build_folder(place / "tiny", load_recipe(str(write_recipe(place, TINY, "tiny"))), None)
    generator = random.Random(0)
    for name, (low, high) in CLASSES.items():
        (place / "files" / name).mkdir(parents=True)
        for index in range(60):
            content = bytes(generator.randrange(low, high) for _ in range(generator.randrange(20, 60)))
            (place / "files" / name / f"{index:02d}.dat").write_bytes(content)
    return place


def command(start, output, *more):
    fixed = ["--batch-size", "8", "--learning-rate", "3e-3", "--no-verify"]
    return [start / "tiny", "--dataset", start / "files", "--output", output, *fixed, *more]


def process(*arguments, launcher=(), **kwargs):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def card_accuracy(folder: Path) -> float:
    from huggingface_hub import ModelCard

    return ModelCard.load(folder / "README.md").data.eval_results[0].metric_value


def test_a_folder_of_files_becomes_a_hub_folder_that_verifies(start, tmp_path):
    arguments = [
        argument for argument in command(start, tmp_path / "done", "--epochs", "3") if argument != "--no-verify"
    ]
    result = call(finetune.main, *arguments)
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "done" / "config.json").read_text())
    assert config["id2label"] == {"0": "high", "1": "low"}
    assert config["architectures"] == ["ByteFormerForImageClassification"]
    assert card_accuracy(tmp_path / "done") >= 0.9
    assert f"test accuracy: {100 * card_accuracy(tmp_path / 'done'):.2f} %" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done"]  # no checkpoints, nothing half-built


def test_killed_and_resumed_it_ends_as_if_nothing_had_happened(start, tmp_path):
    """Killed by SIGKILL, in the middle of an epoch: a checkpoint every 4 steps, 10 steps an epoch."""
    settings = ("--epochs", "4", "--save-steps", "4", "--keep-checkpoints")
    assert call(finetune.main, *command(start, tmp_path / "whole", *settings)).code == 0
    room = tmp_path / "killed.training"
    killed = process(*command(start, tmp_path / "killed", *settings))
    while not (room / "checkpoint-4" / "trainer_state.json").is_file():
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed").exists()
    resumed = call(finetune.main, *command(start, tmp_path / "killed", *settings))
    assert resumed.code == 0 and "continuing from" in resumed.err, resumed.err
    curves = [
        dict(json.loads((tmp_path / f"{name}.training" / "loss.json").read_text())) for name in ("whole", "killed")
    ]
    assert curves[0].keys() == curves[1].keys()
    assert max(abs(curves[0][step] - curves[1][step]) for step in curves[0]) < 1e-4
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    # Keys' biases cancel in the softmax: their gradient is rounding noise, which the optimizer scales up to its step.
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-3) for name in weights[0])
    assert card_accuracy(tmp_path / "whole") == card_accuracy(tmp_path / "killed")


@pytest.mark.parametrize("fits", ["nothing", "the weights"])
def test_a_full_disk_is_told_and_the_same_command_goes_on(start, tmp_path, fits):
    size = (start / "tiny" / "model.safetensors").stat().st_size
    arguments = command(start, tmp_path / "done", "--max-steps", "4", "--save-steps", "2")
    full = process(*arguments, preexec_fn=files_up_to(size // 2 if fits == "nothing" else size + 4096))
    _, errors = full.communicate()
    assert full.returncode == 2 and "training stopped: " in errors.splitlines()[-1], errors
    assert not (tmp_path / "done").exists()
    assert call(finetune.main, *arguments).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done"]


def test_a_half_written_checkpoint_is_dropped_and_other_settings_are_refused(start, tmp_path):
    settings = ("--max-steps", "6", "--save-steps", "3", "--keep-checkpoints")
    assert call(finetune.main, *command(start, tmp_path / "first", *settings)).code == 0
    room = tmp_path / "second.training"
    (tmp_path / "first.training").rename(room)
    (room / "checkpoint-7").mkdir()  # the kill came before its state was written
    result = call(finetune.main, *command(start, tmp_path / "second", *settings))
    assert result.code == 0 and "continuing from" in result.err and "checkpoint-6" in result.err, result.err
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = call(finetune.main, *command(start, tmp_path / "second", *settings, "--overwrite", "--seed", "1"))
    assert other.code == 2 and "seed was 0, is 1" in other.err and "--no-resume" in other.err


def test_two_processes_have_the_loss_curve_of_one(start, tmp_path):
    settings = ("--max-steps", "20", "--keep-checkpoints")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    two = process(*command(start, tmp_path / "two", *settings), launcher=launcher)
    assert call(finetune.main, *command(start, tmp_path / "one", *settings)).code == 0
    out, err = two.communicate()
    assert two.returncode == 0, err[-3000:]
    one, two = (json.loads((tmp_path / f"{name}.training" / "loss.json").read_text()) for name in ("one", "two"))
    assert [step for step, _ in one] == [step for step, _ in two] == list(range(1, 21))
    assert max(abs(a - b) for (_, a), (_, b) in zip(one, two)) < 1e-4
    assert one[0][1] > one[-1][1]


def test_sharding_by_the_layers_that_the_model_names_gives_the_same_losses():
    """torch's FSDP on two processes, directly: accelerate shards over GPUs only."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    worker = str(ROOT / "tests" / "scripts" / "sharded_steps.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    found = []
    for processes in ("1", "2"):
        command = [*launcher, processes, worker, *PACKAGES]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(json.loads(done.stdout.splitlines()[-1]))
    for package in PACKAGES:
        losses = [one[package] for one in found]
        assert len(losses[0]) == len(losses[1]) == 5 and losses[0][0] != losses[0][-1]
        assert max(abs(a - b) for a, b in zip(*losses)) < 1e-4, package


def test_adapters_are_merged_into_the_folder(start, tmp_path):
    result = call(finetune.main, *command(start, tmp_path / "merged", "--epochs", "2", "--lora", "4"))
    assert result.code == 0, result.err
    before, after = (
        load_file(start / "tiny" / "model.safetensors"),
        load_file(tmp_path / "merged" / "model.safetensors"),
    )
    assert set(after) == {f"byteformer.{name}" for name in before} | {"classifier.weight", "classifier.bias"}
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[f"byteformer.{name}"])}
    assert changed == {name for name in before if name.endswith(("proj.weight", "fc1.weight", "fc2.weight"))}
    for name in changed:  # what was added is of low rank
        assert torch.linalg.matrix_rank(after[f"byteformer.{name}"] - before[name], rtol=1e-3) <= 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing"], "missing is not a Hub folder"),
        (["{start}/files"], "is not a Hub folder (it has no config.json)"),
        (["{start}/tiny", "--dataset", "numbers"], "dataset numbers is not a folder"),
        (["{start}/tiny", "--dataset", "moving-digits"], "clips, which byteformer cannot take"),
        (["{start}/tiny", "--output", "{start}/files"], "exists"),
        (["{start}/tiny", "--output", "{start}/tiny", "--overwrite"], "would replace the input"),
        (["{start}/tiny", "--batch-size", "0"], "--batch-size must be more than 0, got 0"),
        (["{start}/tiny", "--epochs", "-1"], "--epochs must be more than 0"),
        (["{start}/tiny", "--learning-rate", "nan"], "--learning-rate must be more than 0, got nan"),
        (["{start}/tiny", "--warmup", "1.5"], "--warmup must be in [0, 1), got 1.5"),
        (["{start}/tiny", "--lora", "-2"], "must not be negative"),
        (["{start}/tiny", "--lora", "4", "--fsdp"], "do not go together"),
        pytest.param(
            ["{start}/tiny", "--fsdp"],
            "--fsdp needs GPUs",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs"),
        ),
        (["{start}/tiny", "--epoch", "many"], "invalid float value"),
        (["{start}/tiny", "--seed", "0.5"], "invalid int value"),
    ],
)
def test_bad_input_is_one_line(start, tmp_path, arguments, message):
    given = [argument.format(start=start) for argument in arguments]
    for name, default in (("--dataset", start / "files"), ("--output", tmp_path / "out")):
        given += [] if name in given else [name, default]
    result = call(finetune.main, *given)
    assert result.code == 2 and message in result.err, result.err
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
