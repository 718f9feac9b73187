"""verify.py REPO_ID: what it fetches is what the Hub lists, byte for byte, or it says which file is not."""

from pathlib import Path

import pytest
from hub_clients import clients
from hub_kit import SCRIPTS, make_folder, names_and_bytes, run_fetch, run_python
from local_hub import Fault, LocalHub

pytestmark = pytest.mark.usefixtures("warm_python")

REPO = "user/model"


@pytest.fixture
def hub(tmp_path):
    with LocalHub(tmp_path / "hub") as running:
        running.token = running.add_account("user")
        running.files = names_and_bytes(make_folder(tmp_path / "folder"))
        running.put(REPO, running.files)
        yield running
    assert not [seen.path for seen in running.requests if seen.server == "storage" and "authorization" in seen.headers]


@pytest.fixture(params=clients())
def client(request):
    return request.param


def run_verify(hub, *arguments, token=None):
    return run_python(SCRIPTS / "verify.py", *arguments, env=hub.env(token))


def fetched(ran):
    """The bytes of the snapshot that a fetch printed the path of."""
    return {name: data for name, data in names_and_bytes(Path(ran.out.strip())).items() if name != ".gitattributes"}


def test_fetches_every_file(hub, client):
    ran = run_fetch(hub, REPO, client=client)
    assert ran.code == 0, ran.err
    assert fetched(ran) == hub.files


FLIPS = {
    "model.safetensors": r"GET /blob/",
    "config.json": r"GET /user/model/resolve/[^ ]*/config\.json",
    "modeling_tiny.py": r"GET .*/modeling_tiny\.py",
}


@pytest.mark.parametrize("name", FLIPS)
def test_a_byte_flipped_on_the_way_is_found_and_the_next_run_is_clean(hub, client, name):
    hub.faults = [Fault(FLIPS[name], "flip", after=len(hub.files[name]) // 2)]
    ran = run_fetch(hub, REPO, client=client)
    assert hub.faults[0].times == 0, "the fault did not strike"
    assert ran.code == 1 and f" {name}: " in ran.last_line and "Traceback" not in ran.err
    assert not [other for other in hub.files if other != name and f" {other}: " in ran.last_line]
    again = run_fetch(hub, REPO, client=client)
    assert again.code == 0 and fetched(again) == hub.files


def test_verify_py_finds_the_flipped_byte_before_it_loads_anything(hub):
    hub.faults = [Fault(r"GET /blob/", "flip", after=123_456)]
    ran = run_verify(hub, REPO)
    assert ran.code == 1 and "model.safetensors" in ran.last_line and not ran.out


def test_a_file_damaged_in_the_cache_is_found(hub):
    snapshot = Path(run_fetch(hub, REPO).out.strip())
    content = (snapshot / "model.safetensors").resolve()
    content.write_bytes(b"\0" + content.read_bytes()[1:])
    ran = run_fetch(hub, REPO)
    assert ran.code == 1 and "model.safetensors" in ran.last_line
    again = run_fetch(hub, REPO)
    assert again.code == 0 and fetched(again) == hub.files


def test_a_download_that_breaks_off_is_completed(hub, client):
    hub.faults = [Fault(r"GET /blob/", "cut", after=100_000)]
    ran = run_fetch(hub, REPO, client=client)
    assert ran.code == 0 and fetched(ran) == hub.files, ran.err


def test_a_hub_that_answers_503_once(hub, client):
    hub.faults = [Fault(r"GET /api/models/.*/tree", "status", 503)]
    ran = run_fetch(hub, REPO, client=client)
    assert ran.code == 0 and fetched(ran) == hub.files, ran.err


@pytest.mark.parametrize("revision", ["v2", "refs/pr/1", "commit"])
def test_revision(hub, revision):
    wanted = hub.put(REPO, {"config.json": b'{"v": 2}'}, ref="v2" if revision == "commit" else revision)
    ran = run_fetch(hub, REPO, wanted if revision == "commit" else revision)
    assert ran.code == 0, ran.err
    assert fetched(ran) == {**hub.files, "config.json": b'{"v": 2}'}
    assert fetched(run_fetch(hub, REPO)) == hub.files


def test_private_repository(hub):
    hub.put("user/secret", {"config.json": b"{}"}, private=True)
    assert fetched(run_fetch(hub, "user/secret", token=hub.token)) == {"config.json": b"{}"}
    ran = run_verify(hub, "user/secret")
    assert ran.code == 2 and "401" in ran.last_line and "HF_TOKEN" in ran.last_line
    ran = run_verify(hub, "user/secret", token=hub.add_account("stranger"))
    assert ran.code == 2 and "404" in ran.last_line


BAD = {
    "no such repository": (["user/absent"], "no such repository"),
    "no such revision": ([REPO, "--revision", "v9"], "v9"),
    "not a name": (["user/mo--del"], "repository"),
    "three parts": (["a/b/c"], "accepted"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input(hub, bad):
    arguments, said = BAD[bad]
    ran = run_verify(hub, *arguments, token=hub.token)
    assert ran.code == 2 and said in ran.last_line and "Traceback" not in ran.err and not ran.out


def test_a_wrong_token_is_said_and_not_shown(hub):
    ran = run_verify(hub, REPO, token="hf_" + "1" * 34)
    assert ran.code == 2 and "not valid" in ran.last_line and "1" * 34 not in ran.err
