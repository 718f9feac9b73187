"""upload.py against a real client and a Hub on 127.0.0.1: what arrives, what goes wrong on the way, what is refused."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hub_clients import clients
from hub_kit import CARD, holds, make_folder, run_python, run_upload
from hubtools.errors import UserError
from hubtools.hub.files import local_files
from local_hub import Fault, LocalHub

pytestmark = pytest.mark.usefixtures("warm_python")

REPO = "user/model"


@pytest.fixture
def hub(tmp_path):
    with LocalHub(tmp_path / "hub") as running:
        running.token = running.add_account("user")
        yield running
    leaks = [seen.path for seen in running.requests if seen.server == "storage" and "authorization" in seen.headers]
    assert not leaks, "a token was sent to the storage host"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "folder")


@pytest.fixture(params=clients())
def client(request):
    return request.param


def commits(hub, repo_id=REPO):
    """The titles of the commits that clients made."""
    return [title for title in hub.repo(repo_id).titles if title not in ("initial commit", "by the test")]


def bytes_stored(hub):
    return sum(seen.received for seen in hub.sent("storage", "PUT"))


# With every client


def test_creates_the_repository_and_sends_every_file(hub, folder, client):
    ran = run_upload(hub, folder, REPO, token=hub.token, client=client)
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder) and not hub.repo(REPO).private
    assert len(commits(hub)) == 1
    assert ran.out.splitlines() == [
        f"{hub.endpoint}/{REPO}",
        "",
        "from transformers import AutoModel",
        f'model = AutoModel.from_pretrained("{REPO}", trust_remote_code=True)',
    ]


def test_a_second_run_sends_nothing_and_commits_nothing(hub, folder, client):
    assert run_upload(hub, folder, REPO, token=hub.token, client=client).code == 0
    stored = bytes_stored(hub)
    ran = run_upload(hub, folder, REPO, token=hub.token, client=client)
    assert ran.code == 0 and "nothing to send" in ran.err
    assert len(commits(hub)) == 1 and bytes_stored(hub) == stored


FAULTS = {
    "listing answers 500": Fault(r"GET .*/tree/", "status", 500),
    "repository look-up answers 502": Fault(r"GET /api/models/user/model", "status", 502),
    "create answers 503": Fault(r"POST /api/repos/create", "status", 503),
    "create's answer is lost": Fault(r"POST /api/repos/create", "lose answer"),
    "preupload drops": Fault(r"POST .*/preupload/", "drop"),
    "batch answers 503": Fault(r"POST .*/objects/batch", "status", 503),
    "storage answers 500": Fault(r"PUT /upload/", "status", 500),
    "storage answers 503 twice": Fault(r"PUT /upload/", "status", 503, times=2),
    "storage drops mid-file": Fault(r"PUT /upload/", "drop", after=100_000),
    "storage's answer is lost": Fault(r"PUT /upload/", "lose answer"),
    "storage address has expired": Fault(r"PUT /upload/", "status", 403),
    "commit answers 503": Fault(r"POST .*/commit/", "status", 503),
    "commit drops": Fault(r"POST .*/commit/", "drop", after=10),
    "another commit came first": Fault(r"POST .*/commit/", "status", 412),
}


@pytest.fixture(scope="module", params=clients())
def after_faults(request, tmp_path_factory):
    """One upload per fault, all at once because they spend their time waiting to retry: name -> (how it ended, its Hub)."""
    folder = make_folder(tmp_path_factory.mktemp("faults") / "folder")

    def attempt(name):
        with LocalHub(tmp_path_factory.mktemp("hub"), faults=[replace(FAULTS[name])]) as hub:
            return run_upload(hub, folder, REPO, token=hub.add_account("user"), client=request.param), hub, folder

    with ThreadPoolExecutor(6) as pool:
        return dict(zip(FAULTS, pool.map(attempt, FAULTS)))


@pytest.mark.parametrize("fault", FAULTS)
def test_survives(after_faults, fault):
    ran, hub, folder = after_faults[fault]
    assert hub.faults[0].times == 0, "the fault did not strike"
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder) and len(commits(hub)) == 1


def test_a_commit_whose_answer_was_lost_is_found_and_not_repeated(hub, folder, client):
    hub.faults = [Fault(r"POST .*/commit/", "lose answer")]
    ran = run_upload(hub, folder, REPO, token=hub.token, client=client)
    assert ran.code == 0, ran.err
    assert "retry 1 of 5" in ran.err
    assert holds(hub, REPO, folder) and len(commits(hub)) == 1
    assert bytes_stored(hub) == (folder / "model.safetensors").stat().st_size, "data was sent twice"


def test_a_pull_request_whose_answer_was_lost_is_found_and_not_repeated(hub, folder, client):
    hub.put(REPO, {"config.json": b"{}"})
    hub.faults = [Fault(r"POST .*/commit/", "lose answer")]
    ran = run_upload(hub, folder, REPO, "--create-pr", token=hub.token, client=client)
    assert ran.code == 0, ran.err
    assert len(hub.repo(REPO).pulls) == 1 and holds(hub, REPO, folder, "refs/pr/1")
    assert bytes_stored(hub) == (folder / "model.safetensors").stat().st_size, "data was sent twice"


def test_pull_request(hub, folder, client):
    hub.put(REPO, {"config.json": b"{}"})
    ran = run_upload(hub, folder, REPO, "--create-pr", token=hub.token, client=client)
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder, "refs/pr/1")
    assert set(hub.repo(REPO).tree()) == {".gitattributes", "config.json"}, "main was changed"
    assert f"{hub.endpoint}/{REPO}/discussions/1" in ran.out and 'revision="refs/pr/1"' in ran.out
    assert run_upload(hub, folder, REPO, "--create-pr", token=hub.token, client=client).code == 0
    assert len(hub.repo(REPO).pulls) == 1, "a second run opened a second pull request with the same files"


def test_revision_is_created_and_main_left_alone(hub, folder, client):
    hub.put(REPO, {"config.json": b"{}"})
    ran = run_upload(hub, folder, REPO, "--revision", "v2.0/beta", token=hub.token, client=client)
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder, "v2.0/beta")
    assert set(hub.repo(REPO).tree()) == {".gitattributes", "config.json"}
    assert 'revision="v2.0/beta"' in ran.out


def test_multipart_upload_with_a_part_dropped(hub, folder, client):
    hub.part_size = 70_000
    hub.faults = [Fault(r"PUT /upload/", "drop", after=30_000)]
    ran = run_upload(hub, folder, REPO, token=hub.token, client=client)
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder) and len(hub.sent("storage", "PUT")) >= 6


def test_200_mb_with_the_connection_dropped_in_the_middle(hub, tmp_path):
    folder = make_folder(tmp_path / "large", weights=os.urandom(1 << 20) * 200)
    hub.faults = [Fault(r"PUT /upload/", "drop", after=100 << 20)]
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder) and len(commits(hub)) == 1
    assert [seen.received for seen in hub.sent("storage", "PUT")] == [100 << 20, 200 << 20]


# Privacy, other people's repositories, what is already there


def test_private(hub, folder):
    assert run_upload(hub, folder, REPO, "--private", token=hub.token).code == 0
    assert hub.repo(REPO).private and holds(hub, REPO, folder)
    assert run_upload(hub, folder, REPO, "--private", token=hub.token).code == 0


def test_private_is_not_ignored_for_a_public_repository(hub, folder):
    hub.put(REPO, {"config.json": b"{}"})
    ran = run_upload(hub, folder, REPO, "--private", token=hub.token)
    assert ran.code == 2 and "is public" in ran.last_line
    assert not commits(hub) and not hub.sent(method="POST")


def test_a_repository_of_another_is_refused(hub, folder):
    hub.put("other/model", {"config.json": b"{}"})
    ran = run_upload(hub, folder, "other/model", token=hub.token)
    assert ran.code == 2 and "403" in ran.last_line and "--create-pr" in ran.last_line
    assert not commits(hub, "other/model") and bytes_stored(hub) == 0


def test_a_pull_request_to_a_repository_of_another(hub, folder):
    hub.put("other/model", {"config.json": b"{}"})
    ran = run_upload(hub, folder, "other/model", "--create-pr", token=hub.token)
    assert ran.code == 0, ran.err
    assert hub.repo("other/model").pulls[0].author == "user" and holds(hub, "other/model", folder, "refs/pr/1")


def test_a_private_repository_of_another_is_refused(hub, folder):
    hub.put("other/model", {"config.json": b"{}"}, private=True)
    ran = run_upload(hub, folder, "other/model", token=hub.token)
    assert ran.code == 2 and "403" in ran.last_line and not commits(hub, "other/model")


def test_an_existing_readme_is_kept_unless_asked(hub, folder):
    hub.put(REPO, {"README.md": b"written by hand"})
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 0 and "README.md" in ran.err
    assert hub.content(REPO, "README.md") == b"written by hand"
    assert hub.content(REPO, "model.safetensors") == (folder / "model.safetensors").read_bytes()
    assert run_upload(hub, folder, REPO, "--overwrite-readme", token=hub.token).code == 0
    assert hub.content(REPO, "README.md") == CARD.encode() and holds(hub, REPO, folder)


def test_only_what_differs_is_sent(hub, folder):
    assert run_upload(hub, folder, REPO, token=hub.token).code == 0
    stored = bytes_stored(hub)
    (folder / "config.json").write_text("{}")
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 0 and "1 of 5 files sent" in ran.err
    assert bytes_stored(hub) == stored and holds(hub, REPO, folder)


def test_left_over_weights_are_named_and_deleted_only_on_request(hub, folder):
    hub.put(REPO, {"pytorch_model.bin": b"old", "modeling_old.py": b"old", "notes.txt": b"mine"})
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 2 and "pytorch_model.bin" in ran.last_line and "modeling_old.py" in ran.last_line
    assert "notes.txt" not in ran.last_line and not commits(hub)
    ran = run_upload(hub, folder, REPO, "--delete-stale", token=hub.token)
    assert ran.code == 0 and "pytorch_model.bin" in ran.err
    assert set(hub.repo(REPO).tree()) == {".gitattributes", "notes.txt", *(path.name for path in folder.iterdir())}
    assert len(commits(hub)) == 1


def test_deleting_survives_a_lost_answer(hub, folder):
    hub.put(REPO, {"pytorch_model.bin": b"old"})
    hub.faults = [Fault(r"POST .*/commit/", "lose answer")]
    ran = run_upload(hub, folder, REPO, "--delete-stale", token=hub.token)
    assert ran.code == 0, ran.err
    assert holds(hub, REPO, folder) and len(commits(hub)) == 1


# Failures that last


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_hash_that_does_not_match_on_read_back(hub, folder, path):
    hub.misreported = {path}
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 1 and path in ran.last_line and "does not hold what was sent" in ran.last_line
    assert not ran.out


def test_a_file_that_changes_while_it_is_sent_is_noticed(hub, folder, tmp_path):
    """The hashes are taken before the verification, so what was verified is what must arrive."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'scripts')!r})\n"
        "import upload\nfrom hubtools import verification\nfrom hubtools.errors import run_script\n"
        f"def change(folder, progress):\n    (folder / 'config.json').write_text('changed'); return []\n"
        "verification.verify_folder = change\nrun_script(upload.main)\n"
    )
    ran = run_python(driver, folder, REPO, env=hub.env(hub.token))
    assert ran.code == 1 and "config.json" in ran.last_line


