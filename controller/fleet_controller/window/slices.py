"""What lies between two samples, and its running sums: a slice comes in and goes out once, whatever the window holds.

Counts are whole numbers, so their running sums are exact; those of seconds are within a rounding error, and begin
anew whenever nothing is left. PURE.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from fleet_wire.histogram import GAMMA, MIN_MS, LatencyHistogram, merged

SampleT = TypeVar("SampleT")
HostSlice = tuple[float, float, float, int]
"""What a host did between two of its samples: end (the controller's clock), seconds, busy seconds, completed."""


class PoolSlice(NamedTuple):
    """What happened between two samples of a balancer. It ended at `end` on the controller's clock and is as long as
    the samples' own clock says. `late` answers took longer than the target (0 where there is none)."""

    start: float
    end: float
    arrivals: int
    completed: int
    errors: int
    latency: LatencyHistogram
    late: int = 0

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


class PoolSums:
    """The slices of a window in the order of their ends, and what they come to.

    `latency` and `settled` are sums over all of them and over those whose middle lies at `since` or later (infinite:
    nobody asks for that one).
    """

    def __init__(self, target_ms: float | None) -> None:
        self.target_ms = target_ms
        self.slices: deque[PoolSlice] = deque()
        self.since = math.inf
        self._zero()

    def _zero(self) -> None:
        self.completed = self.errors = self.late = 0
        self.latency, self.settled = LatencyHistogram(), LatencyHistogram()

    def add(
        self, start: float, end: float, arrivals: int, completed: int, errors: int, latency: LatencyHistogram
    ) -> None:
        late = late_count(latency, self.target_ms)
        taken = PoolSlice(start, end, arrivals, completed, errors, latency, late)
        self.slices.append(taken)
        self.completed += completed
        self.errors += errors
        self.late += late
        self.latency.merge(latency)
        if taken.middle >= self.since:
            self.settled.merge(latency)

    def drop(self, edge: float) -> None:
        """Forget the slices that ended at `edge` or before."""
        while self.slices and self.slices[0].end <= edge:
            gone = self.slices.popleft()
            self.completed -= gone.completed
            self.errors -= gone.errors
            self.late -= gone.late
            _take(self.latency, gone.latency)
            if gone.middle >= self.since:
                _take(self.settled, gone.latency)
        if not self.slices:
            self._zero()

    def settle(self, since: float) -> LatencyHistogram:
        """The latencies of the slices whose middle lies at `since` or later."""
        if since != self.since:
            self.since = since
            self.settled = merged(s.latency for s in self.slices if s.middle >= since)
        return self.settled

    def aim(self, target_ms: float | None) -> None:
        """Count the late ones anew where the target is another."""
        if target_ms == self.target_ms:
            return
        self.target_ms = target_ms
        self.slices = deque(s._replace(late=late_count(s.latency, target_ms)) for s in self.slices)
        self.late = sum(s.late for s in self.slices)

    def clear(self) -> None:
        self.slices.clear()
        self.since = math.inf
        self._zero()


class HostLine(Generic[SampleT]):
    """One host: its last sample, when that came, and its slices with their sums."""

    __slots__ = ("at", "busy_s", "last", "seconds", "slices")

    def __init__(self, at: float, last: SampleT) -> None:
        self.at, self.last = at, last
        self.slices: deque[HostSlice] = deque()
        self.seconds = self.busy_s = 0.0

    def add(self, edge: float, end: float, seconds: float, busy_s: float, completed: int) -> None:
        """One slice more; those that ended at `edge` or before are forgotten."""
        self.slices.append((end, seconds, busy_s, completed))
        self.seconds += seconds
        self.busy_s += busy_s
        if self.slices[0][0] <= edge:
            self.drop(edge)

    def drop(self, edge: float) -> None:
        slices = self.slices
        while slices and slices[0][0] <= edge:
            _, seconds, busy_s, _ = slices.popleft()
            self.seconds -= seconds
            self.busy_s -= busy_s
        if len(slices) == 1:  # what rounding has left over goes with the old ones
            _, self.seconds, self.busy_s, _ = slices[0]
        elif not slices:
            self.seconds = self.busy_s = 0.0

    def clear(self) -> None:
        self.slices.clear()
        self.seconds = self.busy_s = 0.0


def late_count(latency: LatencyHistogram, target_ms: float | None) -> int:
    """How many took longer than the target (to a bucket's width, 2 %)."""
    if target_ms is None:
        return 0
    limit = math.ceil(math.log(max(MIN_MS, target_ms)) / math.log(GAMMA))
    return sum(n for i, n in latency.counts.items() if i > limit)


def covered(slices: Iterable[PoolSlice]) -> float:
    """Seconds that the slices cover together; those of several balancers lie over each other."""
    total, reach = 0.0, -math.inf
    for s in sorted(slices, key=_start):
        start = s.start if s.start > reach else reach
        if s.end > start:
            total += s.end - start
        if s.end > reach:
            reach = s.end
    return total


def _start(s: PoolSlice) -> float:
    return s.start


def _take(total: LatencyHistogram, part: LatencyHistogram) -> None:
    """Subtract a part that was added before; a count that comes to 0 is left out."""
    counts = total.counts
    for index, n in part.counts.items():
        left = counts.get(index, 0) - n
        if left:
            counts[index] = left
        else:
            counts.pop(index, None)
    total.count -= part.count
    total.sum_ms = max(0.0, total.sum_ms - part.sum_ms)
