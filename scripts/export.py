#!/usr/bin/env python3
"""Exports the model of a Hub folder, into a copy of the folder, as a file that needs neither transformers nor its code.

python scripts/export.py my-model --to onnx
python scripts/export.py my-model --to onnx --quantize int8 --output my-model-onnx
python scripts/export.py my-model --to torch-export
python scripts/export.py my-model --to aot-inductor --output my-model.pt2

--to onnx writes onnx/model.onnx; batch, frames, height and width, or the number of bytes, may vary. For LLaVA-ViT
onnx/model_visible_indices.onnx takes the patches to compute besides. --to torch-export writes torch_export/model.pt2. The
folder is verified first, and the copy with its exported files before it appears. --to aot-inductor writes no folder but one
file, machine code for processors like this one; it takes a C++ compiler.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import os
import time
from pathlib import Path

from hubtools.errors import ArgumentParser, UserError, run_script
from hubtools.exporting.extras import NEEDED, require_extras


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="export.py", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a Hub folder")
    parser.add_argument("--to", choices=NEEDED, required=True, help="what to write")
    parser.add_argument("--quantize", choices=["int8"], help="with --to onnx: also a graph with weights of 8 bits")
    parser.add_argument(
        "--output", type=Path, help="what to make (default FOLDER-onnx, FOLDER-torch-export, FOLDER.pt2)"
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="version of ONNX's operators (default: the model's best)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing Hub folder, never anything else")
    return parser


def main(argv=None) -> int:
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    started = time.perf_counter()
    is_folder = arguments.to != "aot-inductor"
    ending = f"-{arguments.to}" if is_folder else ".pt2"
    output = arguments.output or Path(f"{os.path.abspath(arguments.folder)}{ending}")
    # Imported late: torch and transformers take seconds that a mistyped command should not cost.
    if is_folder:
        from hubtools.exporting.folder import Wanted, export_folder

        wanted = Wanted(arguments.to, arguments.quantize is not None, arguments.opset)
        files = export_folder(arguments.folder, output, wanted, arguments.overwrite, lambda check: print(check.row()))
    else:
        from hubtools.exporting.machine_code import export_machine_code

        files = export_machine_code(arguments.folder, output)
    listed = ", ".join(f"{name} ({size / 1e6:,.1f} MB)" for name, size in files.items())
    print(f"{output}: {listed} in {time.perf_counter() - started:.0f} s")
    return 0


def check_arguments(arguments) -> None:
    if not arguments.folder.is_dir():
        raise UserError(
            f"{arguments.folder} is not a folder; accepted: a folder that assemble.py or save_pretrained made"
        )
    for option in ("quantize", "opset"):
        if getattr(arguments, option) is not None and arguments.to != "onnx":
            raise UserError(f"--{option} goes with --to onnx, not with --to {arguments.to}")
    if arguments.opset is not None and not 18 <= arguments.opset <= 23:
        raise UserError(f"--opset {arguments.opset} is out of range; accepted: 18 to 23")
    if arguments.overwrite and arguments.to == "aot-inductor":
        raise UserError(
            "--overwrite replaces folders, and --to aot-inductor writes a file; remove it, or name another --output"
        )
    require_extras(arguments.to)


if __name__ == "__main__":
    run_script(main)
