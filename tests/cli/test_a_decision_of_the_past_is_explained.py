"""`fleetctl explain --at` and the diagnosis in `fleetctl explain`."""

from __future__ import annotations

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fleet_controller.records import DecisionRecord, PoolRecord
from fleetctl.moment import moment

NOW = 1_789_997_600.0  # Monday 2026-09-21 15:33:20 in Berlin
REASON = "p95 310 ms over 200 ms for 10 s"


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told(desired, reason=REASON, **more):
    return {
        "desired": desired,
        "reason": reason,
        "winner": "latency",
        "recommendations": [{"policy": "latency", "desired": desired, "reason": reason}],
        "blocked_by": ["cooldown scale_up: 12 s left"],
        "bounds": {"low": 1, "high": 3},
        "signal": {"ready": 1, "starting": 0, "p95_ms": 310.2},
        "state": {},
        "diagnosis": ["cooldown blocks scaling up for another 12 s"],
    } | more


@pytest.fixture
def past(journal):
    """1 server until half an hour ago, 2 from then on for 20 minutes, then nothing was heard."""
    now = time.time()
    for ago, until, desired in ((3600, 1800, 1), (1800, 600, 2)):
        row = DecisionRecord("default", now - ago, now - until, told(desired))
        journal.save_pool(PoolRecord("default", desired), row)
    return now


def test_the_decision_then_and_the_one_before(fleetctl, past):
    lines = fleetctl("explain", "--at", "25m ago").out.splitlines()
    assert lines[0].startswith("pool default at 2") and lines[0].endswith(", 25m ago: 2 wanted, 1 ready")
    assert lines[1].startswith("decided 5m before, at ") and lines[1].endswith(f": {REASON}")
    assert "seen: ready 1, starting 0, p95_ms 310.2" in lines
    assert "held back by: cooldown scale_up: 12 s left" in lines
    assert "- cooldown blocks scaling up for another 12 s" in lines
    assert lines[-1] == f"before that, for 30m: 1 wanted: {REASON}"
    assert not [line for line in lines if line.startswith("nothing was decided")]


def test_a_silence_is_no_decision(fleetctl, past):
    lines = fleetctl("explain", "default", "--at", "-3m").out.splitlines()
    assert ": 2 wanted" in lines[0]
    assert lines[2].startswith("nothing was decided from ")


def test_the_past_as_json(fleetctl, past):
    seen = fleetctl("explain", "--at", "25m ago", "-o", "json").json
    assert seen["schema"] == "fleetctl/explain/v1"
    assert seen.keys() >= {
        "pool",
        "desired",
        "bounds",
        "recommendations",
        "winner",
        "blocked_by",
        "at",
        "diagnosis",
    }
    assert (seen["desired"], seen["at"], seen["asked_at"]) == (
        2,
        pytest.approx(past - 1800),
        pytest.approx(past - 1500, abs=60),
    )
    assert seen["before"] == {
        "at": pytest.approx(past - 3600),
        "until": pytest.approx(past - 1800),
        "desired": 1,
        "reason": REASON,
        "winner": "latency",
        "blocked_by": ["cooldown scale_up: 12 s left"],
    }


def test_before_the_first_decision(fleetctl, past, folder):
    ran = fleetctl("explain", "--at", "2h ago")
    assert ran.code == 0 and "no decision from" in ran.out
    seen = fleetctl("explain", "--at", "2h ago", "-o", "json").json
    assert (seen["at"], seen["desired"], seen["before"], seen["diagnosis"]) == (None, None, None, [])


def test_a_fleet_that_never_ran_has_no_past(fleetctl, folder):
    ran = fleetctl("explain", "--at", "10:00")
    assert ran.code == 0 and "no decision from" in ran.out
    assert not (folder / ".fleetctl").exists()


@pytest.mark.parametrize("text", ["tomorrow", "25:99", "", "5 parsecs ago", "2999-01-01T00:00", "-"])
def test_a_time_that_is_none(fleetctl, folder, text):
    ran = fleetctl("explain", "--at", text)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("--at: ") and len(ran.err.splitlines()) == 1


def test_the_diagnosis_is_shown(fleetctl, stage):
    stage.pools[0]["last_decision"] = {"at": time.time(), **told(1)}
    stage.pools[0]["diagnosis"] = ["min_servers = max_servers = 1: no policy can change the number"]
    stage.draw()
    ran = fleetctl("explain")
    assert "- min_servers = max_servers = 1: no policy can change the number" in ran.out.splitlines()
    assert ran.err == ""
    assert fleetctl("explain", "-o", "json").json["diagnosis"] == stage.pools[0]["diagnosis"]


def test_words_of_a_controller_that_is_gone(fleetctl, journal, folder):
    pool = {"name": "default", "desired": 1, "ready": 0, "last_decision": {"at": time.time(), **told(1)}}
    journal.write_status({"at": time.time(), "goal": "up", "pools": [pool], "hosts": []})
    assert "the controller is not running; this is what it last said" in fleetctl("explain").err


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-03-02T08:00", "2026-03-02T08:00+01:00"),
        ("2026-03-02T08:00:00Z", "2026-03-02T09:00+01:00"),
        ("2026-03-02 08:00+03:00", "2026-03-02T06:00+01:00"),
        ("2026-07-02", "2026-07-02T00:00+02:00"),
        ("15:33", "2026-09-21T15:33+02:00"),
        ("15:34", "2026-09-20T15:34+02:00"),  # yet to come today: that of yesterday
        ("9:05:07", "2026-09-21T09:05:07+02:00"),
        ("10m ago", "2026-09-21T15:23:20+02:00"),
        ("1h30m ago", "2026-09-21T14:03:20+02:00"),
        ("-2d", "2026-09-19T15:33:20+02:00"),
        ("now", "2026-09-21T15:33:20+02:00"),
    ],
)
def test_how_a_moment_may_be_written(berlin, text, meant):
    assert moment(text, NOW) == datetime.fromisoformat(meant).astimezone(ZoneInfo("UTC")).timestamp()
