"""Which schedule holds: tables over both clock changes in three zones, and against cronsim walking
forward.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.policies import PolicyState, ScalingSpec, Signal, decide
from fleet_controller.policies.schedule import bounds, in_force, last_fired
from fleet_controller.spec.schedule import Schedule


def unix(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def spec(*schedules: dict[str, Any], low: int = 1, high: int = 9) -> ScalingSpec:
    return ScalingSpec.model_validate({"min_servers": low, "max_servers": high, "schedules": schedules})


# The working day 08:00-18:00 in local time; the clocks change at night, and the day stays where it is.
@pytest.mark.parametrize(
    ("zone", "spring", "autumn"),
    [
        ("Europe/Berlin", "2026-03-29", "2026-10-25"),
        ("America/New_York", "2026-03-08", "2026-11-01"),
        ("Australia/Sydney", "2026-10-04", "2026-04-05"),
    ],
)
def test_the_working_day_is_exact_to_the_minute_across_both_changes(
    zone: str, spring: str, autumn: str
) -> None:
    s = spec(
        {"cron": "0 8 * * *", "timezone": zone, "min_servers": 3},
        {"cron": "0 18 * * *", "timezone": zone, "min_servers": 1},
    )
    for change in (spring, autumn):
        for day in (-1, 0, 1):
            date = (datetime.fromisoformat(change) + timedelta(days=day)).date().isoformat()
            for clock, low in [
                ("07:59:59", 1),
                ("08:00:00", 3),
                ("17:59:59", 3),
                ("18:00:00", 1),
                ("23:59", 1),
            ]:
                assert bounds(s, unix(f"{date}T{clock}", zone)).low == low, (zone, date, clock)
    hours = {
        change: unix(f"{change}T08:00", zone) - unix(f"{change}T00:00", zone) for change in (spring, autumn)
    }
    assert hours == {spring: 7 * 3600, autumn: 9 * 3600}


@pytest.mark.parametrize(
    ("zone", "cron", "now", "fold", "fired", "fired_fold"),
    [
        # the clock skips 02:00-03:00 (Berlin, New York): a fixed time in the gap fires right after it
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T01:59:59", 0, "2026-03-28T02:30", 0),
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T03:00", 0, "2026-03-29T03:00", 0),
        ("America/New_York", "30 2 * * *", "2026-03-08T03:00", 0, "2026-03-08T03:00", 0),
        ("Australia/Sydney", "30 2 * * *", "2026-10-04T03:00", 0, "2026-10-04T03:00", 0),
        # the clock repeats an hour: a fixed time fires once, the first time round
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:29:59", 0, "2026-10-24T02:30", 0),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:30", 0, "2026-10-25T02:30", 0),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:10", 1, "2026-10-25T02:30", 0),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:40", 1, "2026-10-25T02:30", 0),
        ("America/New_York", "30 1 * * *", "2026-11-01T01:10", 1, "2026-11-01T01:30", 0),
        ("Australia/Sydney", "30 2 * * *", "2026-04-05T02:10", 1, "2026-04-05T02:30", 0),
        # every hour means every hour of real time
        ("Europe/Berlin", "0 * * * *", "2026-10-25T02:10", 1, "2026-10-25T02:00", 1),
        ("America/New_York", "*/30 * * * *", "2026-11-01T01:40", 1, "2026-11-01T01:30", 1),
        ("UTC", "0 8 * * mon-fri", "2026-11-22T05:00", 0, "2026-11-20T08:00", 0),
        ("UTC", "0 0 29 2 *", "2026-11-22T05:00", 0, "2024-02-29T00:00", 0),
    ],
)
def test_when_it_fired_last(zone: str, cron: str, now: str, fold: int, fired: str, fired_fold: int) -> None:
    s = Schedule(cron=cron, timezone=zone, servers=1)
    assert last_fired(s, unix(now, zone, fold)) == unix(fired, zone, fired_fold)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        ["0 8 * * mon-fri", "30 2 * * *", "30 1 * * *", "*/15 * * * *", "0 * * * *", "5 1-3 * * sun"]
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Sydney", "UTC", "Asia/Kolkata"]),
    st.sampled_from(["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"]),
    st.integers(-6 * 3600, 30 * 3600),
)
def test_looking_back_agrees_with_walking_forward(cron: str, zone: str, day: str, offset: int) -> None:
    now = unix(day, zone) + offset
    start = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)) - timedelta(days=9)
    last = None
    for fired in CronSim(cron, start):
        if fired.timestamp() > now:
            break
        last = fired.timestamp()
    assert last_fired(Schedule(cron=cron, timezone=zone, servers=1), now) == last


def test_the_one_that_fired_last_holds_and_a_duration_ends() -> None:
    s = spec(
        {"cron": "0 8 * * *", "min_servers": 3},
        {"cron": "0 12 * * *", "servers": 5, "duration": "1h"},
        {"cron": "0 18 * * *", "max_servers": 2},
    )
    seen = {
        h: (b.low, b.high) for h in (7, 8, 12, 13, 18) for b in [bounds(s, unix(f"2026-11-20T{h:02}:00"))]
    }
    assert seen == {7: (1, 2), 8: (3, 9), 12: (5, 5), 13: (3, 9), 18: (1, 2)}
    assert in_force(s.schedules, unix("2026-11-20T12:59:59"))[0].servers == 5  # type: ignore[index]


def test_of_two_in_the_same_minute_the_last_in_the_file_holds() -> None:
    s = spec({"cron": "0 8 * * *", "min_servers": 3}, {"cron": "0 8 * * mon", "min_servers": 4})
    assert bounds(s, unix("2026-11-23T08:00")).low == 4
    assert bounds(s, unix("2026-11-24T08:00")).low == 3


def test_floor_and_ceiling_never_cross() -> None:
    assert bounds(spec({"cron": "0 8 * * *", "min_servers": 7}, high=4), unix("2026-11-20T09:00")).low == 4
    assert bounds(spec({"cron": "0 8 * * *", "max_servers": 0}, low=2), unix("2026-11-20T09:00")).high == 0


def test_the_pool_follows_its_schedule_to_the_second_and_says_so(pool: Callable[..., Any]) -> None:
    p = pool(
        min_servers=1, max_servers=9,
        schedules=[
            {"cron": "0 8 * * mon-fri", "timezone": "Europe/Berlin", "min_servers": 3},
            {"cron": "0 20 * * mon-fri", "timezone": "Europe/Berlin", "min_servers": 1},
        ],
    )  # fmt: skip
    p.now, p.interval = unix("2026-10-23T07:30", "Europe/Berlin"), 60.0
    for _ in range(14 * 60):
        at = datetime.fromtimestamp(p.now, ZoneInfo("Europe/Berlin"))
        decision = p.tick()
        assert decision.desired == (3 if 8 <= at.hour < 20 else 1), at
        if (at.hour, at.minute) == (8, 0):
            assert decision.reason == 'schedule "0 8 * * mon-fri" Europe/Berlin asks for 3 servers'
            assert decision.winner == "schedule"


def test_an_exact_count_overrules_the_policies() -> None:
    scaling = ScalingSpec.model_validate(
        {"max_servers": 9, "target_utilization": 0.5, "schedules": [{"cron": "0 8 * * *", "servers": 4}]}
    )
    decision, _ = decide(
        scaling, PolicyState(desired=2), Signal(ready=2, utilization=1.0), unix("2026-11-20T08:00")
    )
    assert decision.desired == 4
    decision, _ = decide(
        scaling, PolicyState(desired=8), Signal(ready=8, utilization=1.0), unix("2026-11-20T08:00")
    )
    assert (decision.desired, decision.blocked_by) == (4, ("schedule 4",))
