"""The log of a daemon of this machine, read as a host's is."""

from __future__ import annotations

import time
from pathlib import Path

from fleet_controller.hosts.failure import printable
from fleet_controller.hosts.grown import Grown
from fleet_controller.hosts.keeper.growth import Growth
from fleetctl.chronology import at_of

POLL_S = 0.2


class DaemonLog:
    """`path`, and `path`.1, to which it is moved when it is large."""

    def __init__(self, path: Path) -> None:
        self._log = Growth(str(path))

    def follow(
        self, cursor: str | None, *, lines: int = 100, since_s: float | None = None, wait_s: float = 0.0
    ) -> Grown:
        """As Machine.follow."""
        until = time.monotonic() + wait_s
        offset = time.localtime().tm_gmtoff
        lost = False
        if cursor is None:
            told, behind = self._log.end(lines)
            if since_s is not None:
                told = _since(told, time.time() + offset - since_s)
        else:
            told, behind, lost = self._log.after(cursor)
            while not told and not lost and time.monotonic() < until:
                time.sleep(POLL_S)
                told, behind, lost = self._log.after(cursor)
        return Grown([printable(line) for line in told], behind, lost, offset)


def _since(lines: list[str], earliest: float) -> list[str]:
    """A line without a time of its own belongs to the one before it."""
    kept = []
    late = False
    for line in lines:
        at = at_of(line)
        late = late if at is None else at >= earliest
        if late:
            kept.append(line)
    return kept
