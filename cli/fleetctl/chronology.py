"""Log lines of several hosts in the order of their times. PURE."""

from __future__ import annotations

import heapq
import json
import re
from calendar import timegm
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

# The agent's lines are JSON with `at`; the daemons' begin with the time (Python's logging).
_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?")


@dataclass(frozen=True)
class Told:
    """Lines of one source, oldest first, and how far its clock's zone is from UTC."""

    lines: Sequence[str]
    utc_offset_s: int = 0


def merged(sources: Mapping[str, Told]) -> Iterator[tuple[str, str]]:
    """(source, line), the oldest first. A line without a time of its own stays with the one before it."""
    order = {name: place for place, name in enumerate(sources)}
    for _, place, _, line in heapq.merge(*(_timed(order[name], told) for name, told in sources.items())):
        yield list(sources)[place], line


def _timed(place: int, told: Told) -> Iterable[tuple[float, int, int, str]]:
    last = 0.0
    for number, line in enumerate(told.lines):
        at = at_of(line)
        if at is not None:
            # A clock that was set back does not mix up the lines of one host.
            last = max(last, at - told.utc_offset_s)
        yield last, place, number, line


def at_of(line: str) -> float | None:
    """The time in a line, in seconds, by the clock and zone of who wrote it."""
    text = line
    if line.startswith("{"):
        try:
            found = json.loads(line)
        except ValueError:
            return None
        text = str(found.get("at", "")) if isinstance(found, dict) else ""
    match = _STAMP.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    fraction = float("0." + (match[7] or "0"))
    return timegm((year, month, day, hour, minute, second)) + fraction
