"""Hands: what every action needs to see, to record and to report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleet_controller.actuate.allowance import Allowance
from fleet_controller.actuate.site import Site
from fleet_controller.clock import Clock
from fleet_controller.door.admin import FrontDoor
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import HostRecord, Journal
from fleet_controller.lifecycle import QUARANTINE_AFTER, HostState
from fleet_controller.observe import HostReport, Observer
from fleet_controller.pulse import Pulse

FIRST_RETRY_S = 5.0
# So long without a failure is calm: what failed before is forgiven.
CALM_S = 1800.0
# For so long a host that failed QUARANTINE_AFTER times in a row is left alone: at most that many starts an hour.
QUARANTINE_S = 3600.0
# What a stop fails with when something is still there: a process, a port, device memory. Whoever holds it is named.
HELD = frozenset({"stop", "port", "device"})
# How often it is tried again then: a process that was slow to die frees the host by itself.
HELD_S = 300.0
# How often a host that can't be reached is looked for; more rarely where it refuses our key (sshd counts those).
LAST_LOOK_S = 60.0
LAST_KNOCK_S = 200.0
KNOCKS = frozenset({"auth", "identity", "host-key-unknown", "host-key-changed", "host-key-revoked"})
# How often a waiting action looks again at the host or the balancer.
POLL_S = 0.2


@dataclass(frozen=True)
class Hands:
    """`on_change` is called after every move of a host, from the thread that made it.

    Whatever is done with them is a sign of life of the work on that host. `loading`: hosts whose agents load their
    models, while nothing is done but look at them.
    """

    journal: Journal
    door: FrontDoor
    observer: Observer
    on_change: Callable[[], None]
    clock: Clock
    pulse: Pulse
    allowance: Allowance
    loading: set[str] = field(default_factory=set)

    def alive(self, host: str) -> None:
        """The work on `host` goes on."""
        self.pulse.again(work_on(host))

    def record(self, host: str) -> HostRecord:
        self.alive(host)
        return self.journal.host(host)

    def move(self, host: str, state: HostState, reason: str, **changes: Any) -> None:
        self.alive(host)
        self.journal.move(host, state, reason, self.clock.now(), **changes)
        self.on_change()

    def note(self, host: str, text: str) -> None:
        """Show `text` as what the host is at, without an event."""
        self.alive(host)
        self.journal.amend(host, reason=text)
        self.on_change()

    def report(self, host: str, site: Site) -> HostReport:
        """What the host's agent says of itself now."""
        target = site.target(self.record(host))
        return HostReport(None, "no agent is known there") if target is None else self.observer.ask(target)


def work_on(host: str) -> str:
    """The name of the work on a host, as the watchdog tells it."""
    return f"the work on {host}"


def retry_delay_s(failures: int) -> float:
    """Seconds until the next try after `failures` in a row: 5 s, doubled each time; then the host is in quarantine."""
    if failures >= QUARANTINE_AFTER:
        return QUARANTINE_S
    return float(FIRST_RETRY_S * 2 ** max(0, failures - 1))


def look_delay_s(lost_for_s: float, error: Exception) -> float:
    """Seconds until a host that could not be reached is looked for again: the longer it is gone, the more rarely."""
    knocks = isinstance(error, HostFailure) and error.kind in KNOCKS
    least, most = (LAST_KNOCK_S, LAST_KNOCK_S) if knocks else (FIRST_RETRY_S, LAST_LOOK_S)
    return min(most, max(least, lost_for_s / 2))


def told(error: str, host: str, failures: int) -> str:
    """`error` for the operator, with the word quarantine where the host is in it."""
    if failures < QUARANTINE_AFTER:
        return error
    return (
        f"{host}: quarantined for {QUARANTINE_S / 60:.0f} min after {failures} failures in a row; "
        f"`fleetctl uncordon {host}` tries again now. {error}"
    )


def held(error: Exception) -> bool:
    """Whether a stop failed because something is still there."""
    return isinstance(error, HostFailure) and error.kind in HELD


def told_held(error: str, host: str) -> str:
    """For the operator: the culprit, and the way out. Such a host is quarantined at once."""
    return (
        f"{host}: quarantined: it is not proven to be free, so nothing is started there. {error} It is tried again "
        f"every {HELD_S / 60:.0f} min; once that is mended, `fleetctl uncordon {host}` tries again now."
    )


def words(error: Exception, host: str) -> str:
    """A paragraph for the operator; what is no HostFailure is a bug of ours and says so."""
    if isinstance(error, HostFailure):
        return str(error)
    return f"{host}: {type(error).__name__}: {error}. This is a bug in fleetctl; see the controller's log."
