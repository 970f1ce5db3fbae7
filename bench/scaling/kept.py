"""Results of runs that need not be made again: everything that went into them is in their key.

A run is deterministic: the trace, the span, the start-up time, the policy and its setting, and the sources of the
bench and of the simulation decide it. fleetctl's own runs are always made (what decides them is most of the
controller).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from bench.scaling.field import Outcome

from fleet_controller import simulate
from fleet_wire import histogram

HERE = Path(__file__).parent
SIMULATED = ("kernel", "engine", "run", "fleet", "hosts", "trace", "report")


@cache
def sources() -> str:
    """A digest of what makes a run: the bench, the simulation, and the buckets of its histogram."""
    simulated = Path(simulate.__path__[0])
    files = [*HERE.rglob("*.py"), *(simulated / f"{name}.py" for name in SIMULATED), Path(histogram.__file__)]
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.name not in {"__main__.py", "table.py", "kept.py", "made.py"}:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


class Kept:
    """Outcomes by key, in one JSON file; a file that can't be read is an empty one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._known: dict[str, dict[str, object]] = json.loads(file.read_text())
        except (OSError, ValueError):
            self._known = {}

    def key(self, trace: bytes, facts: object, *what: object) -> str:
        text = json.dumps([sources(), hashlib.sha256(trace).hexdigest(), facts, *what], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, key: str) -> Outcome | None:
        found = self._known.get(key)
        if found is None:
            return None
        try:
            return Outcome(**found)  # type: ignore[arg-type]
        except TypeError:
            return None

    def put(self, key: str, outcome: Outcome) -> None:
        self._known[key] = asdict(outcome)

    def write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self._known) + "\n")
        fresh.replace(self.file)
