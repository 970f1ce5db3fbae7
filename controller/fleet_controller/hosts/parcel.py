"""The keeper's text for one errand: its file and all that it imports of ours, as one program for `python3 -I -S -`."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from fleet_controller.hosts import keeper

_PACKAGE = keeper.__name__
_MAIN = f"{_PACKAGE}.main"
# Not ast.parse: in CPython 3.11 it fails where several threads parse at once, and hosts are worked on side by side.
_IMPORT = re.compile(rf"^from ({re.escape(_PACKAGE)}\.[\w.]+) import ", re.MULTILINE)
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
    ordered = _ordered(errand)
    # Python reads a JSON text of ASCII as what it is: a string literal.
    loads = [f"load({json.dumps(name)}, {json.dumps(text)})" for name, text in ordered.items()]
    last = f"run = lambda text: sys.modules[{_MAIN!r}].main(sys.modules[{door!r}].errand, text)"
    return "\n".join([_LOADER, *loads, last, ""])


@cache
def may_become_root(errand: str) -> bool:
    """Whether it has what it takes to run something as root, and so is to be told sudo's password."""
    return f"{_PACKAGE}.elevation" in _ordered(errand)


def _ordered(errand: str) -> dict[str, str]:
    ordered: dict[str, str] = {}
    for name in (_MAIN, f"{_PACKAGE}.errands.{errand}"):
        _collect(name, ordered)
    return ordered


def module_text(name: str) -> str:
    """The text of one of the keeper's modules, by its name below the keeper."""
    path = Path(keeper.__file__).parent.joinpath(*name.split("."))
    return path.with_suffix(".py").read_text("ascii")


def _collect(name: str, ordered: dict[str, str]) -> None:
    """Put the module `name` into `ordered` behind everything of the keeper that it imports."""
    if name in ordered:
        return
    text = module_text(name.removeprefix(_PACKAGE + "."))
    for module in _IMPORT.findall(text):
        _collect(module, ordered)
    ordered[name] = text