def test_a_hub_that_stays_down_ends_in_one_line(hub, folder):
    hub.faults = [Fault(r"GET /api/models", "status", 503, times=-1)]
    ran = run_upload(hub, folder, REPO, "--retries", "1", token=hub.token)
    assert ran.code == 2 and "503" in ran.last_line and "retry 1 of 1" in ran.err
    assert "Traceback" not in ran.err


def test_a_hub_that_is_not_there_ends_in_one_line(hub, folder):
    ran = run_upload(hub, folder, REPO, "--retries", "0", token=hub.token, HF_ENDPOINT="http://127.0.0.1:9")
    assert ran.code == 2 and "127.0.0.1:9" in ran.last_line and "Traceback" not in ran.err


def test_offline_mode_is_said_and_not_retried(hub, folder):
    ran = run_upload(hub, folder, REPO, token=hub.token, HF_HUB_OFFLINE="1")
    assert ran.code == 2 and "offline" in ran.last_line.lower() and "retry" not in ran.err
    assert not hub.requests


def test_a_card_that_the_hub_refuses(hub, folder):
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 2 and "README.md" in ran.last_line and not commits(hub)


# Nothing is sent that should not be


def test_dry_run_sends_nothing(hub, folder):
    ran = run_upload(hub, folder, REPO, "--dry-run", token=hub.token)
    assert ran.code == 0 and "model.safetensors" in ran.out and "nothing was sent" in ran.out
    assert len(hub.requests) == 0


