"""The packages on the floor, the last 4.x, the first 5.x and the newest transformers, each in an environment of its own.

The suite itself is tests/contract/; `make matrix` runs all of it on every release. Here the floor gets all of it, the others
what users of a Hub folder meet. Environments are kept in .venvs, or in $RELEASE_ENVIRONMENTS.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hubtools.matrix.releases import build_environment, representative
from hubtools.matrix.results import load_results
from hubtools.matrix.suite import prepare_kit, run_suite
from hubtools.packages import ROOT

ENVIRONMENTS = Path(os.environ.get("RELEASE_ENVIRONMENTS", ROOT / ".venvs"))
# The releases of the kept results: a new one on the registry must not turn an unchanged repository red.
VERSIONS = representative(list(load_results()))


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """Release -> its run, started together so that every core has something to do."""

    def run(version):
        floor = version == VERSIONS[0]
        environment = build_environment(version, ENVIRONMENTS)
        return run_suite(environment, kit, selection=None if floor else "not test_export", short=not floor)

    kit = tmp_path_factory.mktemp("contract") / "kit"
    prepare_kit(kit)
    chosen = [item.callspec.params["version"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield {version: pool.submit(run, version) for version in chosen}


@pytest.mark.parametrize("version", VERSIONS)
def test_contract(version, runs):
    result = runs[version].result()
    reasons = "\n".join(f"{name}: {reason}" for name, reason in result["failed"].items())
    assert result["status"] == "passed", f"{reasons}\n{result['output'][-4000:]}"
