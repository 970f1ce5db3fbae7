"""What the schedules of a scaling block must say about the calendar and the clocks."""

from __future__ import annotations

from datetime import datetime

from fleet_controller.localtime import moment, zone_of
from fleet_controller.spec.dates import HOLIDAYS
from fleet_controller.spec.draft import Findings
from fleet_controller.spec.problem import Steps
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.spec.schedule import Schedule, never_comes


def check_schedules(scaling: ScalingSpec, at: Steps, found: Findings) -> None:
    """Each schedule of the block at `at` comes at some time and lasts for some time."""
    lists = [("holidays",), (*at, "holidays")]
    for number, schedule in enumerate(scaling.schedules):
        place = (*at, "schedules", number)
        named = next((key for key, days in _days(schedule) if HOLIDAYS in days), None)
        if named is not None and not scaling.holidays:
            found.add(
                (*place, named),
                'there are no holidays; list them, as "holidays: [2026-12-25, 01-01]", '
                "beside schedules or at the top of the file",
                needs=[*lists, place],
            )
        elif never_comes(schedule, scaling.holidays):
            what = "none of its days is left" if schedule.cron is None else "cron names none of its days"
            key = "on" if schedule.on else "except"
            found.add((*place, key), f"never comes: {what}; check cron, on and except", needs=[*lists, place])
        elif schedule.at is not None and schedule.until is not None:
            zone = zone_of(schedule.timezone)
            starts, ends = (moment(datetime.fromisoformat(t), zone) for t in (schedule.at, schedule.until))
            if starts >= ends:
                message = f"ends when it starts: the clocks of {schedule.timezone} skip both times"
                found.add((*place, "until"), f"{message}; write a later one", needs=[place])


def _days(schedule: Schedule) -> list[tuple[str, tuple[str, ...]]]:
    return [("on", schedule.on), ("except", schedule.except_)]
