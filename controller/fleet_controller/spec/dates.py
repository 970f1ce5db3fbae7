"""Days and local times as people write them in schedules: 2026-12-25, 12-25 (every year), 2026-12-24 08:00.

Which clock they mean is said elsewhere (a schedule's `timezone`), so none of them carries an offset.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

HOLIDAYS = "holidays"
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_YEARLY = re.compile(r"(\d\d)-(\d\d)", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ] *(\d\d?):(\d\d)(?::00)?", re.ASCII)
_LEAP_YEAR = 2024  # 02-29 is a day of some years


def day(value: object) -> str:
    """`value` as "2026-12-25", or as "12-25" for every year. Raises ValueError with what to write."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    text = value.strip() if isinstance(value, str) else ""
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text).isoformat()
        if found := _YEARLY.fullmatch(text):
            return date(_LEAP_YEAR, int(found[1]), int(found[2])).strftime("%m-%d")
    except ValueError:
        raise ValueError(f'"{text}" is not in the calendar; check its month and day') from None
    raise ValueError(f"{_shown(value)} is not a day; write it like 2026-12-25, or 12-25 for every year")


def moment(value: object) -> str:
    """`value` as "2026-12-24 08:00"; 24:00 is the next day's 00:00. Raises ValueError with what to write."""
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.isoformat(" ", "seconds")
    text = value.strip() if isinstance(value, str) else ""
    found = _MOMENT.fullmatch(text)
    if not found:
        if _DAY.fullmatch(text):
            raise ValueError(f'"{text}" has no time; write it like "{text} 08:00"')
        if re.match(_MOMENT.pattern, text):
            raise ValueError(
                f'"{text[:40]}" is more than a local time; write it like "2026-12-24 08:00", '
                "to the minute, and the clock it means as timezone"
            )
        raise ValueError(f'{_shown(value)} is not a time; write it like "2026-12-24 08:00"')
    hour, minute = int(found[2]), int(found[3])
    try:
        start = datetime.fromisoformat(found[1])
        if (hour, minute) == (24, 0):
            return (start + timedelta(days=1)).isoformat(" ", "minutes")
        return start.replace(hour=hour, minute=minute).isoformat(" ", "minutes")
    except (ValueError, OverflowError):
        raise ValueError(f'"{text}" is not in the calendar; check its day and time') from None


def _days(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(day(one) for one in _listed(value)))


def _days_or_holidays(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(HOLIDAYS if one == HOLIDAYS else day(one) for one in _listed(value)))


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _shown(value: object) -> str:
    return f'"{value[:40]}"' if isinstance(value, str) else repr(value)[:40]


def _schema(named: bool) -> WithJsonSchema:
    days = r"([0-9]{4}-)?[0-9]{2}-[0-9]{2}"
    one = {"type": "string", "pattern": f"^({days}|{HOLIDAYS})$" if named else f"^{days}$"}
    return WithJsonSchema({"anyOf": [{"type": "array", "items": one}, one]})


Days = Annotated[tuple[str, ...], BeforeValidator(_days), _schema(named=False)]
"""Days, one or a list; "12-25" comes every year."""
DaysOrHolidays = Annotated[tuple[str, ...], BeforeValidator(_days_or_holidays), _schema(named=True)]
"""The same, and the word "holidays" for those that stand under `holidays`."""
Moment = Annotated[
    str,
    BeforeValidator(moment),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ] *[0-9]{1,2}:[0-9]{2}(:00)?$"}
    ),
]
"""A local time to the minute, as "2026-12-24 08:00"."""
