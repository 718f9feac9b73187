"""Runs the contract suite only when it is given a kit, away from the repository, and writes down what came out.

Environment: CONTRACT_KIT, the prepared folders (absent: the suite is not collected); CONTRACT_REPORT, a JSON file of outcomes to write;
CONTRACT_SHORT, whether to leave out classes that are imported from the packages (kit.py).
"""

import json
import os
import sys
from pathlib import Path

import pytest

NOT_APPLICABLE = "not applicable: "

if "CONTRACT_KIT" not in os.environ:
    collect_ignore_glob = ["*.py"]
else:
    _outcomes = {}

    def pytest_configure():
        """Every load parses a folder's code for its imports, which took half of a run: the same text is parsed once.

        Nor is the progress bar of every load drawn, which nobody sees.
        """
        from transformers import dynamic_module_utils, logging

        found, parse = {}, dynamic_module_utils.get_imports

        def get_imports(file):
            code = Path(file).read_bytes()
            if code not in found:
                found[code] = parse(file)
            return list(found[code])

        dynamic_module_utils.get_imports = get_imports
        logging.disable_progress_bar()

    @pytest.fixture(autouse=True)
    def fixed_seed():
        """Every test starts from the same random state, so that a failure repeats."""
        import torch

        torch.manual_seed(0)

    @pytest.fixture
    def not_applicable():
        """Leaves the test as not applicable; only for something that this release itself lacks."""
        return lambda reason: pytest.skip(NOT_APPLICABLE + reason)

    def pytest_runtest_logreport(report):
        if report.when == "call" or report.outcome != "passed":
            outcome, reason = report.outcome, ""
            if outcome == "skipped":
                reason = (
                    report.longrepr[2].partition("Skipped: ")[2]
                    if isinstance(report.longrepr, tuple)
                    else str(report.longrepr)
                )
                outcome = (
                    "not applicable" if reason.startswith(NOT_APPLICABLE) else "failed"
                )  # nothing else may be skipped
                reason = reason[len(NOT_APPLICABLE) :] if outcome == "not applicable" else f"skipped: {reason}"
            elif outcome == "failed":
                crash = getattr(report.longrepr, "reprcrash", None)
                reason = (crash.message if crash else str(report.longrepr)).splitlines()[0][:300]
            if _outcomes.get(report.nodeid, {}).get("outcome") != "failed":
                _outcomes[report.nodeid] = {"outcome": outcome, "reason": reason}

    def pytest_collectreport(report):
        if report.failed:
            _outcomes[report.nodeid] = {
                "outcome": "failed",
                "reason": str(report.longrepr).strip().splitlines()[-1][:300],
            }

    def pytest_sessionfinish(session, exitstatus):
        import torch
        import transformers

        if "CONTRACT_REPORT" in os.environ:
            content = {
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "python": sys.version.split()[0],
                "tests": _outcomes,
            }
            Path(os.environ["CONTRACT_REPORT"]).write_text(json.dumps(content, indent=1), encoding="utf-8")
