"""`fleetctl traffic export` feeds `fleetctl simulate`; `fleetctl schedule preview` shows what the schedules will do."""

from __future__ import annotations

import time

import pytest

from fleet_controller.journal import Mark, Minute

SCHEDULES = """\
      max_servers: 3
      schedules:
        - {cron: "0 8 * * mon-fri", timezone: Europe/Berlin, min_servers: 2, duration: 10h}
        - {cron: "0 12 * * sat", timezone: America/New_York, servers: 3, duration: 1h}
"""
SATURDAY = 1_774_699_200.0  # 2026-03-28 12:00 UTC, the day before Berlin's clocks go forward


@pytest.fixture
def hour(journal):
    """The last hour, but for five minutes in it: request n of minute n. Returns the first minute."""
    first = int(time.time()) // 3600 * 3600 - 3600
    minutes = [Minute(first + 60 * n, n) for n in range(60) if not 20 <= n < 25]
    journal.keep_traffic("default", minutes, Mark("1@0", 0, first + 3600.0))
    return first


@pytest.fixture
def scheduled(folder, monkeypatch):
    fleet = (folder / "fleet.yaml").read_text()
    (folder / "fleet.yaml").write_text(fleet.replace("      max_servers: 3\n", SCHEDULES))
    monkeypatch.setattr(time, "time", lambda: SATURDAY)
    return folder


def test_what_is_exported_can_be_simulated(fleetctl, hour, folder):
    fleet = (folder / "fleet.yaml").read_text()
    (folder / "fleet.yaml").write_text(fleet.replace("interval: 200ms", "interval: 5s"))
    ran = fleetctl("traffic", "export", "default", "--since", "3h")
    assert ran.code == 0
    rows = ran.out.splitlines()
    assert rows[:3] == ["timestamp_s,requests", f"{hour},0", f"{hour + 60},1"]
    assert len(rows) == 61 and rows[21] == f"{hour + 1200},0"
    assert ran.err == "note: nothing is known of 5 of 60 intervals; the CSV has 0 requests there\n"
    (folder / "own.csv").write_text(ran.out)
    simulated = fleetctl("simulate", "--trace", "own.csv", "-o", "json").json
    assert simulated["trace"]["requests"] == simulated["completed"] == sum(range(60)) - sum(range(20, 25))
    assert simulated["trace"]["interval_s"] == 60 and simulated["assumed"]["start_at"] == hour


def test_longer_intervals_and_json(fleetctl, hour):
    ran = fleetctl("traffic", "export", "--interval", "10m", "-o", "json")
    assert ran.json["schema"] == "fleetctl/traffic/v1" and ran.json["interval_s"] == 600
    assert [row["requests"] for row in ran.json["intervals"]] == [45, 145, 135, 345, 445, 545]
    assert ran.json["intervals"][0]["at"] == hour and ran.err == ""
    every = fleetctl("traffic", "export", "-o", "json").json["intervals"]
    assert [row["requests"] for row in every[19:26]] == [19, None, None, None, None, None, 25]


@pytest.mark.parametrize("interval", ["30s", "90s", "0", "7m", "2d"])
def test_an_interval_that_minutes_can_not_make(fleetctl, hour, interval):
    ran = fleetctl("traffic", "export", "--interval", interval)
    assert (ran.code, ran.out) == (2, "")
    assert "whole minutes that divide a day" in ran.err


def test_no_traffic_is_no_trace(fleetctl, folder):
    ran = fleetctl("traffic", "export")
    assert (ran.code, ran.out) == (1, "")
    assert "less than two intervals of 1m of pool default are recorded in the last 7d" in ran.err
    assert not (folder / ".fleetctl").exists()


def test_one_pool_of_several_has_to_be_named(fleetctl, folder):
    fleet = (folder / "fleet.yaml").read_text()
    second = "  - {name: other, hosts: [gpu-c], models: [hello]}\nbalancer:"
    fleet = fleet.replace('hosts: ["gpu-*"]', "hosts: [gpu-a, gpu-b]").replace(
        "max_servers: 3", "max_servers: 2"
    )
    (folder / "fleet.yaml").write_text(fleet.replace("balancer:", second))
    ran = fleetctl("traffic", "export")
    assert (ran.code, ran.out) == (2, "")
    assert "name it: default, other" in ran.err


@pytest.mark.parametrize(
    "command", [("traffic", "export"), ("schedule", "preview"), ("explain", "--at", "-1m")]
)
def test_a_pool_that_there_is_not(fleetctl, folder, command):
    ran = fleetctl(*command, "defualt")
    assert (ran.code, ran.out) == (2, "")
    assert "default" in ran.err


