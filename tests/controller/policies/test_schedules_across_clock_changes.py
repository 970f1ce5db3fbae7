"""Both changes of the clocks in three zones, and a zone that has none: hand-worked tables, exact to the minute; and an
oracle that walks minute by minute with a dial in its hand and knows nothing of cronsim.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet_controller.explain.timetable import changes
from fleet_controller.policies import PolicyState, ScalingSpec, Signal, decide
from fleet_controller.policies.schedule import bounds, last_fired

MINUTE, DAY = 60, 86400


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def pool(*schedules: dict[str, Any], **scaling: Any) -> ScalingSpec:
    return ScalingSpec.model_validate(
        {"min_servers": 1, "max_servers": 9, "schedules": schedules, **scaling}, by_alias=True
    )


# Zone, two days around the change (from, UTC), the schedule, and when it starts and ends then (UTC).
# The clocks:  Berlin     29 March 01:00Z  02:00 -> 03:00 (+1 -> +2)    25 October 01:00Z  03:00 -> 02:00
#              New York   8 March 07:00Z   02:00 -> 03:00 (-5 -> -4)    1 November 06:00Z  02:00 -> 01:00
#              Lord Howe  3 October 15:30Z 02:00 -> 02:30 (+10:30 -> +11)  4 April 15:00Z  02:00 -> 01:30
#              Kolkata    never (+5:30)
BERLIN, NEW_YORK, LORD_HOWE, KOLKATA = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
)
H1, H8, M10 = {"duration": "1h"}, {"duration": "8h"}, {"duration": "10m"}
TABLE: list[tuple[str, str, dict[str, Any], list[tuple[str, str]]]] = [
    # --- Berlin, forward: 02:00 to 03:00 are not shown
    (BERLIN, "2026-03-28T12:00", {"cron": "59 1 * * *", **H1}, [("29T00:59", "29T01:59"), ("29T23:59", "30T00:59")]),
    (BERLIN, "2026-03-28T12:00", {"cron": "30 2 * * *", **H1}, [("29T01:00", "29T02:00"), ("30T00:30", "30T01:30")]),
    (BERLIN, "2026-03-28T12:00", {"cron": "0 3 * * *", **H1}, [("29T01:00", "29T02:00"), ("30T01:00", "30T02:00")]),
    (BERLIN, "2026-03-28T12:00", {"cron": "*/30 2 * * *", **M10}, [("30T00:00", "30T00:10"), ("30T00:30", "30T00:40")]),
    (BERLIN, "2026-03-28T12:00", {"cron": "0 22 * * *", **H8}, [("28T21:00", "29T05:00"), ("29T20:00", "30T04:00")]),
    (BERLIN, "2026-03-28T12:00", {"at": "2026-03-29 02:15", "until": "2026-03-29 04:00"}, [("29T01:00", "29T02:00")]),
    (BERLIN, "2026-03-28T12:00", {"at": "2026-03-29 01:30", "until": "2026-03-29 02:30"}, [("29T00:30", "29T01:00")]),
    (BERLIN, "2026-03-28T12:00", {"at": "2026-03-29 02:30", **H1}, [("29T01:00", "29T02:00")]),
    (BERLIN, "2026-03-28T12:00", {"on": "2026-03-29"}, [("28T23:00", "29T22:00")]),  # 23 hours
    (BERLIN, "2026-03-28T12:00", {"on": "2026-03-29", "duration": "24h"}, [("28T23:00", "29T23:00")]),
    (BERLIN, "2026-03-28T12:00", {"cron": "30 2 * * *", "on": "03-29"}, [("29T01:00", "29T22:00")]),
    (BERLIN, "2026-03-28T12:00", {"cron": "30 2 * * *", "except": "03-29", **H1}, [("30T00:30", "30T01:30")]),
    # --- Berlin, back: 02:00 to 03:00 are shown twice
    (BERLIN, "2026-10-24T12:00", {"cron": "59 1 * * *", **H1}, [("24T23:59", "25T00:59"), ("26T00:59", "26T01:59")]),
    (BERLIN, "2026-10-24T12:00", {"cron": "30 2 * * *", **H1}, [("25T00:30", "25T01:30"), ("26T01:30", "26T02:30")]),
    (BERLIN, "2026-10-24T12:00", {"cron": "0 3 * * *", **H1}, [("25T02:00", "25T03:00"), ("26T02:00", "26T03:00")]),
    (
        BERLIN, "2026-10-24T12:00", {"cron": "*/30 2 * * *", **M10},
        [("25T00:00", "25T00:10"), ("25T00:30", "25T00:40"), ("25T01:00", "25T01:10"), ("25T01:30", "25T01:40"),
         ("26T01:00", "26T01:10"), ("26T01:30", "26T01:40")],
    ),
    (BERLIN, "2026-10-24T12:00", {"cron": "0 22 * * *", **H8}, [("24T20:00", "25T04:00"), ("25T21:00", "26T05:00")]),
    (BERLIN, "2026-10-24T12:00", {"at": "2026-10-25 02:30", "until": "2026-10-25 02:45"}, [("25T00:30", "25T00:45")]),
    (BERLIN, "2026-10-24T12:00", {"at": "2026-10-25 01:30", "until": "2026-10-25 02:30"}, [("24T23:30", "25T00:30")]),
    (BERLIN, "2026-10-24T12:00", {"at": "2026-10-25 02:30", "until": "2026-10-25 03:00"}, [("25T00:30", "25T02:00")]),
    (BERLIN, "2026-10-24T12:00", {"at": "2026-10-25 02:30", "duration": "2h"}, [("25T00:30", "25T02:30")]),
    (BERLIN, "2026-10-24T12:00", {"on": "2026-10-25"}, [("24T22:00", "25T23:00")]),  # 25 hours
    ("UTC", "2026-10-24T12:00", {"at": "2026-10-25 01:30", **H1}, [("25T01:30", "25T02:30")]),  # 02:30 once more
    # --- New York, forward
    (NEW_YORK, "2026-03-07T12:00", {"cron": "59 1 * * *", **H1}, [("08T06:59", "08T07:59"), ("09T05:59", "09T06:59")]),
    (NEW_YORK, "2026-03-07T12:00", {"cron": "30 2 * * *", **H1}, [("08T07:00", "08T08:00"), ("09T06:30", "09T07:30")]),
    (NEW_YORK, "2026-03-07T12:00", {"cron": "0 3 * * *", **H1}, [("08T07:00", "08T08:00"), ("09T07:00", "09T08:00")]),
    (NEW_YORK, "2026-03-07T12:00",
        {"cron": "*/30 2 * * *", **M10}, [("09T06:00", "09T06:10"), ("09T06:30", "09T06:40")]),
    (NEW_YORK, "2026-03-07T12:00", {"cron": "0 22 * * *", **H8}, [("08T03:00", "08T11:00"), ("09T02:00", "09T10:00")]),
    (NEW_YORK, "2026-03-07T12:00", {"at": "2026-03-08 02:15", "until": "2026-03-08 04:00"}, [("08T07:00", "08T08:00")]),
    (NEW_YORK, "2026-03-07T12:00", {"on": "2026-03-08"}, [("08T05:00", "09T04:00")]),  # 23 hours
    # --- New York, back: 01:00 to 02:00 are shown twice
    (
        NEW_YORK, "2026-10-31T12:00", {"cron": "59 0 * * *", **H1},
        [("2026-11-01T04:59", "2026-11-01T05:59"), ("2026-11-02T05:59", "2026-11-02T06:59")],
    ),
    (
        NEW_YORK, "2026-10-31T12:00", {"cron": "30 1 * * *", **H1},
        [("2026-11-01T05:30", "2026-11-01T06:30"), ("2026-11-02T06:30", "2026-11-02T07:30")],
    ),
    (
        NEW_YORK, "2026-10-31T12:00", {"cron": "0 2 * * *", **H1},
        [("2026-11-01T07:00", "2026-11-01T08:00"), ("2026-11-02T07:00", "2026-11-02T08:00")],
    ),
    (
        NEW_YORK, "2026-10-31T12:00", {"cron": "*/30 1 * * *", **M10},
        [(f"2026-11-{t}0", f"2026-11-{t[:-1]}{int(t[-1]) + 1}0")
         for t in ("01T05:0", "01T05:3", "01T06:0", "01T06:3", "02T06:0", "02T06:3")],
    ),
    (
        NEW_YORK, "2026-10-31T12:00", {"cron": "0 22 * * *", **H8},
        [("2026-11-01T02:00", "2026-11-01T10:00"), ("2026-11-02T03:00", "2026-11-02T11:00")],
    ),
    (
        NEW_YORK, "2026-10-31T12:00", {"at": "2026-11-01 01:30", "until": "2026-11-01 01:45"},
        [("2026-11-01T05:30", "2026-11-01T05:45")],
    ),
    (NEW_YORK, "2026-10-31T12:00", {"on": "11-01"}, [("2026-11-01T04:00", "2026-11-02T05:00")]),  # 25 hours
    # --- Lord Howe, forward by half an hour: 02:00 to 02:30 are not shown
    (LORD_HOWE, "2026-10-03T04:00", {"cron": "59 1 * * *", **H1}, [("03T15:29", "03T16:29"), ("04T14:59", "04T15:59")]),
    (LORD_HOWE, "2026-10-03T04:00", {"cron": "15 2 * * *", **H1}, [("03T15:30", "03T16:30"), ("04T15:15", "04T16:15")]),
    (LORD_HOWE, "2026-10-03T04:00", {"cron": "30 2 * * *", **H1}, [("03T15:30", "03T16:30"), ("04T15:30", "04T16:30")]),
    (
        LORD_HOWE, "2026-10-03T04:00", {"cron": "*/30 2 * * *", **M10},
        [("03T15:30", "03T15:40"), ("04T15:00", "04T15:10"), ("04T15:30", "04T15:40")],
    ),
    (LORD_HOWE, "2026-10-03T04:00", {"cron": "0 22 * * *", **H8}, [("03T11:30", "03T19:30"), ("04T11:00", "04T19:00")]),
    (LORD_HOWE, "2026-10-03T04:00",
        {"at": "2026-10-04 02:10", "until": "2026-10-04 03:00"}, [("03T15:30", "03T16:00")]),
    (LORD_HOWE, "2026-10-03T04:00", {"on": "2026-10-04"}, [("03T13:30", "04T13:00")]),  # 23 hours and a half
    # --- Lord Howe, back by half an hour: 01:30 to 02:00 are shown twice
    (LORD_HOWE, "2026-04-04T04:00", {"cron": "29 1 * * *", **H1}, [("04T14:29", "04T15:29"), ("05T14:59", "05T15:59")]),
    (LORD_HOWE, "2026-04-04T04:00", {"cron": "45 1 * * *", **H1}, [("04T14:45", "04T15:45"), ("05T15:15", "05T16:15")]),
    (LORD_HOWE, "2026-04-04T04:00", {"cron": "0 2 * * *", **H1}, [("04T15:30", "04T16:30"), ("05T15:30", "05T16:30")]),
    (
        LORD_HOWE, "2026-04-04T04:00", {"cron": "*/30 1 * * *", **M10},
        [("04T14:00", "04T14:10"), ("04T14:30", "04T14:40"), ("04T15:00", "04T15:10"),
         ("05T14:30", "05T14:40"), ("05T15:00", "05T15:10")],
    ),
    (LORD_HOWE, "2026-04-04T04:00", {"cron": "0 22 * * *", **H8}, [("04T11:00", "04T19:00"), ("05T11:30", "05T19:30")]),
    (LORD_HOWE, "2026-04-04T04:00",
        {"at": "2026-04-05 01:40", "until": "2026-04-05 01:50"}, [("04T14:40", "04T14:50")]),
    (LORD_HOWE, "2026-04-04T04:00", {"on": "2026-04-05"}, [("04T13:00", "05T13:30")]),  # 24 hours and a half
    # --- Kolkata, the control: the same nights
    (KOLKATA, "2026-03-28T12:00", {"cron": "30 2 * * *", **H1}, [("28T21:00", "28T22:00"), ("29T21:00", "29T22:00")]),
    (KOLKATA, "2026-10-24T12:00", {"cron": "30 2 * * *", **H1}, [("24T21:00", "24T22:00"), ("25T21:00", "25T22:00")]),
    (KOLKATA, "2026-10-24T12:00", {"at": "2026-10-25 02:30", "until": "2026-10-25 02:45"}, [("24T21:00", "24T21:15")]),
    (KOLKATA, "2026-03-28T12:00", {"on": "2026-03-29"}, [("28T18:30", "29T18:30")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "began", "schedule", "expected"), TABLE, ids=[f"{z} {b[:10]} {s}" for z, b, s, _ in TABLE]
)
def test_each_change_comes_at_its_minute_and_no_other(
    zone: str, began: str, schedule: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    spec = pool({**schedule, "timezone": zone, "min_servers": 4})
    full = [tuple(utc(t if len(t) > 9 else began[:8] + t) for t in pair) for pair in expected]
    for start, end in full:
        for at, before, after in ((start, 1, 4), (end, 4, 1)):
            floors = [bounds(spec, at + s).low for s in (-MINUTE, -1, 0, 1, MINUTE)]
            assert floors == [before, before, after, after, after], datetime.fromtimestamp(at, UTC)
    shown = [(change.at, change.after.low) for change in changes(spec, utc(began), utc(began) + 2 * DAY)]
    assert shown == sorted((at, low) for start, end in full for at, low in ((start, 4), (end, 1)))


@cache
def dial(zone: str, began: int, ended: int) -> list[tuple[float, datetime, list[datetime], bool]]:
    """The clock on the wall, read once a minute: (Unix seconds, what it shows, the minutes that it has just skipped,
    whether it has shown this before).
    """
    found, shown, before = [], set[datetime](), None
    for at in range(began, ended, MINUTE):
        local = datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        missing = 0 if before is None else max(0, int((local - before) / timedelta(minutes=1)) - 1)
        gap = [local - timedelta(minutes=n) for n in range(missing, 0, -1)]
        found.append((float(at), local, gap, local in shown))
        shown.add(local)
        before = local
    return found


def starts(
    zone: str, schedule: dict[str, Any], days: set[int] | None, began: float, ended: float
) -> list[float]:
    """When it starts, by the rules of Debian cron: fixed times once, in a gap right after it; stars in real time."""
    minute, hour = schedule["cron"].split()[:2] if "cron" in schedule else ("0", "0")
    minutes, hours = numbers(minute, 60), numbers(hour, 24)
    real_time = minute[0] == "*" or hour[0] == "*"

    def named(local: datetime) -> bool:
        if local.minute not in minutes or local.hour not in hours:
            return False
        date = local.date().isoformat()
        return (
            (days is None or local.isoweekday() in days)
            and (not schedule["on"] or date in schedule["on"])
            and date not in schedule["except"]
        )

    found = []
    for at, local, gap, again in dial(zone, int(began), int(ended)):
        if real_time:
            if named(local):
                found.append(float(at))
        elif (named(local) and not again) or any(named(skipped) for skipped in gap):
            found.append(float(at))
    return found


def numbers(written: str, size: int) -> set[int]:
    if written.startswith("*"):
        return set(range(0, size, int(written[2:] or 1)))
    return {int(n) for n in written.split(",")}


TURNS = {
    BERLIN: ("2026-03-29", "2026-10-25"),
    NEW_YORK: ("2026-03-08", "2026-11-01"),
    LORD_HOWE: ("2026-04-05", "2026-10-04"),
    "America/Havana": (
        "2026-03-08",
        "2026-11-01",
    ),  # at midnight: 00:00 is skipped, 00:00 to 01:00 come twice
    "America/Santiago": ("2026-04-05", "2026-09-06"),  # 24:00 becomes 23:00, and 00:00 becomes 01:00
    KOLKATA: ("2026-03-29", "2026-10-25"),
}
few = st.lists(st.integers(0, 59), min_size=1, max_size=2, unique=True).map(lambda n: ",".join(map(str, n)))
hours = st.lists(st.sampled_from([0, 1, 2, 3, 4, 22, 23]), min_size=1, max_size=3, unique=True).map(
    lambda n: ",".join(map(str, n))
)


@st.composite
def nights(draw: st.DrawFn) -> tuple[str, float, dict[str, Any], set[int] | None]:
    zone = draw(st.sampled_from(sorted(TURNS)))
    middle = datetime.fromisoformat(draw(st.sampled_from(TURNS[zone])))
    around = [(middle + timedelta(days=n)).date().isoformat() for n in (-1, 0, 1)]
    some = st.lists(st.sampled_from(around), max_size=2, unique=True)
    days = draw(st.none() | st.sets(st.integers(1, 7), min_size=3, max_size=6))
    schedule: dict[str, Any] = {"on": draw(some), "except": draw(some)}
    if not schedule["on"] or draw(st.booleans()):
        minute, hour = draw(few | st.sampled_from(["0", "30", "*/15", "*"])), draw(hours | st.just("*"))
        weekdays = "*" if days is None else ",".join(str(d) for d in sorted(days))
        schedule["cron"] = f"{minute} {hour} * * {weekdays}"
    else:
        days = None
    return zone, middle.replace(tzinfo=ZoneInfo(zone)).timestamp() - 1.5 * DAY, schedule, days


@settings(max_examples=100, deadline=None)
@given(nights(), st.integers(0, 3 * 1440 - 1))
@example(
    (
        "America/Santiago",
        1775232000.0,
        {"on": [], "except": [], "cron": "0 * * * 1,2,3,4,5,6"},
        {1, 2, 3, 4, 5, 6},
    ),
    2160,
)
def test_it_starts_when_a_clock_on_the_wall_says_so(
    night: tuple[str, float, dict[str, Any], set[int] | None], minutes: int
) -> None:
    zone, began, schedule, days = night
    oracle = starts(zone, schedule, days, began, began + 3 * DAY)
    (read,) = pool({**schedule, "timezone": zone, "servers": 2}).schedules
    now = began + minutes * MINUTE + 30
    so_far = [at for at in oracle if at <= now]
    fired = last_fired(read, now)
    assert (fired if fired is not None and fired >= began else None) == (so_far[-1] if so_far else None)
    after = [at for at in oracle if at > now][
        :1
    ]  # and the next one is not missed, nor is there one before it
    for at in after:
        assert (last_fired(read, at - 1) or 0.0) <= now
        assert last_fired(read, at) == at


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_of_several_the_dated_and_then_the_latest_holds(data: st.DataObject) -> None:
    """A day on which nothing else is known: each schedule has a duration, and the walk begins before all of them."""
    zone = data.draw(st.sampled_from(sorted(TURNS)))
    middle = datetime.fromisoformat(data.draw(st.sampled_from(TURNS[zone])))
    began = middle.replace(tzinfo=ZoneInfo(zone)).timestamp() - 1.5 * DAY
    written, known = [], []
    for number in range(data.draw(st.integers(1, 3))):
        duration = data.draw(st.sampled_from([30, 90, 600])) * MINUTE
        on = data.draw(st.lists(st.just(middle.date().isoformat()), max_size=1))
        cron = f"{data.draw(few)} {data.draw(hours)} * * *"
        one = {
            "cron": cron,
            "on": on,
            "except": [],
            "timezone": zone,
            "duration": duration,
            "servers": number + 2,
        }
        written.append(one)
        known.append((bool(on), duration, starts(zone, one, None, began, began + 3 * DAY)))
    spec = pool(*written)
    for minute in data.draw(st.lists(st.integers(720, 3 * 1440 - 1), min_size=5, max_size=20)):
        now = began + minute * MINUTE
        holding = [
            (dated, max(at for at in all_ if at <= now), number)
            for number, (dated, duration, all_) in enumerate(known)
            if any(now - duration < at <= now for at in all_)
        ]
        expected = max(holding)[2] + 2 if holding else 1
        assert bounds(spec, now).low == expected


NIGHT = {"cron": "30 2 * * *", "timezone": BERLIN, "servers": 4, "duration": "1h"}


@pytest.mark.parametrize("late_s", [0, 1, 4, 60, 599, 3599])
@pytest.mark.parametrize("memory", ["kept", "lost", "just moved", "blind"])
def test_the_first_look_at_or_after_the_moment_moves(late_s: float, memory: str) -> None:
    """However late: a restart, a missed tick and a cooldown make no difference to a bound."""
    spec = pool(NIGHT, target_utilization=0.7, max_servers=9)
    moment = utc("2026-03-29T01:00")
    state = PolicyState(desired=1, first_at=moment - 900, last_at=moment - 5)
    if memory == "just moved":
        state = state.model_copy(update={"last_up_at": moment - 1, "last_down_at": moment - 1})
    before, kept = decide(spec, state, Signal(ready=1, utilization=0.5), moment - 0.001)
    assert before.desired == 1
    kept = PolicyState() if memory == "lost" else kept
    look = Signal(ready=1, utilization=0.5, age_s=600 if memory == "blind" else 0)
    decision, _ = decide(spec, kept, look, moment + late_s)
    assert (decision.desired, decision.bounds.low) == (4, 4)
    if memory != "lost":
        assert decision.reason == 'schedule "30 2 * * *" Europe/Berlin asks for 4 servers'


def test_a_controller_that_slept_over_the_whole_of_it_does_not_catch_up() -> None:
    spec = pool(NIGHT)
    decision, _ = decide(spec, PolicyState(desired=1), Signal(ready=1), utc("2026-03-29T02:00"))
    assert decision.desired == 1
