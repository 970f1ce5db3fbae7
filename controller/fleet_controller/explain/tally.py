"""Tally: how many requests came in, minute by minute, from a count that only grows. PURE.

The count is looked at every few seconds, so a minute's share of what came between two looks is taken by time. Nothing
is lost by that and nothing counted twice: what the minutes add up to is what the balancer counted.
"""

from __future__ import annotations

from fleet_controller.records import Mark, Minute
from fleet_controller.window import PoolSample

MINUTE_S = 60
# Of a longer time without a look nobody knows when in it the requests came: its minutes stay unknown.
GAP_S = 300.0


class Tally:
    """One pool's arrivals. `mark` is where the count stood when the last minute that was kept ended."""

    def __init__(self, mark: Mark | None = None) -> None:
        self._last = mark
        self._open: Minute | None = None

    def feed(self, now: float, sample: PoolSample | None) -> tuple[list[Minute], Mark] | None:
        """Take the balancer's count at `now`, Unix seconds (None: it did not answer).

        Returns the minutes that are over since the last call, and the mark to keep with them; None: none is.
        """
        if sample is None:
            return None
        before = self._before(now, sample)
        self._last = Mark(sample.source, sample.arrivals, now)
        if before is None:
            over, self._open = self._open, None
            return None if over is None else ([over], self._last)
        minutes = _spread(before, now, sample.arrivals)
        if self._open is not None and minutes[0].at == self._open.at:
            minutes[0] = Minute(self._open.at, self._open.requests + minutes[0].requests)
        elif self._open is not None:
            minutes.insert(0, self._open)
        self._open = minutes.pop()
        if not minutes:
            return None
        return minutes, Mark(sample.source, sample.arrivals - self._open.requests, float(self._open.at))

    def _before(self, now: float, sample: PoolSample) -> Mark | None:
        """From where to count; None: what came in since then can't be known."""
        last = self._last
        if last is None or not 0 < now - last.at <= GAP_S:
            return None
        if last.source == sample.source:
            return last if sample.arrivals >= last.arrivals else None
        # Another process, which counts from its own start; one that was there before has a past we don't know.
        started = sample.started_at
        if started is None or not 0 <= sample.at - started <= now - last.at + 1.0:
            return None
        return Mark(sample.source, 0, last.at)


def _spread(before: Mark, now: float, arrivals: int) -> list[Minute]:
    """What came in since `before`, by the minute; the last of them is that of `now`. Whole numbers, right in total."""
    found, given = [], 0
    first = int(before.at // MINUTE_S) * MINUTE_S
    for at in range(first, int(now) + 1, MINUTE_S):
        share = min(1.0, (at + MINUTE_S - before.at) / (now - before.at))
        upto = round((arrivals - before.arrivals) * share)
        found.append(Minute(at, upto - given))
        given = upto
    return found
