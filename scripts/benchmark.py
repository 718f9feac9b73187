#!/usr/bin/env python3
"""Times named cases side by side with a reference: medians, their ratio, peak memory, and how far the outputs differ.

    python scripts/benchmark.py --case image --case video
    python scripts/benchmark.py --case sparse --reference tests/plain_llava_vit.py:PlainLlavaViTSdpa --json result.json

Both models have equal weights and inputs and take turns, in float32 without gradients, each in a process of its own, as
its users would run it: the memory that one has freed would make the other's allocations cheaper or dearer. A ratio is
reference / model, so above 1 the model is faster. The ceiling is what it would be if the model took no longer than its
matrix products take at the machine's best speed for large ones. Peak memory is the rise of the process's resident set
during one forward, over the model at rest. The last line is one JSON document.

Cases of their own, which run when they are named and take no reference:

    python scripts/benchmark.py --case video-file     # from a video file to the model's input, beside decoding alone
    python scripts/benchmark.py --case video-recall   # which of the patches that matter each selection keeps
    python scripts/benchmark.py --case video-digits   # trains on panned clips, once with each selection: many minutes
    python scripts/benchmark.py --case export --repeats 3   # image and jpeg in other precisions, compiled, exported
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import importlib
import json
import sys
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

from hubtools.errors import ArgumentParser, UserError, run_script


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parse(argv: Optional[Sequence[str]]):
    from hubtools.benchmarks import CASES, OWN_CASES

    parser = ArgumentParser(prog="benchmark.py", description=__doc__)
    light, heavy = ([case.name for case in CASES.values() if case.heavy is is_heavy] for is_heavy in (False, True))
    heavy = ", ".join((*heavy, *OWN_CASES))
    parser.add_argument(
        "--case", action="append", help=f"repeatable; default: {', '.join(light)}; only when named: {heavy}"
    )
    parser.add_argument(
        "--reference", metavar="FILE.py:NAME", help="NAME(config: dict) -> torch.nn.Module; default: the case's"
    )
    parser.add_argument("--repeats", type=positive, default=7, help="counted runs of each model (default 7)")
    parser.add_argument("--threads", type=positive, help="threads of each run (default: torch's own choice)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there as well")
    return parser.parse_args(argv)


def check_case(name: str, arguments) -> None:
    """Before anything is measured."""
    from hubtools.benchmarks import OWN_CASES, case_named

    if name not in OWN_CASES:
        case_named(name)
        return
    if name.startswith("video"):
        from hubtools.clips import need_av

        need_av(f"case {name}")
    if arguments.reference:
        raise UserError(f"--reference: case {name} compares no models; leave it out")


def run_case(name: str, arguments) -> Tuple[Dict[str, object], str]:
    """What was measured, and how it is told."""
    from hubtools.benchmarks import OWN_CASES, comparison

    if name not in OWN_CASES:
        result = comparison.measure(name, arguments)
        return result, comparison.describe(result)
    case = importlib.import_module(f"hubtools.benchmarks.{name.replace('-', '_')}")
    result = {"case": name, "threads": arguments.threads, **case.measure(arguments.repeats, arguments.threads)}
    return result, case.describe(result)


def main(argv: Optional[Sequence[str]] = None) -> int:
    from hubtools.benchmarks import CASES

    arguments = parse(argv)
    names = arguments.case or [case.name for case in CASES.values() if not case.heavy]
    for name in names:
        check_case(name, arguments)
    if arguments.json and not arguments.json.parent.is_dir():
        raise UserError(f"the folder of --json does not exist: {arguments.json.parent}")
    import torch

    arguments.threads = arguments.threads or torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    results = []
    for name in names:
        result, told = run_case(name, arguments)
        results.append(result)
        print(told, flush=True)
    document = json.dumps({"torch": torch.__version__, "results": results})
    if arguments.json:
        arguments.json.write_text(document + "\n")
    print(document)
    return 0


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
