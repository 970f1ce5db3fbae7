"""`fleetctl schedule preview` against the policy itself, asked minute by minute, across both changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.explain.timetable import changes, clock_changes, notes, over
from fleet_controller.policies import ScalingSpec
from fleet_controller.policies.schedule import bounds

# two days around both changes of 2026, where the clocks do what
TURNS = {
    "Europe/Berlin": ("2026-03-28T12:00", "2026-10-24T12:00"),
    "America/New_York": ("2026-03-07T12:00", "2026-10-31T12:00"),
    "Australia/Lord_Howe": ("2026-04-04T06:00", "2026-10-03T06:00"),  # by half an hour
}


def unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def pool(*schedules: dict[str, object]) -> ScalingSpec:
    return ScalingSpec.model_validate({"min_servers": 1, "max_servers": 9, "schedules": schedules})


@pytest.mark.parametrize(("zone", "began"), [(zone, began) for zone, both in TURNS.items() for began in both])
@settings(max_examples=3, deadline=None)
@given(
    hours=st.lists(st.integers(0, 4), min_size=2, max_size=3),
    minute=st.sampled_from([0, 15, 30, 59]),
    duration=st.sampled_from([None, "30m", "90m", "26h"]),
)
def test_every_change_and_no_other_to_the_minute(
    zone: str, began: str, hours: list[int], minute: int, duration: str | None
) -> None:
    ways: list[dict[str, object]] = [{"min_servers": 3}, {"servers": 5}, {"max_servers": 2}]
    spec = pool(
        *(
            {"cron": f"{minute} {hour} * * *", "timezone": zone, "duration": duration, **ways[n]}
            for n, hour in enumerate(hours)
        )
    )
    now = unix(began)
    shown = {change.at: (change.after.low, change.after.high) for change in changes(spec, now, now + 86400)}
    done, holds = {}, bounds(spec, now)
    for at in range(int(now) + 60, int(now) + 86401, 60):
        then = bounds(spec, at)
        if (then.low, then.high) != (holds.low, holds.high):
            done[float(at)] = (then.low, then.high)
        holds = then
    assert shown == done


@pytest.mark.parametrize(
    ("zone", "began", "at", "before", "after"),
    [
        ("Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00", 3600, 7200),
        ("Europe/Berlin", "2026-10-24T12:00", "2026-10-25T01:00", 7200, 3600),
        ("America/New_York", "2026-03-07T12:00", "2026-03-08T07:00", -18000, -14400),
        ("Australia/Lord_Howe", "2026-04-04T06:00", "2026-04-04T15:00", 39600, 37800),
    ],
)
def test_the_clocks_change_when_they_do(zone: str, began: str, at: str, before: int, after: int) -> None:
    spec = pool({"cron": "0 8 * * *", "timezone": zone, "min_servers": 2})
    found = clock_changes(spec, unix(began), unix(began) + 7 * 86400)
    assert [(c.at, c.offset_before_s, c.offset_after_s) for c in found] == [(unix(at), before, after)]


def test_utc_and_a_quiet_week_change_no_clock() -> None:
    spec = pool(
        {"cron": "0 8 * * *", "min_servers": 2},
        {"cron": "0 9 * * *", "timezone": "Europe/Berlin", "servers": 2},
    )
    assert clock_changes(spec, unix("2026-06-01T00:00"), unix("2026-06-08T00:00")) == []
    assert clock_changes(pool(), unix("2026-03-28T00:00"), unix("2026-04-08T00:00")) == []


def test_a_schedule_that_sets_what_holds_already_is_no_change() -> None:
    spec = pool({"cron": "0 8 * * *", "min_servers": 2})  # lasts until the next one, which is itself
    now = unix("2026-06-01T00:00")
    assert changes(spec, now, now + 7 * 86400) == []
    assert changes(pool(), now, now + 7 * 86400) == []
    (one,) = changes(pool({"cron": "0 8 1 6 *", "min_servers": 2, "duration": "300d"}), now, now + 86400)
    assert (one.at, one.before.low, one.after.low) == (unix("2026-06-01T08:00"), 1, 2)


TWICE = "02:30 comes twice, this is the first time"


@pytest.mark.parametrize(
    ("began", "schedule", "told"),
    [
        (
            "2026-03-28T12:00", {"cron": "30 2 * * *"},
            [("2026-03-29T01:00", 'schedule "30 2 * * *" Europe/Berlin starts now: the clocks skip its time')],
        ),
        (
            "2026-10-24T12:00", {"cron": "30 2 * * *"},
            [("2026-10-25T00:30", f'schedule "30 2 * * *" Europe/Berlin starts now: {TWICE}')],
        ),
        ("2026-10-24T12:00", {"cron": "*/30 2 * * *"}, []),  # follows real time
        ("2026-10-24T12:00", {"cron": "0 8 * * *"}, []),
        (
            "2026-03-28T12:00", {"at": "2026-03-29 01:30", "until": "2026-03-29 02:30"},
            [("2026-03-29T01:00", "schedule at 2026-03-29 01:30 Europe/Berlin ends now: the clocks skip 02:30")],
        ),
        (
            "2026-10-24T12:00", {"at": "2026-10-25 02:30", "until": "2026-10-25 04:00"},
            [("2026-10-25T00:30", f"schedule at 2026-10-25 02:30 Europe/Berlin starts now: {TWICE}")],
        ),
        (
            "2026-10-24T12:00", {"cron": "*/20 8 * * *", "except": ["10-25", "2026-10-27"]},
            [("2026-10-25T07:00", 'schedule "*/20 8 * * *" Europe/Berlin does not start: except 2026-10-25')],
        ),
        ("2026-10-24T12:00", {"cron": "0 8 * * mon-fri", "except": "10-25"}, []),  # a Sunday
        ("2026-10-24T12:00", {"on": "10-25"}, []),
        (
            "2026-10-24T12:00", {"on": ["10-25", "10-26"], "except": "2026-10-26"},
            [("2026-10-25T23:00", "schedule on 10-25, 10-26 Europe/Berlin does not start: except 2026-10-26")],
        ),
    ],
)  # fmt: skip
def test_what_a_person_should_know(
    began: str, schedule: dict[str, object], told: list[tuple[str, str]]
) -> None:
    end = {} if "at" in schedule else {"duration": "1h"}
    spec = pool({**schedule, **end, "timezone": "Europe/Berlin", "min_servers": 2})
    now = unix(began)
    assert [(note.at, note.text) for note in notes(spec, now, now + 2 * 86400)] == [
        (unix(at), t) for at, t in told
    ]


def test_what_is_over_is_named() -> None:
    spec = pool(
        {"at": "2026-03-01 08:00", "duration": "1h", "servers": 2},
        {"at": "2026-03-28 08:00", "until": "2026-03-28 12:00", "servers": 2},
        {"at": "2026-03-28 08:00", "until": "2026-03-28 12:01", "servers": 2},
        {"on": ["2026-03-26", "2026-03-27"], "servers": 2},
        {"on": ["2026-03-27", "2026-03-28"], "servers": 2},
        {"on": "2026-03-27", "duration": "48h", "servers": 2},
        {"on": ["2026-03-27", "03-01"], "servers": 2},
        {"cron": "0 8 * * *", "servers": 2},
    )
    assert over(spec, unix("2026-03-28T12:00")) == [spec.schedules[n] for n in (0, 1, 3)]
