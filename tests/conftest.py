"""Makes the packages and the scripts' shared code importable for the tests, whatever the working directory."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "scripts", ROOT / "tests", *(ROOT / "tests" / name for name in ("models", "hub"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from remembered import remember_imports  # noqa: E402 (tests/ is on the path from here on)
from warm_python import WarmPython  # noqa: E402

# Whole files go to the workers one after the other: those that take long come first, so that all end together.
LONG_FIRST = (
    "releases/test_releases", "exporting", "scripts/test_snippets", "scripts/test_foreign_input", "scripts/test_terminal",
    "hub", "embedding", "scripts", "models",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    if "transformers" in sys.modules:
        remember_imports()

    def place(item):
        file = item.path.relative_to(ROOT / "tests").as_posix()
        return next((i for i, start in enumerate(LONG_FIRST) if file.startswith(start)), len(LONG_FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def warm():
    with WarmPython() as running:
        yield running


@pytest.fixture(scope="module")
def warm_python(warm):
    """Processes that a file starts as `sys.executable` have torch and transformers imported when they begin, those of
    its fixtures too."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(sys, "executable", warm.command)
        yield


@pytest.fixture
def own_module_cache(tmp_path, monkeypatch):
    """A cache of remote code that no other test sees: transformers keeps it by content, Python by name."""
    forget_remote_code()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield
    forget_remote_code()


def forget_remote_code():
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]
