"""A fleet.yaml on its way to a FleetSpec: the good parts, and what was found wrong so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleet_controller.spec.document import Document
from fleet_controller.spec.explain import Finding
from fleet_controller.spec.fleet import FleetFile, PoolSpec
from fleet_controller.spec.host import HostSpec
from fleet_controller.spec.model import ModelSpec
from fleet_controller.spec.problem import Problem, Steps, written

MOST_PROBLEMS = 100


class Findings:
    """Collects problems with their places, each once, and knows which values were bad."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[tuple[Steps, str], Problem] = {}
        self._broken: set[Steps] = set()

    @property
    def any(self) -> bool:
        return bool(self._found)

    def note(self, finding: Finding) -> None:
        line, column = self._document.spot(finding.steps, key=finding.key)
        problem = Problem(finding.message, line, column, written(finding.steps))
        self._found.setdefault((finding.steps, finding.message), problem)
        self._broken.add(finding.steps)
        if finding.meant is not None:
            self._broken.add(finding.meant)

    def add(self, steps: Steps, message: str, *, key: bool = False, needs: Iterable[Steps] = ()) -> None:
        """Note a problem at `steps`, unless one of the values in `needs`, or a part of it, was found bad."""
        if not any(self.broken(need) or self.broken_within(need) for need in needs):
            self.note(Finding(steps, message, key))

    def broken(self, steps: Steps) -> bool:
        """Whether the value at `steps`, or something that it is in, was found bad."""
        return any(steps[:length] in self._broken for length in range(1, len(steps) + 1))

    def broken_within(self, steps: Steps) -> bool:
        """Whether something inside of the value at `steps` was found bad."""
        return any(bad[: len(steps)] == steps for bad in self._broken)

    def problems(self) -> list[Problem]:
        """In the order of the file, a hundred at most."""
        problems = sorted(self._found.values(), key=lambda p: (p.line, p.column, p.path))
        if len(problems) > MOST_PROBLEMS:
            more = len(problems) - MOST_PROBLEMS
            return [*problems[:MOST_PROBLEMS], Problem(f"and {more:,} more problems; mend these first")]
        return problems


@dataclass
class Entry:
    """One item of `hosts:` (`written` is None if it can't be used) and the hosts that it stands for."""

    steps: Steps
    written: HostSpec | None
    hosts: tuple[HostSpec, ...] = ()
    names: Sequence[str] = ()


@dataclass
class PoolDraft:
    """One item of `pools:`, with the names of its hosts once they are resolved."""

    steps: Steps
    spec: PoolSpec
    hosts: tuple[str, ...] = ()


@dataclass
class ModelDraft:
    steps: Steps
    spec: ModelSpec


@dataclass
class Draft:
    """`complete_*`: no item was lost, so that a name which isn't here does not exist."""

    file: FleetFile
    entries: list[Entry] = field(default_factory=list)
    models: list[ModelDraft] = field(default_factory=list)
    pools: list[PoolDraft] = field(default_factory=list)
    model_names: set[str] = field(default_factory=set)
    complete_hosts: bool = True
    complete_models: bool = True
    complete_pools: bool = True

    def entry_of(self) -> dict[str, tuple[Entry, HostSpec]]:
        """The first host of each name, and where it was written."""
        hosts: dict[str, tuple[Entry, HostSpec]] = {}
        for entry in self.entries:
            for host in entry.hosts:
                hosts.setdefault(host.name, (entry, host))
        return hosts


def quoted(names: Sequence[str], most: int = 3) -> str:
    """`"a", "b", "c" and 12 more`."""
    text = ", ".join(f'"{name}"' for name in names[:most])
    return f"{text} and {len(names) - most:,} more" if len(names) > most else text
