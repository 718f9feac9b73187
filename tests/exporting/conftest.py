"""The processes of verify begin with torch and transformers imported, for fixtures that export as for tests."""

import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def warm_verify(warm):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", warm.command)
        yield
