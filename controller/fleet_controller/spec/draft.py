"""A fleet.yaml on its way to a FleetSpec: the good parts, and what was found wrong so far."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleet_controller.spec.document import Document
from fleet_controller.spec.explain import MOST_PROBLEMS, Finding
from fleet_controller.spec.fleet import FleetFile, PoolSpec
from fleet_controller.spec.host import HostSpec
from fleet_controller.spec.model import ModelSpec
from fleet_controller.spec.problem import Problem, Steps, written

MOST_GUESSES = 20  # comparing one name with 10,000 takes a tenth of a second


class Findings:
    """Collects problems with their places, each once, and knows which values were bad."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[tuple[Steps, str], Problem] = {}
        self._broken: set[Steps] = set()
        self._broken_in: set[Steps] = set()
        self._guesses = MOST_GUESSES

    @property
    def any(self) -> bool:
        return bool(self._found)

    def note(self, finding: Finding) -> None:
        line, column = self._document.spot(finding.steps, key=finding.key)
        problem = Problem(_short(finding.message, 600), line, column, _short(written(finding.steps), 200))
        self._found.setdefault((finding.steps, finding.message), problem)
        for steps in (finding.steps, finding.meant or finding.steps):
            self._broken.add(steps)
            self._broken_in |= {steps[:length] for length in range(len(steps))}

    def add(self, steps: Steps, message: str, *, key: bool = False, needs: Iterable[Steps] = ()) -> None:
        """Note a problem at `steps`, unless one of the values in `needs`, or a part of it, was found bad."""
        if not any(self.broken(need) or self.broken_within(need) for need in needs):
            self.note(Finding(steps, message, key))

    def broken(self, steps: Steps) -> bool:
        """Whether the value at `steps`, or something that it is in, was found bad."""
        return any(steps[:length] in self._broken for length in range(1, len(steps) + 1))

    def broken_within(self, steps: Steps) -> bool:
        """Whether something inside of the value at `steps` was found bad."""
        return steps in self._broken_in

    def did_you_mean(self, name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
        """`did you mean "NAME"?`, or nothing if none is near; a file with many slips gets no more guesses."""
        self._guesses -= 1
        if self._guesses < 0:
            return ""
        near = difflib.get_close_matches(name[:200], list(known), 1, cutoff)
        return f'did you mean "{near[0]}"?' if near else ""

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

    def where(self, block: str, key: str) -> Steps:
        """Where a host's value comes from: the host's own block, or that of `defaults`."""
        own = self.written is not None and key in getattr(self.written, block).model_fields_set
        return (*self.steps, block, key) if own else ("defaults", block, key)


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

    def host_names(self) -> set[str]:
        """The names of all hosts, also of those that can't be used as they are written."""
        return {name for entry in self.entries for name in entry.names}

    def entry_of(self) -> dict[str, tuple[Entry, HostSpec]]:
        """The first host of each name, and where it was written."""
        hosts: dict[str, tuple[Entry, HostSpec]] = {}
        for entry in self.entries:
            for host in entry.hosts:
                hosts.setdefault(host.name, (entry, host))
        return hosts


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(names: Sequence[str], most: int = 3) -> str:
    """`"a", "b", "c" and 12 more`."""
    text = ", ".join(f'"{name}"' for name in names[:most])
    return f"{text} and {len(names) - most:,} more" if len(names) > most else text
