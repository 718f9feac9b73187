"""What the contract suite said on each release: the JSON file that is kept, and the page made from it."""

import json
import string
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping

from ..errors import UserError
from ..packages import ROOT
from ..staging import replace_text
from .releases import parse_version

RESULTS = ROOT / "tests" / "contract" / "results.json"
DOCUMENT = ROOT / "docs" / "releases.md"
INTRODUCTION = """# The releases, one by one

The same files on every release of transformers: loading through each Auto class, bit-equal weights, recorded outputs,
every attention backend, gradients, saving, processors, pipelines (`tests/contract/`). `python scripts/matrix.py` writes
this page from `tests/contract/results.json`; `make matrix` runs the suite again on all of them.
"""
KEPT = (
    "status",
    "passed",
    "failed",
    "not_applicable",
    "seconds",
    "install_seconds",
    "packages",
    "fingerprint",
    "reason",
)


def load_results(file: Path = RESULTS) -> Dict[str, Dict[str, Any]]:
    """Release -> result, oldest release first; empty where there is no file yet.

    Raises:
        UserError: the file is not what this module writes.
    """
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))["releases"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} does not hold results of matrix.py ({error!r}); remove it to start anew") from error


def save_results(releases: Mapping[str, Mapping[str, Any]], file: Path = RESULTS) -> None:
    ordered = {
        version: {key: releases[version][key] for key in KEPT if key in releases[version]}
        for version in sorted(releases, key=parse_version)
    }
    replace_text(file, json.dumps({"releases": ordered}, indent=1) + "\n")


def is_current(result: Mapping[str, Any], fingerprint: str) -> bool:
    """Whether a result stands: passed, with the code and the suite as they are now."""
    return result.get("status") == "passed" and result.get("fingerprint") == fingerprint


def notes_of(releases: Mapping[str, Mapping[str, Any]]) -> Dict[str, str]:
    """The reasons for which something is not applicable, each with a letter, in order of first appearance."""
    reasons = dict.fromkeys(
        reason for result in releases.values() for reason in result.get("not_applicable", {}).values()
    )
    return dict(zip(reasons, string.ascii_lowercase))


def render(releases: Mapping[str, Mapping[str, Any]]) -> str:
    """The table, what its letters mean, and the sum of it."""
    notes = notes_of(releases)
    lines = [
        "| transformers | huggingface_hub | result | passed | failed | not applicable |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(version, result, notes) for version, result in releases.items()]
    lines += [""] + [f"({letter}) {reason}  " for reason, letter in notes.items()]
    return "\n".join([*lines, "", _summary(releases)])


def _row(version: str, result: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    if result["status"] == "not installable":
        return f"| {version} | | not installable: {result['reason']} | | | |"
    absent = list(result["not_applicable"].values())
    letters = ", ".join(f"{absent.count(reason)} ({letter})" for reason, letter in notes.items() if reason in absent)
    hub = result["packages"]["huggingface_hub"]
    return f"| {version} | {hub} | {result['status']} | {result['passed']} | {len(result['failed'])} | {letters or 0} |"


def _summary(releases: Mapping[str, Mapping[str, Any]]) -> str:
    total = sum(result.get("seconds", 0) for result in releases.values())
    torches = sorted({result["packages"]["torch"] for result in releases.values() if "packages" in result})
    passed = count(releases.values(), "passed")
    return (
        f"{passed} of {len(releases)} releases pass, with torch {', '.join(torches)}; the runs took {total / 60:.0f} "
        "minutes, added up."
    )


def count(results: Iterable[Mapping[str, Any]], status: str) -> int:
    return sum(result["status"] == status for result in results)


def document(releases: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/releases.md."""
    return f"{INTRODUCTION}\n{render(releases)}\n"


def write_document(releases: Mapping[str, Mapping[str, Any]], file: Path = DOCUMENT) -> None:
    file.parent.mkdir(exist_ok=True)
    replace_text(file, document(releases))
