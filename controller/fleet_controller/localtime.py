"""Local times -> moments, where clocks are set forward and back. PURE.

As Debian cron has it: a time that the clocks skip is taken right after the gap, one that they repeat the first time
round.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo


def zone_of(name: str) -> tzinfo:
    """Raises zoneinfo.ZoneInfoNotFoundError."""
    return UTC if name == "UTC" else ZoneInfo(name)


def moment(local: datetime, zone: tzinfo) -> float:
    """Unix seconds at which the clocks of `zone` show `local` (which names no zone)."""
    at = local.replace(tzinfo=zone, fold=0).timestamp()
    if not skipped(local, zone):
        return at
    return turn(zone, int(local.replace(tzinfo=zone, fold=1).timestamp()), int(at))


def skipped(local: datetime, zone: tzinfo) -> bool:
    """Whether the clocks of `zone` never show `local`: they are set forward over it."""
    at = local.replace(tzinfo=zone, fold=0)
    return at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local


def repeated(local: datetime, zone: tzinfo) -> bool:
    """Whether the clocks of `zone` show `local` twice: they are set back to before it."""
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return first != second and not skipped(local, zone)


def midnight(day: date, zone: tzinfo) -> float:
    """Unix seconds of the beginning of `day`."""
    return moment(datetime.combine(day, time()), zone)


def day_after(day: date) -> date:
    return day + timedelta(days=1)


def shown(at: float, zone: tzinfo) -> datetime:
    """What the clocks of `zone` show at Unix second `at`."""
    return datetime.fromtimestamp(at, UTC).astimezone(zone)


def turn(zone: tzinfo, before: int, after: int) -> int:
    """The first second of the new offset, between two moments that differ in it."""
    old = offset_s(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if offset_s(zone, middle) == old else (before, middle)
    return after


def offset_s(zone: tzinfo, at: int) -> int:
    """Seconds east of UTC."""
    offset = shown(at, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
