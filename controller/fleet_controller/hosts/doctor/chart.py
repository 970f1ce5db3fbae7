"""Everything that was seen of one host: what the subjects judge. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet_controller.hosts.doctor.facts import Facts
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.power.state import Reading
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec

UNCONTROLLED = Reading("uncontrolled")


@dataclass(frozen=True)
class Clock:
    """`ahead_s`: how far the host's clock is ahead of ours, give or take `error_s` (half of the way there and back)."""

    ahead_s: float
    error_s: float


@dataclass(frozen=True)
class Line:
    """The way to the host. `round_trip_s`: of a command that does nothing, at best. `received`: bytes in `seconds`;
    `trouble`: why that is not known."""

    round_trip_s: float | None = None
    received: int = 0
    seconds: float = 0.0
    trouble: str = ""


@dataclass(frozen=True)
class Door:
    """The agent's port, asked from this machine. `answered_s`: an agent, or the host on its behalf (`asked`), answered
    after so long. `trouble`: it did not, and how. Neither: it was not tried, `skipped` says why.
    `deaf`: the host can't listen there, and why."""

    port: int = 0
    asked: str = ""
    answered_s: float | None = None
    trouble: str = ""
    skipped: str = ""
    deaf: str = ""


@dataclass(frozen=True)
class Chart:
    """`failure`: why it can't be looked at (all of `facts` is unknown then). `files`: why files can't be copied there,
    "" where they can, None where that was not tried. `clock` None: not known. `record`: what the journal has of it."""

    spec: HostSpec
    failure: HostFailure | None = None
    connected_s: float | None = None
    facts: Facts = field(default_factory=lambda: Facts({}))
    clock: Clock | None = None
    line: Line = Line()
    files: HostFailure | str | None = None
    door: Door = Door()
    power: Reading = UNCONTROLLED
    record: HostRecord | None = None
    user: str = ""
    now: float = 0.0

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def reached(self) -> bool:
        return self.failure is None or not self.failure.unreachable
