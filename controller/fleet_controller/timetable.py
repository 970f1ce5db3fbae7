"""Timetable: when a pool's bounds change because of its schedules, and when the clocks change. PURE.

It asks the policy itself (schedule.last_fired, schedule.bounds) and adds nothing of its own, so what is shown here is
what will be done: each time at which a schedule fires or ends, and what holds from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from fleet_controller.policies.decision import Bounds
from fleet_controller.policies.schedule import bounds, last_fired
from fleet_controller.spec.scaling import ScalingSpec, Schedule

HOUR_S = 3600


@dataclass(frozen=True)
class Change:
    """From `at` (Unix seconds) on `after` holds where `before` did. `timezone` is that of the schedule which did it."""

    at: float
    timezone: str
    before: Bounds
    after: Bounds


@dataclass(frozen=True)
class ClockChange:
    """At `at` (Unix seconds) the clocks of `timezone` go from one offset to another, seconds east of UTC."""

    at: int
    timezone: str
    offset_before_s: int
    offset_after_s: int


def changes(spec: ScalingSpec, now: float, until: float) -> list[Change]:
    """The changes of the bounds after `now` and up to `until`, in order. What changes no number is left out."""
    moments: dict[float, str] = {}
    for schedule in spec.schedules:
        for at in _moments(schedule, now, until):
            moments[at] = schedule.timezone
    found: list[Change] = []
    holds = bounds(spec, now)
    for at in sorted(moments):
        then = bounds(spec, at)
        if (then.low, then.high) != (holds.low, holds.high):
            found.append(Change(at, moments[at], holds, then))
        holds = then
    return found


def _moments(schedule: Schedule, now: float, until: float) -> Iterator[float]:
    """When `schedule` fires or ends, after `now` and up to `until`, newest first."""
    at = last_fired(schedule, until)
    while at is not None:
        for moment in (at, None if schedule.duration is None else at + schedule.duration):
            if moment is not None and now < moment <= until:
                yield moment
        if at <= now:  # the one in force: its end is to come, those of earlier ones don't count
            return
        at = last_fired(schedule, at - 1)


def clock_changes(spec: ScalingSpec, now: float, until: float) -> list[ClockChange]:
    """When the clocks of the schedules' time zones change, after `now` and up to `until`, in order."""
    found = []
    for name in dict.fromkeys(schedule.timezone for schedule in spec.schedules):
        zone = ZoneInfo(name)
        before = int(now)
        while before < until:
            after = min(before + HOUR_S, int(until) + 1)
            if _offset_s(zone, before) != _offset_s(zone, after):
                at = _turn(zone, before, after)
                if at <= until:
                    found.append(ClockChange(at, name, _offset_s(zone, at - 1), _offset_s(zone, at)))
            before = after
    return sorted(found, key=lambda change: change.at)


def _turn(zone: ZoneInfo, before: int, after: int) -> int:
    """The first second of the new offset, between two moments that differ in it."""
    old = _offset_s(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset_s(zone, middle) == old else (before, middle)
    return after


def _offset_s(zone: ZoneInfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