def test_dry_run_needs_no_token(hub, folder):
    assert run_upload(hub, folder, REPO, "--dry-run").code == 0
    assert len(hub.requests) == 0


def test_a_folder_that_does_not_verify_is_not_sent(hub, folder):
    ran = run_upload(hub, folder, REPO, token=hub.token, verified=True)
    assert ran.code == 1 and "does not verify" in ran.last_line
    assert len(hub.requests) == 0


def test_hidden_files_stay_behind_and_are_named(hub, folder):
    (folder / ".env").write_text("HF_TOKEN=secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    ran = run_upload(hub, folder, REPO, token=hub.token)
    assert ran.code == 0 and ".env" in ran.err
    assert not [path for path in hub.repo(REPO).tree() if path.startswith((".env", ".git/"))]


def plant(folder, name, target):
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)


LINKS = {  # name of the link -> where it leads, what is said
    "notes.txt": ("../secret/key", "leads out of the folder"),
    "config.json": ("../secret/key", "leads out of the folder"),
    "sub/deeper.txt": ("../../secret/key", "leads out of the folder"),
    "more": ("../secret", "leads out of the folder"),
    "nowhere.txt": ("../absent", "leads out of the folder"),
    "root": ("/", "leads out of the folder"),
    "absent.txt": ("not-there", "broken link"),
    "here": (".", "a link to a folder"),
    "open.txt": (".env", "hidden and never published"),
    "round": ("round", "link"),
}


