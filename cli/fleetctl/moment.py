"""A moment in the past as people write it: 2026-03-02T08:00, 08:00, "10m ago"."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fleet_controller.spec.duration import seconds

HOW = 'write it like 2026-03-02T08:00, 2026-03-02T08:00+01:00, 08:00 or "10m ago"'
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_AGO = re.compile(r"(?:-\s*(?P<minus>.+)|(?P<ago>.+?)\s*ago)", re.ASCII)


def moment(text: str, now: float) -> float:
    """`text` as Unix seconds, seen from `now`. Raises ValueError with what to write instead.

    A time without an offset from UTC is this machine's; a time of day alone is its last occurrence.
    """
    wanted = text.strip()
    if wanted == "now":
        return now
    read = (_clock(wanted, now), _ago(wanted, now), _iso(wanted))
    at = next((found for found in read if found is not None), None)
    if at is None:
        raise ValueError(f'"{text[:40]}" is not a time; {HOW}')
    if at > now:
        raise ValueError(f'"{text[:40]}" is yet to come')
    return at


def _clock(text: str, now: float) -> float | None:
    found = _CLOCK.fullmatch(text)
    if not found:
        return None
    hour, minute, second = (int(part or 0) for part in found.groups())
    here = datetime.fromtimestamp(now, UTC).astimezone().replace(tzinfo=None)
    try:
        at = here.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        return None
    if at > here:
        at -= timedelta(days=1)
    return at.astimezone().timestamp()


def _ago(text: str, now: float) -> float | None:
    found = _AGO.fullmatch(text)
    if not found:
        return None
    try:
        return now - seconds(found["minus"] or found["ago"])
    except ValueError:
        return None


def _iso(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        return None
