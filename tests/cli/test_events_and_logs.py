from __future__ import annotations

import json
import time

import pytest

from fleet_controller.lifecycle import HostState


@pytest.fixture
def story(journal):
    journal.enlist(["gpu-a"], 0.0)
    journal.record(1000.0, "scale", "p95 310 ms over 200 ms for 10 s", "default", data={"to": 2})
    journal.move("gpu-a", HostState.BOOTING, "desired 2 (latency)", 1001.0, pool="default")
    journal.move("gpu-a", HostState.FAILED, "start failed", 1002.0, error="gpu-a: disk full.")
    return journal


def test_a_line_has_when_who_what_and_why(fleetctl, story, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    lines = fleetctl("events").out.splitlines()
    assert lines == [
        "1970-01-01 00:16:40+0000  default      scale        p95 310 ms over 200 ms for 10 s",
        "1970-01-01 00:16:41+0000  gpu-a        booting      desired 2 (latency)",
        "1970-01-01 00:16:42+0000  gpu-a        failed       start failed: gpu-a: disk full.",
    ]


def test_json_is_one_object_a_line(fleetctl, story):
    told = [json.loads(row) for row in fleetctl("events", "-o", "json").out.splitlines()]
    assert told[0] == {
        "schema": "fleetctl/events/v1",
        "id": 1,
        "at": 1000.0,
        "kind": "scale",
        "pool": "default",
        "host": None,
        "reason": "p95 310 ms over 200 ms for 10 s",
        "to": 2,
    }
    assert told[2]["from"] == "booting"
    assert told[2]["error"] == "gpu-a: disk full."


def test_the_newest_n(fleetctl, story):
    assert [row.split()[3] for row in fleetctl("events", "-n", "2").out.splitlines()] == ["booting", "failed"]
    assert fleetctl("events", "-n", "0").out == ""


def test_the_daemons_logs_by_their_names(fleetctl, stage):
    assert fleetctl("logs", "controller").out == "controller line 1\ncontroller line 2\n"
    assert fleetctl("logs", "balancer", "-n", "1").out == "balancer line 2\n"


def test_no_log_yet(fleetctl, folder):
    ran = fleetctl("logs", "balancer")
    assert ran.code == 1
    assert "the balancer was never started; start it with `fleetctl up`" in ran.err
    assert not (folder / ".fleetctl").exists()


def test_logs_of_an_unknown_host(fleetctl, folder):
    assert fleetctl("logs", "gpu-z").code == 2