def test_a_link_is_followed_to_a_visible_file_of_the_folder_alone(tmp_path):
    """Nothing else is opened: the secret is a FIFO, and whoever opens it waits for ever."""
    (tmp_path / "secret").mkdir()
    os.mkfifo(tmp_path / "secret" / "key")
    for number, (name, (target, said)) in enumerate(LINKS.items()):
        folder = make_folder(tmp_path / f"folder{number}")
        (folder / ".env").write_text("HF_TOKEN=secret")
        (folder / name).unlink(missing_ok=True)
        plant(folder, name, target)
        with pytest.raises(UserError, match=said) as told:
            local_files(folder)
        assert str(folder / name) in str(told.value)
    folder = make_folder(tmp_path / "good")
    plant(folder, "LICENSE", "README.md")
    plant(folder, ".cache/blob", tmp_path / "secret" / "key")  # stays behind, so it harms nobody
    assert local_files(folder)["LICENSE"] == local_files(folder)["README.md"] and len(local_files(folder)) == 6


def test_a_link_out_of_the_folder_is_refused_before_anything_is_read_or_sent(hub, folder, tmp_path):
    (tmp_path / "key").write_text("a secret")
    for name in ("notes.txt", "config.json"):
        (folder / name).unlink(missing_ok=True)
        plant(folder, name, tmp_path / "key")
        ran = run_upload(hub, folder, REPO, token=hub.token)
        assert (
            ran.code == 2
            and name in ran.last_line
            and "leads out of the folder" in ran.last_line
            and "a secret" not in ran.err
        )
        (folder / name).unlink()
    assert not hub.requests


