"""How long the device takes for a batch, by its size: learned from the batches that ran. PURE.

Sizes are kept in a few buckets, because a model sees all of 1..max_batch_size and only neighbours resemble each other:
each bucket holds running means of size and seconds. What a reader needs (how many requests a second this host can
answer within a target) follows from the points; see docs/scaling.md.

Before enough batches ran, there are seeds: what the worker timed when it loaded the model. They are shown until their
own sizes are measured, and as soon as any size is, in proportion to it: if batches of 8 take twice what the seed said,
so will those of 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# How much a new batch counts at least in its bucket's means: about the last 50 batches are remembered.
_MEMORY = 0.02
# Batches in a bucket before it is shown; the first ones after a start are slow and say little.
_ENOUGH = 5


@dataclass(slots=True)
class _Bucket:
    batches: int = 0
    size: float = 0.0
    seconds: float = 0.0


class ServiceCurve:
    """Points (items in the batch, seconds on the device), in order of size."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}
        self._seeds: dict[int, tuple[float, float]] = {}
        self._points: list[tuple[float, float]] | None = []

    def observed(self, size: int, seconds: float) -> None:
        """A batch of `size` items took `seconds`."""
        bucket = self._buckets.setdefault(_bucket_of(size), _Bucket())
        bucket.batches += 1
        weight = max(_MEMORY, 1.0 / bucket.batches)
        bucket.size += weight * (size - bucket.size)
        bucket.seconds += weight * (seconds - bucket.seconds)
        self._points = None

    def seed(self, points: Sequence[tuple[float, float]]) -> None:
        """What (items, seconds) were timed at load; takes the place of earlier seeds, never of what was measured."""
        self._seeds = {_bucket_of(round(size)): (float(size), seconds) for size, seconds in points}
        self._points = None

    def points(self) -> list[tuple[float, float]]:
        """What is known well enough; empty soon after a start of a model without seeds."""
        if self._points is None:
            known = {n: (b.size, b.seconds) for n, b in self._buckets.items() if b.batches >= _ENOUGH}
            if self._seeds:
                known = self._with_seeds(known)
            self._points = [known[number] for number in sorted(known)]
        return self._points

    def seconds(self, size: int) -> float | None:
        """What a batch of `size` would take: on the line between the known points around it, in proportion above the
        last one, as the first one below it; None where nothing is known."""
        points = self.points()
        return _between(points, size) if points else None

    def _with_seeds(self, known: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
        """Seeds for the sizes that aren't measured, at the pace of those that are."""
        seeds = [self._seeds[number] for number in sorted(self._seeds)]
        paces = [seconds / said for size, seconds in known.values() if (said := _between(seeds, size)) > 0]
        pace = sum(paces) / len(paces) if paces else 1.0
        scaled = {number: (size, seconds * pace) for number, (size, seconds) in self._seeds.items()}
        return {**scaled, **known}


def _between(points: Sequence[tuple[float, float]], size: float) -> float:
    """Seconds for that size by these points, which are in order and at least one."""
    below_size, below = points[0]
    if size <= below_size:
        return below
    for at, seconds in points:
        if size <= at:
            return below + (seconds - below) * (size - below_size) / (at - below_size)
        below_size, below = at, seconds
    return below * size / below_size


def _bucket_of(size: int) -> int:
    """Sizes up to 4 each have their own; above, four to every doubling."""
    if size <= 4:
        return size
    octave = size.bit_length() - 1
    return 4 * (octave - 1) + ((size >> (octave - 2)) & 3) + 1
