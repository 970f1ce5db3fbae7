"""Schedules: which bounds hold at a given moment.

In force is the schedule that fired last, and whose `duration` (seconds of real time, if it has one) is not
over; when several fired in the same minute, the one that stands last in the file. Time zones and DST as
Debian cron has them (cronsim): a fixed time that the clocks skip fires right after the gap, one that they
repeat fires once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fleet_controller.policies.decision import Bounds
from fleet_controller.spec.scaling import ScalingSpec, Schedule

# A clock is set back by at most this much at once: seen from the repeated hour, a time that has already come
# stands ahead on the dial. So the search starts this far ahead and walks back.
_SET_BACK = timedelta(hours=3)


def last_fired(schedule: Schedule, now: float) -> float | None:
    """Unix seconds of the last time at or before `now` that the cron line names; None: it never did.

    Raises cronsim.CronSimError or zoneinfo.ZoneInfoNotFoundError for a schedule that validation would have
    refused.
    """
    zone = UTC if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone)
    moment = datetime.fromtimestamp(int(now), UTC)
    minute, hour, *_ = schedule.cron.split()
    repeats = minute.startswith("*") or hour.startswith("*")  # then cron follows real time, not the dial
    start = moment + (timedelta(seconds=1) if repeats else _SET_BACK)
    for fired in CronSim(schedule.cron, start.astimezone(zone), reverse=True):
        if fired.timestamp() <= now:
            return fired.timestamp()
    return None


def in_force(schedules: Iterable[Schedule], now: float) -> tuple[Schedule, float] | None:
    """The schedule whose bounds hold at `now`, and since when (Unix seconds)."""
    best: tuple[Schedule, float] | None = None
    for schedule in schedules:
        fired = last_fired(schedule, now)
        if fired is None or (schedule.duration is not None and now >= fired + schedule.duration):
            continue
        if best is None or fired >= best[1]:
            best = (schedule, fired)
    return best


def bounds(spec: ScalingSpec, now: float) -> Bounds:
    """min_servers and max_servers as the schedules change them.

    A schedule's `servers` sets both, its `max_servers` moves the ceiling either way; its `min_servers`
    alone stays under the ceiling. Where floor and ceiling cross, the ceiling holds: it is the one that
    costs money.
    """
    found = in_force(spec.schedules, now) if spec.schedules else None
    low, high = spec.min_servers, spec.max_servers
    if found is None:
        return Bounds(low=min(low, high), high=high)
    schedule, _ = found
    name = f'schedule "{schedule.cron}" {schedule.timezone}'
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


__all__ = ["CronSimError", "bounds", "in_force", "last_fired"]
