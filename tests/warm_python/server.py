"""Imports the libraries once and lets forks of itself run what an interpreter is asked to run.

python -I server.py LISTENER COMMAND

LISTENER is an open Unix socket's number, COMMAND the path that `sys.executable` shows to what is run. The server ends when
its standard input does.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PACKAGES = ("llavavit", "byteformer")  # of which nothing but what their files import is known to a fork
SETTINGS = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_")


def import_libraries() -> None:
    """What loading a folder imports in the end; without a Hub or a cache that forks could share."""
    import torch  # noqa: F401
    from transformers import (  # noqa: F401
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoProcessor,
        PreTrainedModel,
        ProcessorMixin,
        Trainer,
        TrainingArguments,
        pipeline,
    )

    sys.path.insert(0, str(TESTS))
    from remembered import remember_imports

    sys.path.remove(str(TESTS))
    remember_imports(*(file for package in PACKAGES for file in sorted((TESTS.parent / package).glob("*.py"))))


def serve(listener: socket.socket, command: str) -> None:
    children = set()
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [], 1.0)
        children -= {child for child in children if os.waitpid(child, os.WNOHANG)[0]}
        if sys.stdin in ready:
            return
        if listener in ready:
            connection, _ = listener.accept()
            child = os.fork()
            if child == 0:
                listener.close()
                supervise(connection, command)
            children.add(child)
            connection.close()


def supervise(connection: socket.socket, command: str) -> None:
    """Runs one request in a fork, and ends that fork where whoever asked has gone."""
    header, streams, _, _ = socket.recv_fds(connection, 8, 3)
    content = b""
    while len(content) < int.from_bytes(header, "little"):
        content += connection.recv(1 << 16)
    worker = os.fork()
    if worker == 0:
        connection.close()
        os.setpgid(0, 0)
        run_and_exit(json.loads(content), streams, command)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(worker)
    while ended not in select.select([ended, connection], [], [])[0]:
        for number in connection.recv(1):
            os.kill(worker, number)
            break
        else:  # whoever asked has gone
            os.killpg(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


def run_and_exit(request: dict, streams: list, command: str) -> None:
    """Becomes a process of the given surroundings, runs what is asked, and ends as an interpreter would."""
    code = 1
    try:
        take_streams(streams)
        sys.executable = command
        os.chdir(request["folder"])
        take_environment(request["environment"])
        for limit, amounts in request["limits"]:
            resource.setrlimit(limit, amounts)
        code = run(list(request["arguments"]))
    except BaseException:
        traceback.print_exc()
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def take_streams(streams: list) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        line_buffering = name == "stderr" or os.isatty(number)
        stream = open(number, mode, 1 if line_buffering else -1, encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(arguments: list) -> int:
    """Runs `[-I] [-u] -c CODE | -m MODULE | FILE, ...` as `__main__`; gives the exit code."""
    isolated = False
    while arguments and arguments[0] in ("-I", "-u"):
        isolated |= arguments.pop(0) == "-I"
    path = [] if isolated else [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    kind = arguments.pop(0) if arguments and arguments[0] in ("-c", "-m") else "file"
    what = arguments.pop(0)
    if what.startswith("-"):
        raise SystemExit(f"the warm interpreter does not know the option {what}")
    if not isolated:
        path.insert(
            0, {"-c": "", "-m": os.getcwd()}.get(kind) if kind != "file" else os.path.dirname(os.path.realpath(what))
        )
    sys.path[:0] = path
    sys.argv = [kind if kind != "file" else what, *arguments]
    try:
        run_main(kind, what)
    except SystemExit as end:
        if isinstance(end.code, (int, type(None))):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def run_main(kind: str, what: str) -> None:
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    text = what
    if kind == "file":
        main.__file__ = what
        with open(what, "rb") as file:
            text = file.read()
    exec(compile(text, what if kind == "file" else "<string>", "exec"), main.__dict__)


def take_environment(environment: dict) -> None:
    """Libraries that have read the environment while they were imported see the new one."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    import huggingface_hub
    import numpy
    import transformers

    numpy.random.seed()  # a fork has its parent's state
    before = dict(vars(huggingface_hub.constants))
    after = vars(importlib.reload(huggingface_hub.constants))
    changed = {name: after[name] for name, value in before.items() if name.isupper() and after[name] != value}
    changed["HF_MODULES_CACHE"] = os.environ.get("HF_MODULES_CACHE", os.path.join(after["HF_HOME"], "modules"))
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("huggingface_hub", "transformers"):
            for setting in changed.keys() & vars(module).keys():
                setattr(module, setting, changed[setting])
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("/modules")]
    transformers.logging.set_verbosity(transformers.logging._get_default_logging_level())


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    number, command = int(sys.argv[1]), sys.argv[2]
    sys.path.pop(0) if sys.path[0] == os.path.dirname(os.path.abspath(__file__)) else None
    import_libraries()
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=number), command)
