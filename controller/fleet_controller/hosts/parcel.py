"""The keeper's text for one errand: its file and all that it imports of ours, as one program for `python3 -I -S -`."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

from fleet_controller.hosts import keeper

_PACKAGE = keeper.__name__
_MAIN = f"{_PACKAGE}.main"
# Modules are made as an import would make them, so that each text runs unchanged and a traceback names its file.
_LOADER = """import sys, types
def load(name, text):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
"""


@cache
def parcel(errand: str) -> str:
    """`errand` is the name of a file in keeper/errands. The caller appends `run('JSON')`."""
    door = f"{_PACKAGE}.errands.{errand}"
    ordered: dict[str, str] = {}
    for name in (_MAIN, door):
        _collect(name, ordered)
    # Python reads a JSON text of ASCII as what it is: a string literal.
    loads = [f"load({json.dumps(name)}, {json.dumps(text)})" for name, text in ordered.items()]
    last = f"run = lambda text: sys.modules[{_MAIN!r}].main(sys.modules[{door!r}].errand, text)"
    return "\n".join([_LOADER, *loads, last, ""])


def _collect(name: str, ordered: dict[str, str]) -> None:
    """Put the module `name` into `ordered` behind everything of the keeper that it imports."""
    if name in ordered:
        return
    path = Path(keeper.__file__).parent.joinpath(*name.removeprefix(_PACKAGE + ".").split("."))
    text = path.with_suffix(".py").read_text("ascii")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_PACKAGE + "."):
            _collect(str(node.module), ordered)
    ordered[name] = text
