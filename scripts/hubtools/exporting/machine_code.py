"""A model compiled ahead of time, by AOTInductor.

What comes out is machine code for processors like this one, which runs as it is loaded. It is a file of its own and stands
in no Hub folder: nobody could tell there what it does.
"""

from pathlib import Path
from typing import Dict

import torch
from torch._inductor import exc
from torch._inductor.cpp_builder import get_cpp_compiler

from ..errors import UserError
from ..staging import check_output, staged
from ..verification.probes.exported import compare_with_model
from ..verification.probes.protocol import CheckFailed
from .folder import VerificationFailed, ready
from .onnx_files import quiet
from .programs import export_program

SUFFIX = ".pt2"  # that torch asks for


def export_machine_code(folder: Path, output: Path) -> Dict[str, int]:
    """Writes the model of a Hub folder as a package of AOTInductor.

    Returns:
        The file's name and its size in bytes.

    Raises:
        UserError: no compiler, the folder does not pass verify, the model cannot be exported, what comes out differs from
            it, or the output may not be made there.
    """
    if output.suffix != SUFFIX:
        raise UserError(f"output {output} must end in {SUFFIX}: --to aot-inductor writes one file, no folder")
    check_output(output, False, [folder])
    require_compiler()
    model, _, graphs = ready(folder, "aot-inductor")
    graph = graphs[0]
    with staged(output, inputs=[folder]) as file:
        try:
            with quiet():
                torch._inductor.aoti_compile_and_package(export_program(model, graph), package_path=str(file))
        except exc.CppCompileError as error:
            raise UserError(f"the compiler failed; {output} was not made: {str(error).strip()[-300:]}") from error
        run = torch._inductor.aoti_load_package(str(file))
        try:
            found = compare_with_model(lambda inputs: run(*inputs.values()), model, graph)
        except CheckFailed as failed:
            raise VerificationFailed(f"the compiled model differs: {failed}; {output} was not made") from failed
        print(f"the compiled model {found}")
        return {output.name: file.stat().st_size}


def require_compiler() -> None:
    try:
        get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            "--to aot-inductor needs a C++ compiler, found none: install g++, or name one in CXX"
        ) from error
