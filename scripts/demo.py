#!/usr/bin/env python3
"""Shows both packages at work on real data: `make demo`.

python scripts/demo.py [--output DIR] [--part photos|trained|video|neighbours]
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import importlib
import time
from pathlib import Path

from hubtools.errors import ArgumentParser, run_script

PARTS = ("photos", "trained", "video", "neighbours")


def main(argv=None) -> int:
    parser = ArgumentParser(prog="demo.py", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="where pictures and folders go (default demo_output)"
    )
    parser.add_argument("--part", choices=PARTS, help="run one part only")
    arguments = parser.parse_args(argv)
    for part in [arguments.part] if arguments.part else PARTS:
        started = time.perf_counter()
        importlib.import_module(f"hubtools.demos.{part}").run(arguments.output.resolve())
        print(f"{part}: done in {time.perf_counter() - started:.1f} s\n")
    return 0


if __name__ == "__main__":
    run_script(main)
