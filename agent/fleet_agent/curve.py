"""How long the device takes for a batch, by its size: learned from the batches that ran. PURE.

Sizes are kept in a few buckets, because a model sees all of 1..max_batch_size and only neighbours resemble each other:
each bucket holds running means of size and seconds. What a reader needs (how many requests a second this host can
answer within a target) follows from the points; see docs/scaling.md.
"""

from __future__ import annotations

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
        self._points: list[tuple[float, float]] | None = []

    def observed(self, size: int, seconds: float) -> None:
        """A batch of `size` items took `seconds`."""
        bucket = self._buckets.setdefault(_bucket_of(size), _Bucket())
        bucket.batches += 1
        weight = max(_MEMORY, 1.0 / bucket.batches)
        bucket.size += weight * (size - bucket.size)
        bucket.seconds += weight * (seconds - bucket.seconds)
        self._points = None

    def points(self) -> list[tuple[float, float]]:
        """What is known well enough; empty soon after a start."""
        if self._points is None:
            known = [number for number, bucket in self._buckets.items() if bucket.batches >= _ENOUGH]
            known.sort()
            self._points = [(self._buckets[n].size, self._buckets[n].seconds) for n in known]
        return self._points

    def seconds(self, size: int) -> float | None:
        """What a batch of `size` would take: on the line between the known points around it, in proportion above the
        last one, as the first one below it; None where nothing is known."""
        points = self.points()
        if not points:
            return None
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
