#!/usr/bin/env python3
"""Runs the contract suite on transformers releases, each in an environment of its own that shares this one's torch.

    python scripts/matrix.py                    the last patch of every minor from 4.46 to the newest on the registry
    python scripts/matrix.py 4.46 5.0.0         some releases: a minor means its last patch
    python scripts/matrix.py --mutants          deliberately broken copies of the models: each must be caught
    python scripts/matrix.py --write-page       only docs/releases.md, from the results that are there

A run that was stopped goes on where it was: results stand as long as the code and the suite are the same. docs/releases.md
is kept in step with tests/contract/results.json, so that the two agree however a run ends.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import contextlib
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from hubtools.errors import ArgumentParser, UserError, run_script

ROOT = Path(__file__).resolve().parents[1]


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="matrix.py", description=__doc__)
    parser.add_argument(
        "versions",
        nargs="*",
        metavar="VERSION",
        help="releases such as 4.46.3, or minors such as 4.46 (default: all from 4.46 on)",
    )
    parser.add_argument(
        "--environments", type=Path, default=ROOT / ".venvs", help="where the environments live (default .venvs)"
    )
    parser.add_argument(
        "--logs",
        type=Path,
        default=ROOT / "build" / "matrix",
        help="where each run's output goes (default build/matrix)",
    )
    parser.add_argument("--results", type=Path, help="the JSON file (default tests/contract/results.json)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="releases at a time (default: one per core, up to 4)",
    )
    parser.add_argument("--fresh", action="store_true", help="run again what has passed already")
    parser.add_argument("--mutants", action="store_true", help="test the suite: run it on broken copies of the models")
    parser.add_argument("--write-page", action="store_true", help="only write docs/releases.md")
    return parser


def main(argv=None) -> int:
    arguments = build_parser().parse_args(argv)
    from hubtools.matrix.results import RESULTS, load_results, write_document

    arguments.results = (arguments.results or RESULTS).resolve()
    if arguments.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, got {arguments.jobs}")
    if arguments.write_page:
        write_document(load_results(arguments.results))
        return 0
    versions = choose_versions(arguments)
    if arguments.mutants:
        return run_mutants(arguments, versions)
    return run_matrix(arguments, versions)


def choose_versions(arguments) -> list:
    """Full release numbers, oldest first."""
    from hubtools.matrix.releases import (
        InstallError,
        last_patches,
        minor,
        parse_version,
        published_releases,
        representative,
    )
    from hubtools.matrix.results import load_results

    exact = [version for version in arguments.versions if len(parse_version(version)) > 2]
    if arguments.versions and len(exact) == len(arguments.versions):
        return exact
    try:
        published = published_releases()
    except InstallError as error:
        published = last_patches(load_results(arguments.results))
        if not published:
            raise UserError(f"the registry cannot be asked for the releases: {error}") from error
        print(
            f"the registry cannot be asked ({error}); taking the {len(published)} releases of {arguments.results}",
            file=sys.stderr,
        )
    if not arguments.versions:
        return representative(published) if arguments.mutants else published
    by_minor = {minor(version): version for version in published}
    unknown = [version for version in arguments.versions if version not in exact and version not in by_minor]
    if unknown:
        raise UserError(f"no such minor: {', '.join(unknown)}; known: {', '.join(by_minor)}")
    return [version if version in exact else by_minor[version] for version in arguments.versions]


@contextlib.contextmanager
def workers(jobs):
    """Threads that, when the script is stopped, finish what they have begun and begin nothing more."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_matrix(arguments, versions) -> int:
    from hubtools.matrix.results import RESULTS, count, is_current, load_results, save_results, write_document
    from hubtools.matrix.suite import fingerprint, prepare_kit

    results, mark, started = load_results(arguments.results), fingerprint(), time.perf_counter()
    standing = (
        [] if arguments.fresh else [version for version in versions if is_current(results.get(version, {}), mark)]
    )
    waiting = [version for version in versions if version not in standing]
    for version in standing:
        report(version, results[version], "(from an earlier run)")
    arguments.logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="contract-kit-") as scratch, workers(arguments.jobs) as pool:
        kit = Path(scratch) / "kit"
        if waiting:
            prepare_kit(kit)
        for version, result in zip(waiting, pool.map(lambda version: run_release(arguments, version, kit), waiting)):
            results[version] = {**result, "fingerprint": mark}
            save_results(results, arguments.results)
            if arguments.results == RESULTS:
                write_document(load_results())
            report(version, results[version])
    chosen = [results[version] for version in versions]
    passed, failed, absent = (count(chosen, status) for status in ("passed", "failed", "not installable"))
    print(
        f"{passed} passed, {failed} failed, {absent} not installable, in {time.perf_counter() - started:.0f} s; results in {arguments.results}"
    )
    return 1 if failed or absent else 0


def run_release(arguments, version, kit) -> dict:
    from hubtools.matrix.releases import InstallError, build_environment
    from hubtools.matrix.suite import run_suite

    started = time.perf_counter()
    try:
        environment = build_environment(version, arguments.environments)
    except InstallError as error:
        return {"status": "not installable", "reason": str(error), "passed": 0, "failed": {}, "not_applicable": {}}
    install_seconds = round(time.perf_counter() - started, 1)
    result = run_suite(environment, kit)
    (arguments.logs / f"tf-{version}.log").write_text(result.pop("output"), encoding="utf-8")
    return {**result, "install_seconds": install_seconds}


def report(version, result, remark="") -> None:
    detail = result.get("reason") or (
        f"{result['passed']} passed, {len(result['failed'])} failed, {len(result['not_applicable'])} not applicable, "
        f"{result['install_seconds']:.0f} + {result['seconds']:.0f} s"
    )
    print(f"{version:8} {result['status']:15} {detail} {remark}".rstrip(), flush=True)
    for name, reason in result["failed"].items():
        print(f"    {name}: {reason}", flush=True)


def run_mutants(arguments, versions) -> int:
    """Prints, for each broken copy, what the suite says on each release; exit code 0 where all are caught."""
    from hubtools.matrix.mutants import MUTANTS, broken_kit
    from hubtools.matrix.releases import build_environment
    from hubtools.matrix.suite import prepare_kit, run_suite
    from hubtools.packages import PACKAGES

    missed = []
    with tempfile.TemporaryDirectory(prefix="contract-kit-") as scratch, workers(arguments.jobs) as pool:
        environments = [build_environment(version, arguments.environments) for version in versions]
        kit = Path(scratch) / "kit"
        prepare_kit(kit)
        for number, mutant in enumerate(MUTANTS):
            broken = Path(scratch) / f"mutant{number}"
            broken_kit(kit, mutant, broken)
            runs = pool.map(partial(run_suite, kit=broken, selection=PACKAGES[mutant.package].model_type), environments)
            failed = {version: list(result["failed"]) for version, result in zip(versions, runs)}
            print(mutant.name)
            for version in versions:
                print(
                    f"    {version:8} "
                    + (
                        f"{len(failed[version])} tests fail, first {failed[version][0]}"
                        if failed[version]
                        else "not noticed"
                    ),
                    flush=True,
                )
            missed += [] if any(failed.values()) else [mutant.name]
    print(
        f"{len(MUTANTS) - len(missed)} of {len(MUTANTS)} broken copies caught"
        + (f"; missed: {'; '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


if __name__ == "__main__":
    run_script(main)
