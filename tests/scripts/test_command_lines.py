"""A command line is read before anything heavy is imported: help and a mistyped option are answered at once."""

import json
import subprocess
import sys

from hubtools.packages import ROOT

HEAVY = ("torch", "transformers", "numpy", "huggingface_hub", "sklearn")
ASK_ALL = """
import contextlib, importlib, io, json, sys
sys.path.insert(0, sys.argv[1])
from hubtools.errors import UserError
found = {}
for name in sys.argv[2:]:
    main, said = importlib.import_module(name).main, []
    for argument in ("--help", "--an-option-nobody-has"):
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                main([argument])
        except SystemExit as end:
            said.append([end.code, out.getvalue()])
        except UserError as error:
            said.append([2, str(error)])
    found[name] = {"said": said, "imported": sorted(set(sys.modules))}
print(json.dumps(found))
"""


def test_help_and_a_mistyped_option_import_nothing_heavy():
    scripts = ROOT / "scripts"
    names = sorted(file.stem for file in scripts.glob("*.py"))
    assert {"assemble", "benchmark", "demo", "finetune", "matrix", "upload", "verify"} <= set(names)
    done = subprocess.run([sys.executable, "-c", ASK_ALL, scripts, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, found in json.loads(done.stdout).items():
        (helped, text), (refused, message) = found["said"]
        assert helped == 0 and "usage: " in text and "--debug" in text, name
        assert refused == 2 and message.endswith("--help"), (name, message)
        assert not set(HEAVY) & set(found["imported"]), (name, set(HEAVY) & set(found["imported"]))