def test_the_next_changes_by_the_schedules_own_clock(fleetctl, scheduled):
    ran = fleetctl("schedule", "preview", "--days", "3")
    rows = [" ".join(row.split()) for row in ran.out.splitlines()]
    by_file = "min_servers and max_servers of the pool"
    assert rows == [
        f"pool default: 1 to 3 now, by {by_file}",
        "TIME TIME ZONE SERVERS BEFORE BY",
        'Sat 2026-03-28 12:00 -0400 EDT America/New_York exactly 3 1 to 3 schedule "0 12 * * sat" America/New_York',
        f"Sat 2026-03-28 13:00 -0400 EDT America/New_York 1 to 3 exactly 3 {by_file}",
        "Sun 2026-03-29 03:00 +0200 CEST Europe/Berlin the clocks go forward by 60 min",
        'Mon 2026-03-30 08:00 +0200 CEST Europe/Berlin 2 to 3 1 to 3 schedule "0 8 * * mon-fri" Europe/Berlin',
        f"Mon 2026-03-30 18:00 +0200 CEST Europe/Berlin 1 to 3 2 to 3 {by_file}",
        'Tue 2026-03-31 08:00 +0200 CEST Europe/Berlin 2 to 3 1 to 3 schedule "0 8 * * mon-fri" Europe/Berlin',
    ]
    assert ran.err == "" and "\x1b" not in ran.out


def test_the_preview_as_json(fleetctl, scheduled):
    told = fleetctl("schedule", "preview", "default", "-o", "json").json
    assert told["schema"] == "fleetctl/schedule-preview/v1"
    assert (told["at"], told["until"]) == (SATURDAY, SATURDAY + 7 * 86400)
    (pool,) = told["pools"]
    assert (pool["pool"], pool["schedules"], pool["schedule"]) == ("default", 2, None)
    assert pool["changes"][0] == {
        "at": SATURDAY + 4 * 3600,
        "local": "2026-03-28T12:00:00-04:00",
        "timezone": "America/New_York",
        "dst": True,
        "min_servers": 3,
        "max_servers": 3,
        "schedule": 'schedule "0 12 * * sat" America/New_York',
        "from": {"min_servers": 1, "max_servers": 3},
    }
    assert [c["local"] for c in pool["clock_changes"]] == ["2026-03-29T03:00:00+02:00"]


def test_a_pool_without_schedules(fleetctl, folder):
    assert fleetctl("schedule", "preview").out == "pool default: 1 to 3, no schedules\n"
    assert fleetctl("schedule", "preview", "--days", "0").code == 2


DAYS = """\
      max_servers: 3
      holidays: [03-30, 2026-04-03]
      schedules:
        - {cron: "0 8 * * mon-fri", timezone: Europe/Berlin, min_servers: 2, duration: 10h, except: holidays}
        - {on: holidays, timezone: Europe/Berlin, max_servers: 2}
        - {at: 2026-03-29 02:30, until: 2026-03-29 24:00, timezone: Europe/Berlin, servers: 3}
        - {at: 2026-03-01 08:00, duration: 1h, servers: 3}
"""


def test_once_holidays_and_a_time_that_the_clocks_skip(fleetctl, scheduled):
    fleet = (scheduled / "fleet.yaml").read_text()
    (scheduled / "fleet.yaml").write_text(fleet.replace(SCHEDULES, DAYS))
    ran = fleetctl("schedule", "preview", "--days", "3")
    rows = [" ".join(row.split()) for row in ran.out.splitlines()]
    by_file, once = "min_servers and max_servers of the pool", "schedule at 2026-03-29 02:30 Europe/Berlin"
    day = 'schedule "0 8 * * mon-fri" Europe/Berlin'
    assert rows == [
        f"pool default: 1 to 3 now, by {by_file}",
        "TIME TIME ZONE SERVERS BEFORE BY",
        f"Sun 2026-03-29 03:00 +0200 CEST Europe/Berlin exactly 3 1 to 3 {once}",
        "Sun 2026-03-29 03:00 +0200 CEST Europe/Berlin the clocks go forward by 60 min",
        f"Sun 2026-03-29 03:00 +0200 CEST Europe/Berlin {once} starts now: the clocks skip 02:30",
        "Mon 2026-03-30 00:00 +0200 CEST Europe/Berlin 1 to 2 exactly 3 schedule on holidays Europe/Berlin",
        f"Mon 2026-03-30 08:00 +0200 CEST Europe/Berlin {day} does not start: except 2026-03-30",
        f"Tue 2026-03-31 00:00 +0200 CEST Europe/Berlin 1 to 3 1 to 2 {by_file}",
        f"Tue 2026-03-31 08:00 +0200 CEST Europe/Berlin 2 to 3 1 to 3 {day}",
        "schedule at 2026-03-01 08:00 UTC is over; it may be removed",
    ]
    told = fleetctl("schedule", "preview", "-o", "json").json["pools"][0]
    assert [note["local"] for note in told["notes"]] == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T08:00:00+02:00",
        "2026-04-03T08:00:00+02:00",
    ]
    assert told["over"] == ["schedule at 2026-03-01 08:00 UTC"]
