"""Makes the packages and the scripts' shared code importable for the tests, whatever the working directory."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "scripts", ROOT / "tests", *(ROOT / "tests" / name for name in ("models", "hub"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
