#!/usr/bin/env python3
"""Verifies a Hub folder, or a repository on the Hub: named checks, PASS, FAIL or SKIP, exit code 0 only when none fails.

    python scripts/verify.py hub_repos/llava-vit-base
    python scripts/verify.py my-folder --checkpoint original.pth --reference original.py:build_model
    python scripts/verify.py namespace/name --revision main --json result.json

The model is loaded in fresh processes that see neither this repository nor a cache. With --reference, NAME(config) of
FILE.py is your own original: a torch.nn.Module, made from the configuration as a dictionary, whose state dict is in any
layout that assemble.py reads. It gets the folder's weights (the checkpoint's, where --checkpoint is given and differs)
and the same inputs. It may return a tensor, a tuple, a dictionary or a ModelOutput.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence

from hubtools.assembly.origin import add_checkpoint_arguments, origin_from
from hubtools.errors import ArgumentParser, UserError, run_script

if TYPE_CHECKING:
    from hubtools.verification import Check

REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def parse(argv: Optional[Sequence[str]]):
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("target", metavar="FOLDER|REPO_ID", help="a local folder, or namespace/name on the Hub")
    add_checkpoint_arguments(parser, "what the folder was made from: a file, an index of shards, or a folder")
    parser.add_argument(
        "--reference",
        metavar="FILE.py:NAME",
        help="your own original, to compare configuration, structure and outputs with",
    )
    parser.add_argument(
        "--files",
        metavar="FILE",
        nargs="+",
        type=Path,
        default=[],
        help="pictures, sounds or clips for which exported files must give the classifier's own labels",
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of REPO_ID")
    parser.add_argument(
        "--run-foreign-code",
        action="store_true",
        help="load a model whose code is not this repository's, too: only what you have read",
    )
    parser.add_argument("--verbose", action="store_true", help="show the particulars of every check")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results to FILE")
    return parser.parse_args(argv)


def verify_target(arguments, progress: "Callable[[Check], None]") -> "List[Check]":
    """Verifies the folder of that name, else the repository of that name on the Hub."""
    from hubtools.verification import verify_folder

    checkpoint, reference = origin_from(arguments), arguments.reference
    if Path(arguments.target).exists():
        if arguments.revision:
            raise UserError(f"--revision goes with a repository on the Hub; {arguments.target} is a local folder")
        return verify_folder(
            arguments.target, checkpoint, reference, progress, arguments.run_foreign_code, given(arguments.files)
        )
    if not REPO_ID.fullmatch(arguments.target):
        raise UserError(
            f"{arguments.target!r} is neither a folder nor a repository; accepted: an existing folder, or namespace/name"
        )
    # Imported late: a local folder does not need huggingface_hub.
    from hubtools.hub.download import fetch_verified
    from hubtools.hub.secrets import take_token

    folder = fetch_verified(arguments.target, revision=arguments.revision, token=take_token())
    return verify_folder(folder, checkpoint, reference, progress, arguments.run_foreign_code, given(arguments.files))


def given(files: Sequence[Path]) -> Sequence[Path]:
    for file in files:
        if not file.is_file():
            raise UserError(f"--files {file} is not a file")
    return files


def verdict(target: str, checks: "Sequence[Check]", seconds: float) -> str:
    from hubtools.verification import FAIL, PASS, SKIP, failures

    failed = failures(checks)
    counts = ", ".join(
        f"{sum(check.status == status for check in checks)} {word}"
        for status, word in ((PASS, "passed"), (FAIL, "failed"), (SKIP, "skipped"))
    )
    names = f": {'; '.join(check.name for check in failed)}" if failed else ""
    return f"{FAIL if failed else PASS}  {target}: {counts} in {seconds:.0f} s{names}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = parse(argv)
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        raise UserError(f"--json {arguments.json}: its folder does not exist")
    from hubtools.verification import failures

    started = time.perf_counter()
    checks = verify_target(arguments, lambda check: print(check.row(arguments.verbose), flush=True))
    seconds = time.perf_counter() - started
    if arguments.json:
        result = {"target": arguments.target, "revision": arguments.revision, "passed": not failures(checks), "seconds": seconds,
                  "checks": [check.as_dict() for check in checks]}  # fmt: skip
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(verdict(arguments.target, checks, seconds))
    return 1 if failures(checks) else 0


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
