"""Schedules: which bounds hold at a given moment.

One schedule is in force at a time. One for certain days (`at`, `on`) goes before those that repeat; among the same
kind the one that started last; of those that started in the same minute the one that stands last in the file.
When it ends, whichever would have been in force without it is again.

Time zones and DST as Debian cron has them (cronsim): a fixed time that the clocks skip comes right after the gap,
one that they repeat comes once, the first time round. `duration` counts real time; `until` and whole days end by
the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from fleet_controller.localtime import day_after, midnight, moment, shown, zone_of
from fleet_controller.policies.decision import Bounds
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.spec.schedule import Schedule, among, listed

# A clock is set back by at most this much at once: seen from the repeated hour, a time that has already come
# stands ahead on the dial. So the search starts this far ahead and walks back.
_SET_BACK = timedelta(hours=3)
_LONGEST_AGO_S = 50 * 366 * 86400.0  # as far as cronsim looks
_LEAP_YEARS = 8  # 29 February comes at least every so many years


def last_fired(schedule: Schedule, now: float, holidays: tuple[str, ...] = ()) -> float | None:
    """Unix seconds of the last time at or before `now` that the schedule started; None: it never did.

    `holidays` are the days for which its word "holidays" stands. Raises cronsim.CronSimError or
    zoneinfo.ZoneInfoNotFoundError for a schedule that validation would have refused.
    """
    zone = zone_of(schedule.timezone)
    if schedule.at is not None:
        at = moment(datetime.fromisoformat(schedule.at), zone)
        return at if at <= now else None
    wanted, refused = listed(schedule.on, holidays), listed(schedule.except_, holidays)
    limit = now
    while limit > now - _LONGEST_AGO_S:
        day: date | None = shown(limit, zone).date()
        if schedule.cron is not None:
            fired = _cron_fired(schedule.cron, zone, limit)
            if fired is None:
                return None
            day = shown(fired, zone).date()
            if (not schedule.on or among(day, wanted)) and not among(day, refused):
                return fired
            day -= timedelta(days=1)
        if schedule.on:
            day = _latest(wanted, day)
        if day is None:
            return None
        if schedule.cron is None:
            if not among(day, refused):
                return midnight(day, zone)
            day -= timedelta(days=1)
        limit = midnight(day_after(day), zone) - 1
    return None


def _cron_fired(cron: str, zone: tzinfo, now: float) -> float | None:
    moment_ = datetime.fromtimestamp(int(now), UTC)
    minute, hour, *_ = cron.split()
    repeats = minute.startswith("*") or hour.startswith("*")  # then cron follows real time, not the dial
    start = moment_ + (timedelta(seconds=1) if repeats else _SET_BACK)
    for fired in CronSim(cron, start.astimezone(zone), reverse=True):
        if fired.timestamp() <= now:
            return _caught_up(cron, fired, now) if repeats else fired.timestamp()
    return None


def _caught_up(cron: str, fired: datetime, now: float) -> float:
    """The last time up to `now`, from `fired` on: cronsim's way back steps over the second of two evenings' ends,
    where the clocks are set back at midnight (America/Santiago).
    """
    last = fired.timestamp()
    for later in CronSim(cron, fired):
        if later.timestamp() > now:
            break
        last = later.timestamp()
    return last


def _latest(days: frozenset[str], day: date | None) -> date | None:
    """The last of `days` that is not after `day`; None if there is none."""
    if day is None:
        return None
    found: list[date] = []
    for one in days:
        for written in (
            (one,) if len(one) == 10 else (f"{day.year - n:04}-{one}" for n in range(_LEAP_YEARS + 1))
        ):
            try:
                named = date.fromisoformat(written)
            except ValueError:  # 29 February of an ordinary year
                continue
            if named <= day:
                found.append(named)
                break
    return max(found, default=None)


def ends(schedule: Schedule, fired: float) -> float:
    """Unix seconds at which what started at `fired` is over; infinite: when another schedule starts."""
    if schedule.duration is not None:
        return fired + schedule.duration
    zone = zone_of(schedule.timezone)
    if schedule.until is not None:
        return moment(datetime.fromisoformat(schedule.until), zone)
    if schedule.on:
        return midnight(day_after(shown(fired, zone).date()), zone)
    return math.inf


def in_force(
    schedules: Iterable[Schedule], now: float, holidays: tuple[str, ...] = ()
) -> tuple[Schedule, float] | None:
    """The schedule whose bounds hold at `now`, and since when (Unix seconds)."""
    best: tuple[Schedule, float] | None = None
    for schedule in schedules:
        fired = last_fired(schedule, now, holidays)
        if fired is None or now >= ends(schedule, fired):
            continue
        if best is None or (schedule.dated, fired) >= (best[0].dated, best[1]):
            best = (schedule, fired)
    return best


def bounds(spec: ScalingSpec, now: float) -> Bounds:
    """min_servers and max_servers as the schedules change them.

    A schedule's `servers` sets both, its `max_servers` moves the ceiling either way; its `min_servers`
    alone stays under the ceiling. Where floor and ceiling cross, the ceiling holds: it is the one that
    costs money.
    """
    found = in_force(spec.schedules, now, spec.holidays) if spec.schedules else None
    low, high = spec.min_servers, spec.max_servers
    if found is None:
        return Bounds(low=min(low, high), high=high)
    schedule, _ = found
    name = schedule.name
    low_source, high_source = "min_servers", "max_servers"
    if schedule.max_servers is not None:
        high, high_source = schedule.max_servers, name
    if schedule.min_servers is not None:
        low, low_source = schedule.min_servers, name
    if schedule.servers is not None:
        low = high = schedule.servers
        low_source = high_source = name
    return Bounds(
        low=min(low, high), high=high, low_source=low_source, high_source=high_source, schedule=name
    )


__all__ = ["CronSimError", "bounds", "ends", "in_force", "last_fired"]
