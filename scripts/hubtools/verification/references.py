"""`FILE.py:NAME`: a user's own original, to verify against and to measure against. `NAME(config: dict)` gives a torch.nn.Module."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

from ..errors import UserError


def split_reference(reference: Optional[str]) -> Optional[Tuple[str, str]]:
    """("FILE.py", "NAME") of "FILE.py:NAME", after a look into the file that runs none of it."""
    if reference is None:
        return None
    path, colon, name = reference.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"reference {reference!r} is not understood; accepted: FILE.py:NAME")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"reference file {path} does not exist")
    try:
        tree = ast.parse(file.read_bytes(), filename=path)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"reference file {path} is not Python: {error}") from error
    names = _top_level_names(tree)
    if name not in names and "*" not in names:
        raise UserError(f"reference file {path} has no {name!r}; it has: {', '.join(sorted(names)) or 'no names'}")
    return str(file.resolve()), name


def _top_level_names(tree: ast.Module) -> set:
    """The names a module defines, as far as reading shows; "*" where that cannot be told."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
        elif not isinstance(node, ast.Expr):
            names.add("*")  # if, try, with and loops may define anything
    return names


def load_function(path: str, name: str) -> Callable[[dict], Any]:
    """`name` of the Python file at `path`; the file may import its neighbours."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
    sys.path.insert(0, str(Path(path).parent))
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise UserError(f"{path} has no class or function {name!r}")
    return getattr(module, name)
