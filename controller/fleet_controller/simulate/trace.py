"""Recorded traffic: counts per interval, or one arrival a line.

CSV with the header `timestamp_s,requests` (requests arriving in the interval that starts there; the
interval is the spacing of the first two rows, and a row that is left out had no requests), or `timestamp_s`
alone (one arrival a line).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

MOST_REQUESTS = 1e9  # in one row
LAST_TIME_S = 1e10  # later ones are milliseconds
UNEVEN = 0.001  # of an interval: what rounding in a trace's timestamps amounts to


class TraceError(ValueError):
    """A trace that cannot be read: `message` says what should stand there, `line` (from 1; 0: no single one)
    where; str() is both.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.message, self.line = message, line


@dataclass(frozen=True)
class Trace:
    """`rows` are (start, requests) per interval of `interval_s`; with interval 0 each row is one moment.

    Times are seconds from the first row; `began` is that row's own timestamp.
    """

    rows: tuple[tuple[float, int], ...]
    interval_s: float
    began: float = 0.0

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
        return Trace(tuple(rows), self.interval_s, self.began)

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
    """Raises TraceError for another header, a value that is no number, times that go back, or rows that are
    not evenly spaced.
    """
    rows: list[tuple[float, int]] = []
    fields = 0
    interval_s = at = began = before = 0.0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if not fields:
            fields = _header(text, number)
            continue
        time, count = _row(text, fields, number)
        if not rows:
            began = before = time
        if time < before:
            raise TraceError(f"time {time:.15g} goes back; sort the trace by timestamp_s", number)
        if fields == 1:
            at = time - began
        elif rows:
            interval_s = interval_s or time - began
            at += interval_s * _intervals(time - before, interval_s, number)
        rows.append((at, count))
        before = time
    if not fields:
        raise TraceError(
            "the trace is empty; it needs the header timestamp_s,requests and a row per interval"
        )
    if len(rows) < fields:  # an interval needs two rows, a moment one
        raise TraceError(
            "the trace needs two rows at different times: their spacing is the interval"
            if fields == 2
            else "the trace has no arrivals; it needs a timestamp_s a line"
        )
    return Trace(tuple(rows), interval_s, began)


def _header(text: str, number: int) -> int:
    names = [name.strip() for name in text.split(",")]
    if names == ["timestamp_s", "requests"]:
        return 2
    if names == ["timestamp_s"]:
        return 1
    raise TraceError(f'the header is "{text[:60]}"; it must be timestamp_s,requests or timestamp_s', number)


def _row(text: str, fields: int, number: int) -> tuple[float, int]:
    """Time and requests of a row. A part of a request is refused: rounded away, much of a thin trace would be."""
    parts = text.split(",")
    try:
        if len(parts) != fields:
            raise ValueError
        at, count = float(parts[0]), float(parts[1]) if fields == 2 else 1.0
        if not abs(at) < LAST_TIME_S or not 0 <= count < MOST_REQUESTS or count != int(count):
            raise ValueError
    except ValueError:
        right = "SECONDS,REQUESTS with a whole number of requests" if fields == 2 else "a time in seconds"
        raise TraceError(f'"{text[:60]}" is not {right}', number) from None
    return at, int(count)


def _intervals(gap_s: float, interval_s: float, number: int) -> int:
    """How many intervals after the row before this one starts."""
    if gap_s == 0:
        raise TraceError("the same time as the row before; write one row per interval", number)
    times = gap_s / interval_s
    if round(times) < 1 or abs(times - round(times)) > UNEVEN:
        raise TraceError(
            f"starts {gap_s:g} s after the row before, but the first two rows say that an interval is "
            f"{interval_s:g} s; space the rows evenly (rows without requests may be left out)",
            number,
        )
    return round(times)
