"""One entry of `schedules:`: when it starts, on which clock, what holds then, and until when."""

from __future__ import annotations

import difflib
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, model_validator

from fleet_controller.spec.dates import HOLIDAYS, DaysOrHolidays, Moment
from fleet_controller.spec.duration import PositiveDuration
from fleet_controller.spec.part import Part

# Weekdays and leap years come round in these.
_CYCLE = (date(2024, 1, 1), date(2051, 12, 31))


def _cron(value: str) -> str:
    fields = len(value.split())
    try:
        if fields != 5:  # cronsim takes a sixth, for seconds; cron does not
            raise CronSimError(f"it has {fields} field{'s' if fields != 1 else ''}, not 5")
        fires = next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        why = str(error)
        raise ValueError(
            f'"{value[:60]}" is not a cron expression: {why[:1].lower() + why[1:]}; '
            'write "MINUTE HOUR DAY MONTH WEEKDAY", as "0 8 * * mon-fri"'
        ) from None
    if fires is None:
        raise ValueError(f'"{value[:60]}" never comes; check its day and month')
    return value


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        names = zoneinfo.available_timezones()
        near = difflib.get_close_matches(value, names, 1, 0.6)
        near = near or [n for n in sorted(names) if n.rsplit("/", 1)[-1].lower() == value.lower()][:1]
        hint = f'did you mean "{near[0]}"?' if near else 'write it like "Europe/Berlin" or "UTC"'
        raise ValueError(f'"{value[:60]}" is not a known timezone; {hint}') from None
    return value


class Schedule(Part):
    """From a time on these bounds hold: each time that `cron` names, once (`at`), or whole days (`on`)."""

    cron: Annotated[str, AfterValidator(_cron)] | None = Field(
        default=None, description='When it starts: "MINUTE HOUR DAY MONTH WEEKDAY", as "0 8 * * mon-fri".'
    )
    at: Moment | None = Field(
        default=None, description="Instead of cron: once, at this local time, as 2026-12-24 08:00."
    )
    on: DaysOrHolidays = Field(
        default=(),
        description="Only on these days, one or a list: 2026-12-25, 12-25 (every year), holidays. "
        "Without cron: the whole day.",
    )
    except_: DaysOrHolidays = Field(
        default=(), alias="except", description="Does not start on these days, written as for on."
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", description='The clock that all of its times follow, as "Europe/Berlin".'
    )
    min_servers: int | None = Field(default=None, ge=0, description="The pool's min_servers while it holds.")
    max_servers: int | None = Field(default=None, ge=0, description="The pool's max_servers while it holds.")
    servers: int | None = Field(default=None, ge=0, description="Exactly this many servers while it holds.")
    until: Moment | None = Field(
        default=None, description="With at: when it ends, a local time as 2026-12-26 20:00."
    )
    duration: PositiveDuration | None = Field(
        default=None,
        description="How long it holds; without it: to the end of the day with on, "
        "with cron alone until the pool's next schedule starts.",
    )

    @property
    def dated(self) -> bool:
        """Whether it is about certain days, which go before what repeats."""
        return self.at is not None or bool(self.on)

    @property
    def name(self) -> str:
        """As reasons call it: `schedule "0 8 * * mon-fri" Europe/Berlin`."""
        parts = [] if self.cron is None else [f'"{self.cron}"']
        parts += [] if self.at is None else [f"at {self.at}"]
        shown = ", ".join(self.on[:3]) + (f" and {len(self.on) - 3} more" if len(self.on) > 3 else "")
        parts += [f"on {shown}"] if self.on else []
        return f"schedule {' '.join(parts)} {self.timezone}"

    @model_validator(mode="after")
    def _starts_and_ends(self) -> Schedule:
        if self.cron is None and self.at is None and not self.on:
            raise ValueError(
                'has no time; give it cron ("0 8 * * mon-fri"), at (2026-12-24 08:00) or on (2026-12-25)'
            )
        if self.at is not None:
            for key, written in (("cron", self.cron), ("on", self.on), ("except", self.except_)):
                if written:
                    raise ValueError(f"at is one moment; leave out {key}, or leave out at")
            if self.until is None and self.duration is None:
                raise ValueError("at needs an end; write until (2026-12-26 20:00) or duration (12h)")
        if self.until is not None:
            if self.at is None:
                raise ValueError("until is one moment and goes with at; write duration instead")
            if self.duration is not None:
                raise ValueError("until and duration are two ends; leave out one of them")
            if self.until <= self.at:
                raise ValueError(f"until {self.until} is not after at {self.at}")
        return self

    @model_validator(mode="after")
    def _changes_something(self) -> Schedule:
        if self.min_servers is None and self.max_servers is None and self.servers is None:
            raise ValueError("changes nothing; give it min_servers, max_servers or servers")
        if self.servers is not None and (self.min_servers is not None or self.max_servers is not None):
            raise ValueError("servers sets both bounds; leave out min_servers and max_servers")
        if (
            self.min_servers is not None
            and self.max_servers is not None
            and self.min_servers > self.max_servers
        ):
            raise ValueError(f"min_servers {self.min_servers} is more than max_servers {self.max_servers}")
        return self


def never_comes(schedule: Schedule, holidays: tuple[str, ...]) -> bool:
    """Whether its days leave nothing of it: `on` days that cron doesn't name, or `except` all that it does."""
    if not schedule.on and not schedule.except_:
        return False
    wanted, refused = listed(schedule.on, holidays), listed(schedule.except_, holidays)
    named = [date.fromisoformat(one) for one in wanted if len(one) == 10]
    first, last = _CYCLE
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)] + named
    cron = None if schedule.cron is None else CronSim(schedule.cron, datetime(2024, 1, 1, tzinfo=UTC))
    return not any(
        (not wanted or among(one, wanted))
        and not among(one, refused)
        and (cron is None or (one.month in cron.months and cron.match_day(one)))
        for one in days
    )


def listed(days: tuple[str, ...], holidays: tuple[str, ...]) -> frozenset[str]:
    """`days` with the word "holidays" replaced by what it stands for."""
    return frozenset(one for word in days for one in (holidays if word == HOLIDAYS else (word,)))


def among(day: date, days: frozenset[str]) -> bool:
    """Whether `day` is one of `days`, by its date or as one of every year."""
    return bool(days) and (day.isoformat() in days or f"{day:%m-%d}" in days)