def test_a_file_that_becomes_a_link_while_it_is_sent_is_not_followed(hub, folder, tmp_path):
    (tmp_path / "key").write_text("a secret")
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'scripts')!r})\n"
        "import upload\nfrom hubtools import verification\nfrom hubtools.errors import run_script\n"
        "def change(folder, progress):\n    (folder / 'README.md').unlink(); (folder / 'README.md').symlink_to('../key'); return []\n"
        "verification.verify_folder = change\nrun_script(upload.main)\n"
    )
    ran = run_python(driver, folder, REPO, env=hub.env(hub.token))
    assert ran.code == 2 and "README.md is a link that leads out of the folder" in ran.last_line and not commits(hub)


# Tokens


def test_a_wrong_token_is_refused(hub, folder):
    ran = run_upload(hub, folder, REPO, token="hf_" + "0" * 34)
    assert ran.code == 2 and "401" in ran.last_line and "not valid" in ran.last_line
    assert REPO not in hub.store.repos and "retry" not in ran.err


def test_a_missing_token_is_said_before_anything_is_sent(hub, folder):
    ran = run_upload(hub, folder, REPO)
    assert ran.code == 2 and "HF_TOKEN" in ran.last_line and len(hub.requests) == 0


def test_a_read_only_token_is_refused(hub, folder):
    ran = run_upload(hub, folder, REPO, token=hub.add_account("user", may_write=False))
    assert ran.code == 2 and "403" in ran.last_line and "write access" in ran.last_line


def test_the_saved_login_is_used(hub, folder):
    Path(hub.env()["HF_HOME"], "token").write_text(hub.token + "\n")
    assert run_upload(hub, folder, REPO).code == 0 and holds(hub, REPO, folder)


def test_the_argument_goes_before_the_environment(hub, folder):
    assert run_upload(hub, folder, REPO, "--token", hub.token, token="hf_wrong").code == 0


LEAK_FAULTS = {
    "all goes well": [],
    "the Hub echoes it in a 400": "POST .*/commit/",
    "the Hub echoes it in a 401": "GET /api/models",
    "the Hub echoes it in a 403": "POST /api/repos/create",
    "the storage fails": "PUT /upload/",
}


GIVEN = ["argument", "environment", "saved login"]


def upload_with_token(tmp_path, event, given):
    """An upload that logs all it can, during `event`, with the token `given` in one of three ways."""
    where = LEAK_FAULTS[event]
    with LocalHub(tmp_path / "hub") as hub:
        token = hub.add_account("user")
        status = {"400": 400, "401": 401, "403": 403}.get(event[-3:], 500)
        hub.faults = (
            [Fault(where, "status", status, message=f"bad token {token} in Authorization: Bearer {token}")]
            if where
            else []
        )
        arguments = [make_folder(tmp_path / "folder"), REPO, "--debug", "--retries", "1"]
        if given == "argument":
            arguments += ["--token", token]
        if given == "saved login":
            Path(hub.env()["HF_HOME"], "token").write_text(token)
        logging = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
        return run_upload(hub, *arguments, token=token if given == "environment" else None, **logging), hub, token


@pytest.fixture(scope="module")
def token_uploads(tmp_path_factory):
    cases = [(event, given) for event in LEAK_FAULTS for given in GIVEN]
    folders = [tmp_path_factory.mktemp("tokens") for _ in cases]
    with ThreadPoolExecutor(6) as pool:
        results = pool.map(lambda folder, case: upload_with_token(folder, *case), folders, cases)
        return {case: (folder, *result) for case, folder, result in zip(cases, folders, results)}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("event", LEAK_FAULTS)
