"""Uploads an assembled folder to the Hub: verified before, compared hash by hash after.

    python scripts/upload.py hub_repos/llava-vit-base user/llava-vit-base
    python scripts/upload.py FOLDER USER/NAME [--private] [--create-pr] [--revision R] [--token T] [--dry-run]

The token comes from --token, else HF_TOKEN, else the saved login (`hf auth login`); prefer the latter two, as arguments
show in the system's list of processes. It is sent to the Hub's own address only and is never printed. Another Hub is
named by HF_ENDPOINT.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

from hubtools.errors import ArgumentParser, UserError, run_script

if TYPE_CHECKING:
    from hubtools.hub.files import Hashes
    from hubtools.hub.upload import Outcome


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    summary, _, usage = __doc__.partition("\n\n")
    parser = ArgumentParser(prog="upload.py", description=summary, epilog=usage)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a folder that assemble.py built")
    parser.add_argument("repo_id", metavar="REPO_ID", help="USER/NAME or ORGANISATION/NAME; created if absent")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request in place of a commit")
    parser.add_argument(
        "--revision", metavar="R", help="branch to upload to, created if absent (with --create-pr: to propose to)"
    )
    parser.add_argument("--token", metavar="T", help="access token; better left to HF_TOKEN or the saved login")
    parser.add_argument("--message", metavar="TEXT", help="title of the commit or pull request")
    parser.add_argument("--overwrite-readme", action="store_true", help="replace a README.md that the repository has")
    parser.add_argument(
        "--delete-stale",
        action="store_true",
        help="delete weights, code and configuration files on the Hub that the folder lacks",
    )
    parser.add_argument(
        "--retries", metavar="N", type=int, default=5, help="whole attempts after a passing failure (default: 5)"
    )
    parser.add_argument("--dry-run", action="store_true", help="verify and list what would be sent; send nothing")
    return parser.parse_args(argv)


class NotVerified(UserError):
    """The folder is not good. Exit code 1, as verify.py's own."""

    exit_code = 1


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def check_folder(folder: Path) -> Path:
    from hubtools.hub.files import local_paths

    if not folder.is_dir():
        raise UserError(
            f"{folder} is {'not a folder' if folder.exists() else 'not there'}; accepted: a folder that assemble.py "
            "built"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; accepted: a folder that assemble.py built")
    local_paths(folder)  # before anything is read: what a link leads to is not the folder's
    return folder


def verify(folder: Path) -> None:
    """Runs verify.py's checks.

    Raises:
        NotVerified: If one fails. Nothing has been sent by then.
    """
    from hubtools.verification import failures, verify_folder

    failed = failures(verify_folder(folder, progress=lambda check: note(check.row())))
    if failed:
        raise NotVerified(
            f"{folder} is not uploaded, because it does not verify: "
            f"{'; '.join(f'{check.name}: {check.summary}' for check in failed)}"
        )


def model_class(folder: Path) -> str:
    """The Auto class of the folder's architecture, for the line of code at the end."""
    from hubtools.foreign.files import read_json_object
    from hubtools.foreign.schema import GENERIC, check

    path = folder / "config.json"
    config = read_json_object(path)
    check({key: config[key] for key in GENERIC if key in config}, {"type": "object", "properties": GENERIC}, str(path))
    architecture = (config.get("architectures") or [""])[0]
    auto_map = (config.get("auto_map") or {}).items()
    auto_classes = [auto for auto, where in auto_map if str(where).split(".")[-1] == architecture]
    return auto_classes[0] if auto_classes else "AutoModel"


def show_plan(folder: Path, files: "Dict[str, Hashes]", args: argparse.Namespace, endpoint: str) -> None:
    for path, hashes in files.items():
        print(f"{hashes.sha256[:12]}  {hashes.size:>14,}  {path}")
    where = " as a pull request" if args.create_pr else ""
    branch = f" on {args.revision}" if args.revision else ""
    total = sum(hashes.size for hashes in files.values())
    print(
        f"{len(files)} files, {total:,} bytes from {folder} would go to {endpoint}/{args.repo_id}{branch}{where}; "
        "nothing was sent"
    )


def lines_of_code(outcome: "Outcome", repo_id: str, auto_class: str) -> List[str]:
    revision = f', revision="{outcome.revision}"' if outcome.revision != "main" else ""
    return [
        f"from transformers import {auto_class}",
        f'model = {auto_class}.from_pretrained("{repo_id}"{revision}, trust_remote_code=True)',
    ]


def show_outcome(outcome: "Outcome", files: "Dict[str, Hashes]", repo_id: str, auto_class: str) -> None:
    plan = outcome.plan
    if plan.keeps_card:
        note("README.md: the repository's own is kept (--overwrite-readme replaces it)")
    if plan.delete and outcome.sent:
        note(f"deleted on the Hub: {', '.join(plan.delete)}")
    done = f"{len(plan.add)} of {len(files)} files sent" if outcome.sent else "nothing to send"
    note(f"{done}; every hash on the Hub equals the local one")
    print(outcome.address)
    print()
    print("\n".join(lines_of_code(outcome, repo_id, auto_class)))


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse(argv)
    if args.retries < 0:
        raise UserError(f"--retries {args.retries}; accepted: 0 or more")
    from hubtools.hub.client import check_repo_id, prepare
    from hubtools.hub.files import local_files, skipped_paths
    from hubtools.hub.secrets import take_token
    from hubtools.hub.upload import Target, upload

    endpoint = prepare()
    token = take_token(args.token)
    folder = check_folder(args.folder)
    check_repo_id(args.repo_id)
    if token is None and not args.dry_run:
        raise UserError("no access token; pass --token, set HF_TOKEN or run `hf auth login`")
    auto_class = model_class(folder)
    files = local_files(folder)
    if skipped := skipped_paths(folder):
        note(f"not uploaded, being hidden: {', '.join(skipped)}")
    verify(folder)
    if args.dry_run:
        show_plan(folder, files, args, endpoint)
        return 0
    title = args.message or f"Upload {auto_class.replace('Auto', '', 1)} with trust_remote_code"
    target = Target(
        args.repo_id, args.private, args.create_pr, args.revision, args.overwrite_readme, args.delete_stale, title
    )
    outcome = upload(folder, files, target, token, args.retries, note)
    show_outcome(outcome, files, args.repo_id, auto_class)
    return 0


if __name__ == "__main__":
    run_script(main)
