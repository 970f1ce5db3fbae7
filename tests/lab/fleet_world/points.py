"""The failpoints that there are, found in the classes that have effects or commit."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap

from fleet_controller.door.admin import FrontDoor
from fleet_controller.door.daemons import Daemon
from fleet_controller.failpoint import MARK
from fleet_controller.hosts.keeper import errands
from fleet_controller.hosts.machine import Machine
from fleet_controller.journal import Journal
from fleet_controller.journal.store import Store

# No step of the controller's: what an operator runs there by `fleetctl exec` and `fleetctl doctor`.
OPERATORS = ("'execute'", "'knock'", "'mend'")
PLACES: tuple[type, ...] = (Store, Journal, Machine, FrontDoor, Daemon)


def points() -> list[str]:
    """NAME.before and NAME.after of every method that is marked."""
    marked = [
        getattr(method, MARK)
        for place in PLACES
        for _, method in inspect.getmembers(place, inspect.isfunction)
        if hasattr(method, MARK)
    ]
    return [f"{name}.{side}" for name in marked for side in ("before", "after")]


def unguarded() -> list[str]:
    """Methods that commit or have an effect, and neither have points around them nor are called from such alone."""
    found = []
    for place in PLACES:
        methods = dict(inspect.getmembers(place, inspect.isfunction))
        for name, method in methods.items():
            callers = [m for m in methods.values() if name in _calls(m)]
            if not _acts(method) or hasattr(method, MARK):
                continue
            if not callers or not all(hasattr(caller, MARK) for caller in callers):
                found.append(f"{place.__name__}.{name}")
    return found


def _acts(method: object) -> bool:
    for node in ast.walk(_tree(method)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        words = [ast.unparse(a) for a in node.args] + [ast.unparse(k.value) for k in node.keywords]
        if called in ("self._transaction", "self.transaction") and "True" not in words:
            return True
        if called == "self._ask" and words[0] not in OPERATORS and not _only_looks(words[0]):
            return True
        if called in (
            "self._power.on",
            "self._power.off",
            "self._transport.put",
            "subprocess.Popen",
            "os.kill",
        ):
            return True
        if called == "self._call" and words[0] != "'GET'":
            return True
    return False


def _only_looks(errand: str) -> bool:
    """Errands of the keeper that change nothing on the host: they neither lock nor write, remove, start or end."""
    source = inspect.getsource(importlib.import_module(f"{errands.__name__}.{errand.strip(chr(39))}"))
    return re.search(r"(?<![.\w])(Lock|write|remove|folder|launch|end|stop|mend)\(", source) is None


def _calls(method: object) -> set[str]:
    return {
        node.func.attr
        for node in ast.walk(_tree(method))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "self"
    }


def _tree(method: object) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))  # type: ignore[arg-type]
