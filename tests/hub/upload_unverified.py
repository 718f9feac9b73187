"""upload.py without its verification, for the tests of what comes after it: those take no model, only files.

python upload_unverified.py FOLDER USER/NAME ...     (PYTHONPATH chooses the release of huggingface_hub)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import upload  # noqa: E402
from hubtools import verification  # noqa: E402
from hubtools.errors import run_script  # noqa: E402

verification.verify_folder = lambda folder, progress: []
run_script(upload.main)
