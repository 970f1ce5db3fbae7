"""Timetable: when a pool's bounds change because of its schedules, and when the clocks change. PURE.

It asks the policy itself (schedule.last_fired, schedule.ends, schedule.bounds) and adds nothing of its own, so what is
shown here is what will be done: each time at which a schedule starts or ends, what holds from then on, and what does
not start although its cron line names the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo

from cronsim import CronSim

from fleet_controller.localtime import (
    day_after,
    midnight,
    moment,
    offset_s,
    repeated,
    shown,
    skipped,
    turn,
    zone_of,
)
from fleet_controller.policies.decision import Bounds
from fleet_controller.policies.schedule import bounds, ends, last_fired
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.spec.schedule import Schedule, among, listed

HOUR_S = 3600
_NEAR_S = 3 * HOUR_S  # how far around a change of the clocks a time may be skipped or repeated


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


@dataclass(frozen=True)
class Note:
    """What to know about `at` (Unix seconds): why a schedule does not start, or not at the time that is written."""

    at: float
    timezone: str
    text: str


def changes(spec: ScalingSpec, now: float, until: float) -> list[Change]:
    """The changes of the bounds after `now` and up to `until`, in order. What changes no number is left out."""
    moments: dict[float, str] = {}
    for schedule in spec.schedules:
        for at in _moments(schedule, spec.holidays, now, until):
            moments[at] = schedule.timezone
    found: list[Change] = []
    holds = bounds(spec, now)
    for at in sorted(moments):
        then = bounds(spec, at)
        if (then.low, then.high) != (holds.low, holds.high):
            found.append(Change(at, moments[at], holds, then))
        holds = then
    return found


def _moments(schedule: Schedule, holidays: tuple[str, ...], now: float, until: float) -> Iterator[float]:
    """When `schedule` starts or ends, after `now` and up to `until`, newest first."""
    at = last_fired(schedule, until, holidays)
    while at is not None:
        for either in (at, ends(schedule, at)):
            if now < either <= until:
                yield either
        if at <= now:  # the one in force: its end is to come, those of earlier ones don't count
            return
        at = last_fired(schedule, at - 1, holidays)


def over(spec: ScalingSpec, now: float) -> list[Schedule]:
    """The schedules of which nothing is to come: their days have passed."""
    found = []
    for schedule in spec.schedules:
        zone = zone_of(schedule.timezone)
        if schedule.at is not None:
            at = last_fired(schedule, now)
            gone = at is not None and ends(schedule, at) <= now
        else:
            days = listed(schedule.on, spec.holidays)
            today = shown(now, zone).date().isoformat()
            gone = bool(days) and all(len(day) == len(today) and day < today for day in days)
            at = last_fired(schedule, now, spec.holidays) if gone else None
            gone = gone and (at is None or ends(schedule, at) <= now)
        if gone:
            found.append(schedule)
    return found


def notes(spec: ScalingSpec, now: float, until: float) -> list[Note]:
    """What to know about the times after `now` and up to `until`, in order."""
    found = [note for schedule in spec.schedules for note in _left_out(schedule, spec.holidays, now, until)]
    for change in clock_changes(spec, now - _NEAR_S, until + _NEAR_S):
        for schedule in spec.schedules:
            if schedule.timezone == change.timezone:
                near = max(now, change.at - _NEAR_S), min(until, change.at + _NEAR_S)
                found += _moved(schedule, spec.holidays, *near)
    return sorted(set(found), key=lambda note: (note.at, note.text))


def _left_out(schedule: Schedule, holidays: tuple[str, ...], now: float, until: float) -> Iterator[Note]:
    """The days on which `except` keeps it from starting; each at the first time that it would have."""
    refused = listed(schedule.except_, holidays)
    if not refused:
        return
    always, zone = schedule.model_copy(update={"except_": ()}), zone_of(schedule.timezone)
    day = shown(now, zone).date()
    while midnight(day, zone) <= until:
        if among(day, refused):
            first = _first_of(always, holidays, day, zone)
            if first is not None and now < first <= until:
                yield Note(first, schedule.timezone, f"{schedule.name} does not start: except {day}")
        day = day_after(day)


def _first_of(schedule: Schedule, holidays: tuple[str, ...], day: date, zone: tzinfo) -> float | None:
    first, began = None, midnight(day, zone)
    at = last_fired(schedule, midnight(day_after(day), zone) - 1, holidays)
    while at is not None and at >= began:
        first, at = at, last_fired(schedule, at - 1, holidays)
    return first


def _moved(schedule: Schedule, holidays: tuple[str, ...], now: float, until: float) -> Iterator[Note]:
    """The times of `schedule` that the clocks skip or repeat."""
    zone = zone_of(schedule.timezone)
    for which, written in (("starts", schedule.at), ("ends", schedule.until)):
        if written is None:
            continue
        local = datetime.fromisoformat(written)
        at = moment(local, zone)
        if now < at <= until and (skipped(local, zone) or repeated(local, zone)):
            yield Note(at, schedule.timezone, _why(schedule, which, local, zone))
    if schedule.cron is None or any(part.startswith("*") for part in schedule.cron.split()[:2]):
        return  # follows real time
    cron = CronSim(schedule.cron, datetime(2024, 1, 1, tzinfo=UTC))
    fired = last_fired(schedule, until, holidays)
    while fired is not None and fired > now:
        local = shown(fired, zone).replace(tzinfo=None)
        if local.hour not in cron.hours or local.minute not in cron.minutes:
            text = f"{schedule.name} starts now: the clocks skip its time"
            yield Note(fired, schedule.timezone, text)
        elif repeated(local, zone):
            yield Note(fired, schedule.timezone, _why(schedule, "starts", local, zone))
        fired = last_fired(schedule, fired - 1, holidays)


def _why(schedule: Schedule, which: str, local: datetime, zone: tzinfo) -> str:
    if skipped(local, zone):
        return f"{schedule.name} {which} now: the clocks skip {local:%H:%M}"
    return f"{schedule.name} {which} now: {local:%H:%M} comes twice, this is the first time"


def clock_changes(spec: ScalingSpec, now: float, until: float) -> list[ClockChange]:
    """When the clocks of the schedules' time zones change, after `now` and up to `until`, in order."""
    found = []
    for name in dict.fromkeys(schedule.timezone for schedule in spec.schedules):
        zone = zone_of(name)
        before = int(now)
        while before < until:
            after = min(before + HOUR_S, int(until) + 1)
            if offset_s(zone, before) != offset_s(zone, after):
                at = turn(zone, before, after)
                if at <= until:
                    found.append(ClockChange(at, name, offset_s(zone, at - 1), offset_s(zone, at)))
            before = after
    return sorted(found, key=lambda change: change.at)
