"""What the contract suite said on each release: the JSON file that is kept, and the README's table made from it."""

import json
import string
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping

from ..errors import UserError
from ..packages import ROOT
from .releases import parse_version
from ..staging import replace_text

RESULTS = ROOT / "tests" / "contract" / "results.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- matrix:begin -->", "<!-- matrix:end -->"
KEPT = ("status", "passed", "failed", "not_applicable", "seconds", "install_seconds", "packages", "fingerprint", "reason")


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
    ordered = {version: {key: releases[version][key] for key in KEPT if key in releases[version]} for version in sorted(releases, key=parse_version)}
    replace_text(file, json.dumps({"releases": ordered}, indent=1) + "\n")


def is_current(result: Mapping[str, Any], fingerprint: str) -> bool:
    """Whether a result stands: passed, with the code and the suite as they are now."""
    return result.get("status") == "passed" and result.get("fingerprint") == fingerprint


def notes_of(releases: Mapping[str, Mapping[str, Any]]) -> Dict[str, str]:
    """The reasons for which something is not applicable, each with a letter, in order of first appearance."""
    reasons = dict.fromkeys(reason for result in releases.values() for reason in result.get("not_applicable", {}).values())
    return dict(zip(reasons, string.ascii_lowercase))


def render(releases: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's table."""
    notes = notes_of(releases)
    lines = ["| transformers | huggingface_hub | result | passed | failed | not applicable |", "|---|---|---|---|---|---|"]
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
        f"{passed} of {len(releases)} releases pass, with torch {', '.join(torches)}; "
        f"the runs took {total / 60:.0f} minutes, added up. Made by `make matrix`."
    )


def count(results: Iterable[Mapping[str, Any]], status: str) -> int:
    return sum(result["status"] == status for result in results)


def readme_table(text: str) -> str:
    """What stands between the README's markers.

    Raises:
        UserError: a marker is missing or they are the wrong way round.
    """
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise UserError(f"README.md needs the lines {BEGIN} and {END} around the table")
    return text[begin + len(BEGIN) : end].strip("\n")


def write_readme(releases: Mapping[str, Mapping[str, Any]], file: Path = README) -> None:
    text = file.read_text(encoding="utf-8")
    readme_table(text)
    head, _, rest = text.partition(BEGIN)
    replace_text(file, f"{head}{BEGIN}\n{render(releases)}\n{END}{rest.partition(END)[2]}")
