"""Latency histogram with logarithmic buckets: mergeable, subtractable, with an exact count and sum.

Relative error of a quantile is at most (GAMMA - 1) / (GAMMA + 1), that is 1 %. Source: DDSketch
(Masson, Rim, Lee; VLDB 2019), without its bucket collapsing: latencies from 1 us to 1 day need 1,300 buckets.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

GAMMA = 1.02
MIN_MS = 0.001
MAX_MS = 86_400_000.0
_LOG_GAMMA = math.log(GAMMA)


class HistogramWire(BaseModel):
    """A histogram as JSON. `buckets` maps a bucket's index to its count; `sum_ms` is exact."""

    gamma: float = GAMMA
    count: int = Field(default=0, ge=0)
    sum_ms: float = Field(default=0.0, ge=0)
    buckets: dict[int, int] = {}


@dataclass
class LatencyHistogram:
    """Counts of latencies in milliseconds.

    `counts[i]` holds the values in (GAMMA ** (i - 1), GAMMA ** i]. `count` and `sum_ms` are exact.
    """

    counts: dict[int, int] = field(default_factory=dict)
    count: int = 0
    sum_ms: float = 0.0

    def record(self, ms: float) -> None:
        """Add one latency in milliseconds; values outside [MIN_MS, MAX_MS] are clamped.

        Raises ValueError for NaN, which would poison the sum silently.
        """
        if ms != ms:
            raise ValueError("a latency cannot be NaN")
        clamped = min(max(ms, MIN_MS), MAX_MS)
        index = math.ceil(math.log(clamped) / _LOG_GAMMA)
        self.counts[index] = self.counts.get(index, 0) + 1
        self.count += 1
        self.sum_ms += clamped

    def record_all(self, latencies_ms: Iterable[float]) -> None:
        """Add many latencies in milliseconds: what record() does, in a third of the time. Raises ValueError for NaN."""
        counts = self.counts
        get, log, ceil = counts.get, math.log, math.ceil
        count = 0
        total = 0.0
        try:
            for ms in latencies_ms:
                if MIN_MS <= ms <= MAX_MS:
                    index = ceil(log(ms) / _LOG_GAMMA)
                    counts[index] = get(index, 0) + 1
                    count += 1
                    total += ms
                else:
                    self.record(ms)
        finally:
            self.count += count
            self.sum_ms += total

    def merge(self, other: LatencyHistogram) -> None:
        """Add every count of `other` to this histogram."""
        for index, n in other.counts.items():
            self.counts[index] = self.counts.get(index, 0) + n
        self.count += other.count
        self.sum_ms += other.sum_ms

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """What was recorded after `earlier`, an older copy of this same growing histogram.

        A histogram that was reset in between (its owner restarted) counts from zero: all of it is new.
        """
        before = earlier.counts.get
        counts = {i: more for i, n in self.counts.items() if (more := n - before(i, 0))}
        lost = earlier.counts.keys() - self.counts.keys()
        if (counts and min(counts.values()) < 0) or any(earlier.counts[i] > 0 for i in lost):
            return self.copy()
        return LatencyHistogram(
            counts,
            self.count - earlier.count,
            max(0.0, self.sum_ms - earlier.sum_ms),
        )

    def copy(self) -> LatencyHistogram:
        return LatencyHistogram(dict(self.counts), self.count, self.sum_ms)

    def quantile(self, q: float) -> float | None:
        """The latency in milliseconds that a share `q` (0..1) of the values does not exceed; None when empty.

        Nearest-rank, answered as the bucket's midpoint in relative terms. Raises ValueError outside 0..1.
        """
        return self.quantiles(q)[0]

    def quantiles(self, *qs: float) -> list[float | None]:
        """quantile() of each, at the price of one. Raises ValueError outside 0..1."""
        for q in qs:
            if not 0.0 <= q <= 1.0:
                raise ValueError(f"a quantile lies in 0..1, not {q}")
        if not self.count:
            return [None] * len(qs)
        indices = sorted(self.counts)
        reached = list(itertools.accumulate([self.counts[index] for index in indices]))
        if not reached or reached[-1] < self.count:
            raise AssertionError("bucket counts do not add up to count")
        places = [bisect.bisect_left(reached, max(1, math.ceil(q * self.count))) for q in qs]
        return [2.0 * GAMMA ** indices[place] / (GAMMA + 1.0) for place in places]

    def mean(self) -> float | None:
        return self.sum_ms / self.count if self.count else None

    def to_wire(self) -> HistogramWire:
        return HistogramWire(count=self.count, sum_ms=self.sum_ms, buckets=dict(self.counts))

    @classmethod
    def from_wire(cls, wire: HistogramWire) -> LatencyHistogram:
        """Raises ValueError where the other side counts in other buckets, or its numbers don't add up."""
        if wire.gamma != GAMMA:
            raise ValueError(f"histogram has gamma {wire.gamma}, this side counts in {GAMMA}")
        if any(n < 0 for n in wire.buckets.values()) or sum(wire.buckets.values()) != wire.count:
            raise ValueError("histogram's bucket counts do not add up to its count")
        return cls(dict(wire.buckets), wire.count, wire.sum_ms)


def merged(histograms: Iterable[LatencyHistogram]) -> LatencyHistogram:
    """The sum of several histograms."""
    total = LatencyHistogram()
    for histogram in histograms:
        total.merge(histogram)
    return total
