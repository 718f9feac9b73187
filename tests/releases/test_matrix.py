"""The releases' page: what it shows is what the kept results say, and results are never taken for more than they are."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hubtools.errors import UserError
from hubtools.matrix.mutants import MUTANTS, broken_kit
from hubtools.matrix.releases import Environment, last_patches, parse_version, representative
from hubtools.matrix.results import (
    DOCUMENT,
    RESULTS,
    document,
    is_current,
    load_results,
    render,
    save_results,
    write_document,
)
from hubtools.matrix.suite import VARIANTS, _result
from hubtools.packages import PACKAGES, ROOT

PACKAGES_OF_A_RELEASE = {"huggingface_hub": "1.3.0", "torch": "2.13.0"}
PASSED = {
    "status": "passed", "passed": 3, "failed": {}, "not_applicable": {}, "seconds": 30.0, "install_seconds": 30.0,
    "packages": PACKAGES_OF_A_RELEASE, "fingerprint": "now",
}  # fmt: skip


def matrix(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "matrix.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_the_page_shows_the_results_and_the_readme_leads_there():
    assert DOCUMENT.read_text(encoding="utf-8") == document(load_results()), (
        "run `python scripts/matrix.py --write-page`"
    )
    passed = [version for version, result in load_results().items() if result["status"] == "passed"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/releases.md)" in readme and f"{len(passed)} of {len(load_results())}" in readme


def test_every_minor_has_a_result():
    releases = load_results()
    minors = [parse_version(version)[:2] for version in releases]
    assert minors == sorted(set(minors)) and minors[0] == (4, 46)
    assert [minor for major, minor in minors if major == 4] == list(range(46, 58))
    assert [minor for major, minor in minors if major == 5] == list(range(minors[-1][1] + 1))


def test_the_page_changes_with_the_results(tmp_path):
    failing = {**PASSED, "status": "failed", "failed": {"test_a": "no"}, "not_applicable": {"test_b": "no such class"}}
    releases = {
        "4.46.3": PASSED,
        "5.0.0": failing,
        "5.1.0": {"status": "not installable", "reason": "needs Python 3.12", "not_applicable": {}},
    }
    write_document(releases, tmp_path / "docs" / "releases.md")
    page = (tmp_path / "docs" / "releases.md").read_text(encoding="utf-8")
    assert page.endswith(f"{render(releases)}\n") and render(releases) != render({**releases, "5.0.0": PASSED})
    assert "| 5.0.0 | 1.3.0 | failed | 3 | 1 | 1 (a) |" in page and "(a) no such class" in page
    assert "| 5.1.0 | | not installable: needs Python 3.12 |" in page
    assert "1 of 3 releases pass" in page


def test_results_survive_the_file(tmp_path):
    file = tmp_path / "results.json"
    save_results({"5.10.0": PASSED, "5.9.0": PASSED, "4.46.3": PASSED}, file)
    assert list(load_results(file)) == ["4.46.3", "5.9.0", "5.10.0"]
    assert load_results(file)["5.9.0"] == PASSED
    file.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="remove it"):
        load_results(file)


@pytest.mark.parametrize("change", [{"fingerprint": "before"}, {"status": "failed"}, {"status": "not installable"}])
def test_only_a_pass_with_the_same_code_stands(change):
    assert is_current(PASSED, "now")
    assert not is_current({**PASSED, **change}, "now")


@pytest.mark.parametrize(
    "tests, status",
    [
        ({"a": {"outcome": "passed", "reason": ""}}, "passed"),
        (
            {"a": {"outcome": "passed", "reason": ""}, "b": {"outcome": "not applicable", "reason": "no such class"}},
            "passed",
        ),
        ({"a": {"outcome": "passed", "reason": ""}, "b": {"outcome": "failed", "reason": "wrong"}}, "failed"),
        ({"b": {"outcome": "not applicable", "reason": "no such class"}}, "failed"),
        ({}, "failed"),
    ],
)
def test_a_run_without_a_pass_has_failed(tests, status, tmp_path):
    assert _result(tests, Environment(tmp_path, {}), 1.0, {}, "")["status"] == status


def test_last_patches():
    given = ["5.0.0rc1", "4.45.2", "4.46.0", "4.46.3", "4.9.9", "5.10.4", "5.9.0", "5.10.2", "5.0.0", "nonsense"]
    assert last_patches(given) == ["4.46.3", "5.0.0", "5.9.0", "5.10.4"]


def test_representative():
    assert representative(["4.46.3", "4.57.6", "5.0.0", "5.7.0", "5.23.0"]) == ["4.46.3", "4.57.6", "5.0.0", "5.23.0"]
    assert representative(["5.0.0"]) == ["5.0.0"]


@pytest.mark.parametrize("version", ["4.46.x", "newest", "4..6", "-1"])
def test_a_version_that_is_none_is_an_error(version):
    done = matrix("--environments", "/nonexistent", "--", version)
    assert done.returncode == 2 and version in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutants_still_fit_the_models(mutant, tmp_path):
    """Each replaces text that is there, in every copy, and leaves valid Python that differs."""
    source = PACKAGES[mutant.package].folder / mutant.file
    for folder in ("packages/p", "folders/f"):
        (tmp_path / "kit" / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / "kit" / folder)
    broken_kit(tmp_path / "kit", mutant, tmp_path / "broken")
    for folder in ("packages/p", "folders/f"):
        text = (tmp_path / "broken" / folder / mutant.file).read_text(encoding="utf-8")
        compile(text, mutant.file, "exec")
        assert text != source.read_text(encoding="utf-8")


def test_variants_cover_every_architecture():
    shipped = {architecture for package in PACKAGES.values() for architecture in package.models.values()}
    assert shipped - {variant.architecture for variant in VARIANTS} == {
        "ByteFormerModel"
    }  # loaded from the classifiers' folders


def test_suite_is_not_collected_without_a_kit():
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(ROOT / "tests" / "contract"),
        "-q",
        "--collect-only",
        "-p",
        "no:cacheprovider",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "CONTRACT_KIT"}
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 5 and "no tests" in done.stdout.lower()


def test_results_are_json_that_others_can_read():
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    for version, result in content["releases"].items():
        assert result["packages"]["transformers"] == version
        assert result["passed"] > 200 or result["status"] != "passed"
