"""Recorded traffic: counts per interval, or one arrival a line.

CSV with the header `timestamp_s,requests` (requests arriving in the interval that starts there; the
interval is the spacing of the rows), or `timestamp_s` alone (one arrival a line).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

MAX_GAP = 1e9


class TraceError(ValueError):
    """A trace that cannot be read; the message names the line and what should stand there."""


@dataclass(frozen=True)
class Trace:
    """`rows` are (start, requests) per interval of `interval_s`; with interval 0 each row is one moment.

    Times are seconds from the first row.
    """

    rows: tuple[tuple[float, int], ...]
    interval_s: float

    @property
    def seconds(self) -> float:
        return self.rows[-1][0] + self.interval_s if self.rows else 0.0

    @property
    def requests(self) -> int:
        return sum(count for _, count in self.rows)

    def scaled(self, factor: float) -> Trace:
        """The same shape with `factor` times the requests (rounded so that the total is right)."""
        rows, carry = [], 0.0
        for start, count in self.rows:
            exact = count * factor + carry
            rows.append((start, math.floor(exact)))
            carry = exact - math.floor(exact)
        return Trace(tuple(rows), self.interval_s)

    def arrivals(self, chance: Random) -> Iterator[float]:
        """Arrival times in order; within an interval at random (a Poisson process that is known to have n
        arrivals).
        """
        for start, count in self.rows:
            if self.interval_s == 0 or count == 0:
                yield from [start] * count
            else:
                yield from sorted(start + self.interval_s * chance.random() for _ in range(count))


def read_trace(lines: Iterable[str]) -> Trace:
    """Raises TraceError for another header, a value that is no number, or times that go back."""
    rows: list[tuple[float, int]] = []
    fields = 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if not fields:
            fields = _header(text, number)
            continue
        rows.append(_row(text, fields, number))
        if len(rows) > 1 and rows[-1][0] < rows[-2][0]:
            raise TraceError(f"line {number}: time {rows[-1][0]:g} goes back; sort the trace by timestamp_s")
    if not rows:
        raise TraceError(
            "the trace is empty; it needs the header timestamp_s,requests and a row per interval"
        )
    zero = rows[0][0]
    moved = tuple((at - zero, count) for at, count in rows)
    if fields == 1:
        return Trace(moved, 0.0)
    if len(moved) < 2 or moved[1][0] == 0:
        raise TraceError("the trace needs two rows at different times: their spacing is the interval")
    return Trace(moved, moved[1][0])


def _header(text: str, number: int) -> int:
    names = [name.strip() for name in text.split(",")]
    if names == ["timestamp_s", "requests"]:
        return 2
    if names == ["timestamp_s"]:
        return 1
    raise TraceError(
        f'line {number}: the header is "{text[:60]}"; it must be timestamp_s,requests or timestamp_s'
    )


def _row(text: str, fields: int, number: int) -> tuple[float, int]:
    parts = text.split(",")
    try:
        if len(parts) != fields:
            raise ValueError
        at, count = float(parts[0]), float(parts[1]) if fields == 2 else 1.0
        if not abs(at) < MAX_GAP * 10 or not 0 <= count < MAX_GAP:
            raise ValueError
    except ValueError:
        raise TraceError(
            f'line {number}: "{text[:60]}" is not {fields} number(s), times and counts'
        ) from None
    return at, round(count)