def test_the_token_appears_nowhere(token_uploads, event, given):
    folder, ran, hub, token = token_uploads[event, given]
    assert (ran.code == 0) == (event in ("all goes well", "the storage fails")), ran.err
    assert "Request" in ran.err or "Send:" in ran.err, "the client did not log; this test would see nothing"
    if "echoes" in event:
        assert "bad token <token>" in ran.err, "the Hub's message did not come through"
    assert token not in ran.out and token not in ran.err
    login = folder / "hub" / "hf_home" / "token"
    assert not [
        path for path in folder.rglob("*") if path.is_file() and path != login and token.encode() in path.read_bytes()
    ]
    assert any(seen.headers.get("authorization") == f"Bearer {token}" for seen in hub.sent("hub"))
    assert not [seen for seen in hub.sent("storage") if token in str(seen)]


def test_the_checks_run_without_the_token(hub, folder, tmp_path):
    """They run the code of the folder, which has no business with it."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'scripts')!r})\n"
        "import upload\nfrom hubtools import verification\nfrom hubtools.errors import run_script\n"
        "def look(folder, progress):\n    print(sorted(k for k, v in os.environ.items() if 'hf_' in v and 'TOKEN' in k)); return []\n"
        "verification.verify_folder = look\nrun_script(upload.main)\n"
    )
    ran = run_python(driver, folder, REPO, "--dry-run", env=hub.env(hub.token, HUGGING_FACE_HUB_TOKEN=hub.token))
    assert ran.code == 0 and ran.out.splitlines()[0] == "[]"


# Bad input: one line, exit code 2, no request


def no_folder(folder):
    return [folder / "absent", REPO], "not there"


def a_file(folder):
    return [folder / "config.json", REPO], "not a folder"


def an_empty_folder(folder):
    (folder / "empty").mkdir()
    return [folder / "empty", REPO], "config.json"


def no_config(folder):
    (folder / "config.json").unlink()
    return [folder, REPO], "config.json"


def a_broken_link(folder):
    (folder / "extra.json").symlink_to(folder / "absent")
    return [folder, REPO], "extra.json"


def a_pipe(folder):
    os.mkfifo(folder / "pipe.json")
    return [folder, REPO], "pipe.json"


BAD_FOLDERS = [no_folder, a_file, an_empty_folder, no_config, a_broken_link, a_pipe]
BAD_NAMES = [
    "model",
    "a/b/c",
    "user/",
    "/model",
    "",
    "user/mo del",
    "user/model.git",
    "user/mod--el",
    "user/modèle",
    "user/" + "x" * 120,
    "https://huggingface.co/user/model",
]
BAD_TOKENS = ["", "  ", "hf_a b", "hf_a\nb", "hf_é"]


@pytest.mark.parametrize("bad", BAD_FOLDERS, ids=lambda bad: bad.__name__)
def test_bad_folder(hub, folder, bad):
    arguments, said = bad(folder)
    check_refused(hub, run_upload(hub, *arguments, token=hub.token), said)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_repository_name(hub, folder, name):
    check_refused(hub, run_upload(hub, folder, name, token=hub.token), "repository")


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_bad_token(hub, folder, token):
    ran = run_upload(hub, folder, REPO, "--token", token)
    check_refused(hub, ran, "token")
    assert not token.strip() or token.strip() not in ran.err


@pytest.mark.parametrize("endpoint", ["localhost:8000", "ftp://127.0.0.1", "http://"])
def test_bad_endpoint(hub, folder, endpoint):
    check_refused(hub, run_upload(hub, folder, REPO, token=hub.token, HF_ENDPOINT=endpoint), "HF_ENDPOINT")


def test_bad_number_of_retries(hub, folder):
    check_refused(hub, run_upload(hub, folder, REPO, "--retries", "-1", token=hub.token), "--retries")


def test_unknown_option(hub, folder):
    check_refused(hub, run_upload(hub, folder, REPO, "--publik", token=hub.token), "--publik")


def check_refused(hub, ran, said):
    assert ran.code == 2, ran.err
    assert len(ran.err.strip().splitlines()) == 1 and ran.err.startswith("error: ") and said in ran.err
    assert len(hub.requests) == 0
