"""The named checks of a Hub folder, for `verify.py` and for every script that must not ship a bad one.

Nothing here imports torch: a model is loaded in child processes only, one model at a time, so that the caller stays small
and the folder is seen as a stranger's process sees it.
"""

from .check import FAIL, PASS, SKIP, Check, failures
from .runner import verify_folder

__all__ = ["FAIL", "PASS", "SKIP", "Check", "failures", "verify_folder"]
