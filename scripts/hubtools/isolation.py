"""Keeps modules that lie in the working directory, or where PYTHONPATH points, from standing before ours and the libraries'.

A script imports this first, so that a file called torch.py in a downloaded folder stays a file; child processes get their
search path from `isolated_command`. Only `sys` is imported by name: it is built in, so nothing can stand in its place.
"""

import sys

os = sys.modules["os"]  # Python imports it before any script runs

SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def order_search_path() -> None:
    """Moves what PYTHONPATH adds to `sys.path` behind the libraries; the working directory leaves it, however it is spelled.

    Last is not enough for the working directory: libraries try modules that may not exist at all, such as `_winapi`.
    """
    given = os.environ["PYTHONPATH"].split(os.pathsep) if "PYTHONPATH" in os.environ else []
    here = os.path.realpath(os.getcwd())
    kept = [os.path.abspath(entry) for entry in given if os.path.isabs(entry) and os.path.realpath(entry) != here]
    foreign = {os.path.abspath(entry) for entry in given}
    own = [entry for entry in sys.path if os.path.isabs(entry) and entry not in foreign and entry != SCRIPTS]
    sys.path[:] = [SCRIPTS, *own, *(entry for entry in dict.fromkeys(kept) if entry not in own and entry != SCRIPTS)]


def isolated_command(module: str, *arguments: str, libraries_only: bool = False, code: str = SCRIPTS) -> "list[str]":
    """The command that runs `main()` of a module in a process that sees neither the working directory nor PYTHONPATH.

    Args:
        module: what to import; found in `code`.
        arguments: for the child's `sys.argv`.
        libraries_only: pass on folders of installed packages alone, in place of the whole search path.
        code: the one folder that comes before the libraries; it leaves the search path where `libraries_only`.
    """
    passed = [entry for entry in sys.path if os.path.isabs(entry) and entry != code]
    if libraries_only:
        passed = [entry for entry in passed if os.path.basename(entry) in ("site-packages", "dist-packages")]
    # Isolated mode (-I) ignores the user's site-packages and PYTHONPATH, where torch may live: they are passed on, last.
    start = (
        f"import sys; sys.path += [entry for entry in {passed!r} if entry not in sys.path]; sys.path.insert(0, {code!r}); "
        f"from {module} import main; {'del sys.path[0]; ' if libraries_only else ''}main()"
    )
    return [sys.executable, "-I", "-c", start, *arguments]


order_search_path()
