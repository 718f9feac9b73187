"""The whole way: an assembled folder goes up, and a stranger's process loads it by name."""

import json
import subprocess
import sys

import pytest
from hub_clients import INSTALLED, client_env, clients
from hub_kit import SCRIPTS, holds, run_python, run_upload
from hubtools.assembly.build import build_folder
from hubtools.assembly.recipes import load_recipe
from local_hub import LocalHub
from small import BYTEFORMER_TOML, LLAVA_VIT_TOML, write_recipe

pytestmark = pytest.mark.usefixtures("warm_python")
COLD = sys.executable  # has not imported anything yet

# Loads by name, in a process that knows nothing but HF_ENDPOINT, and compares with the file's weights.
LOAD = """
import json, sys
import torch, transformers
from safetensors.torch import load_file
name, folder, auto_class, processor_class = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(name, trust_remote_code=True)
processor = getattr(transformers, processor_class).from_pretrained(name, trust_remote_code=True)
saved, loaded = load_file(folder + "/model.safetensors"), model.state_dict()
equal = saved.keys() == loaded.keys() and all(torch.equal(saved[key], loaded[key]) for key in saved)
print(json.dumps({"class": type(model).__name__, "module": type(model).__module__, "processor": type(processor).__name__, "equal": equal}))
"""
KINDS = {
    "llavavit": (LLAVA_VIT_TOML, "AutoModel", "LlavaViTModel", "CLIPImageProcessor", "CLIPImageProcessor"),
    "byteformer": (
        BYTEFORMER_TOML,
        "AutoModelForImageClassification",
        "ByteFormerForImageClassification",
        "AutoImageProcessor",
        "ByteFormerImageProcessor",
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    base = tmp_path_factory.mktemp(kind)
    build_folder(base / kind, load_recipe(str(write_recipe(base, KINDS[kind][0], kind))), None)
    return base / kind


@pytest.fixture
def hub(tmp_path):
    with LocalHub(tmp_path / "hub") as running:
        running.token = running.add_account("user")
        yield running
    assert not [seen.path for seen in running.requests if seen.server == "storage" and "authorization" in seen.headers]


def loaded_by_name(hub, repo_id, folder, kind, tmp_path):
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    _, auto_class, _, processor, _ = KINDS[kind]
    ran = run_python(script, repo_id, folder, auto_class, processor, env=hub.env(HF_HUB_DISABLE_XET="1"))
    assert ran.code == 0, ran.err
    return json.loads(ran.out.splitlines()[-1])


def check_loaded(found, kind):
    assert found["class"] == KINDS[kind][2] and found["processor"].startswith(KINDS[kind][4]) and found["equal"]
    assert found["module"].startswith("transformers_modules."), "not the repository's code"


def test_upload_py_then_verify_py_then_load_by_name(hub, folder, kind, tmp_path):
    name = f"user/{kind}"
    ran = run_upload(hub, folder, name, token=hub.token, verified=True)
    assert ran.code == 0, ran.err
    assert "PASS  round trip: reload" in ran.err and holds(hub, name, folder)
    check_loaded(loaded_by_name(hub, name, folder, kind, tmp_path), kind)
    assert ran.out.splitlines()[-2:] == [
        f"from transformers import {KINDS[kind][1]}",
        f'model = {KINDS[kind][1]}.from_pretrained("{name}", trust_remote_code=True)',
    ]
    if kind == "llavavit":
        ran = run_python(SCRIPTS / "verify.py", name, env=hub.env())
        assert ran.code == 0 and f"PASS  {name}" in ran.out, ran.err + ran.out


COMMANDS = {
    "hf": "from huggingface_hub.cli.hf import main; main()",
    "huggingface-cli": "from huggingface_hub.commands.huggingface_cli import main; main()",
}


def cli_upload(hub, folder, name, client):
    """`hf upload`, or `huggingface-cli upload` where the release knows no `hf`."""
    env = {**hub.env(hub.token, HF_HUB_DISABLE_XET="1"), **client_env(client)}
    has_hf = subprocess.run([COLD, "-c", "import huggingface_hub.cli.hf"], env=env, capture_output=True).returncode == 0
    command = [COLD, "-c", COMMANDS["hf" if has_hf else "huggingface-cli"], "upload", name, str(folder), "."]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("client", clients())
def test_the_clients_own_upload_command_then_load_by_name(hub, folder, kind, tmp_path, client):
    name = f"user/{kind}"
    done = cli_upload(hub, folder, name, client)
    assert done.returncode == 0, done.stderr
    assert holds(hub, name, folder)
    if client == INSTALLED:
        check_loaded(loaded_by_name(hub, name, folder, kind, tmp_path), kind)


def test_upload_py_finds_nothing_to_send_after_the_clients_own_command(hub, folder, kind):
    name = f"user/{kind}"
    assert cli_upload(hub, folder, name, INSTALLED).returncode == 0
    ran = run_upload(hub, folder, name, token=hub.token)
    assert ran.code == 0 and "nothing to send" in ran.err
