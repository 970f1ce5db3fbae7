from __future__ import annotations

import time

import pytest
from ruamel.yaml import YAML


@pytest.fixture
def serving(stage):
    stage.journal.set_goal("up")
    stage.bring_up("gpu-a")
    stage.move("gpu-b", "booting", "failed", reason="start failed", error="gpu-b: \x1b[2Jno room")
    stage.hosts["gpu-a"] |= {
        "models": [{"name": "hello", "version": "1", "ready": True}],
        "device_memory": {"used_bytes": 1 << 30, "total_bytes": 80 << 30},
        "p95_ms": 81.25,
    }
    decision = {
        "at": time.time() - 65,
        "desired": 1,
        "reason": "min_servers 1",
        "winner": "latency",
        "recommendations": [{"policy": "latency", "desired": 1, "reason": "p95 80 ms under 200 ms"}],
        "blocked_by": ["cooldown.scale_down for another 12 s"],
        "bounds": {"low": 1, "high": 3},
    }
    stage.pools[0]["last_decision"] = decision
    stage.journal.write_status(stage.picture())
    return stage


def test_the_page(fleetctl, serving):
    ran = fleetctl("status")
    assert ran.code == 0, ran.err
    rows = [row.split() for row in ran.out.splitlines()]
    assert rows[0] == ["fleet", "demo"]
    assert rows[1] == ["endpoint", "http://127.0.0.1:8080"]
    assert rows[2][:4] == ["controller", "running,", "last", "tick"]
    assert rows[5] == ["default", "1", "1", "1..3", "12.5", "80", "130", "41", "3", "0", "min_servers", "1"]
    assert rows[8][:4] == ["gpu-a", "default", "local", "ready"]
    assert rows[8][5:13] == ["hello", "0", "0", "1", "GiB", "of", "80", "GiB"]
    assert rows[9][-3:] == ["gpu-b:", "no", "room"]


def test_what_a_host_says_cannot_drive_the_terminal(fleetctl, serving):
    for arguments in (["status"], ["hosts"], ["events"], ["status", "-o", "json"], ["status", "-o", "yaml"]):
        ran = fleetctl(*arguments)
        assert "no room" in ran.out
        assert "\x1b" not in ran.out + ran.err


def test_json_has_the_fields_that_programs_rely_on(fleetctl, serving):
    told = fleetctl("status", "-o", "json").json
    assert list(told)[:6] == ["schema", "fleet", "endpoint", "controller", "pools", "hosts"]
    assert told["schema"] == "fleetctl/status/v1"
    assert told["controller"].items() >= {"running": True, "leader": True, "paused": False}.items()
    assert 0 <= told["controller"]["last_tick_age_s"] < 5
    assert set(told["pools"][0]) >= {
        "name", "desired", "ready", "min_servers", "max_servers", "latency_ms", "rps", "in_flight", "queued",
        "last_decision", "cooldown_remaining_s",
    }  # fmt: skip
    assert set(told["hosts"][0]) >= {
        "name", "pool", "address", "state", "since_s", "models", "in_flight", "queued", "device_memory", "p95_ms",
        "error",
    }  # fmt: skip


def test_yaml_says_the_same_as_json(fleetctl, serving):
    as_json = fleetctl("status", "-o", "json").json
    as_yaml = YAML(typ="safe").load(fleetctl("status", "-o", "yaml").out)
    assert as_yaml["pools"] == as_json["pools"]
    assert [h["name"] for h in as_yaml["hosts"]] == ["gpu-a", "gpu-b", "gpu-c"]


def test_a_dead_controller_is_said_loudly_and_the_last_picture_ages(fleetctl, serving, journal):
    serving.daemons["controller"].kill()
    serving.daemons["controller"].wait()
    serving.answers.clear()
    serving.picture = lambda at=None, draw=serving.picture: draw(time.time() - 7200)
    time.sleep(0.3)  # the next beat writes the old picture
    ran = fleetctl("status")
    assert ran.code == 0
    assert (
        "NOT RUNNING - nothing scales or heals; start it with: fleetctl up. The picture below is 2h old"
        in ran.out
    )
    told = fleetctl("status", "-o", "json").json
    assert told["controller"]["running"] is False
    assert told["controller"]["leader"] is False
    assert told["controller"]["last_tick_age_s"] == pytest.approx(7200, abs=30)
    assert told["hosts"][0]["since_s"] == pytest.approx(7200, abs=30)


def test_nothing_was_ever_up(fleetctl, folder):
    ran = fleetctl("status")
    assert (ran.code, ran.out, ran.err) == (0, "", "nothing is up; start with fleetctl up\n")
    told = fleetctl("status", "-o", "json").json
    assert (told["pools"], told["hosts"], told["endpoint"]) == ([], [], None)
    assert told["controller"] == {"running": False, "leader": False, "last_tick_age_s": None, "paused": False}
    assert fleetctl("events").out == ""
    assert not (folder / ".fleetctl").exists()


def test_hosts_joins_the_inventory_with_what_was_seen(fleetctl, serving):
    rows = [row.split() for row in fleetctl("hosts").out.splitlines()]
    assert rows[1][:5] == ["gpu-a", "default", "local", "rack-1", "ready"]
    assert rows[1][6] == "2.1"
    told = fleetctl("hosts", "-o", "json").json
    assert told["schema"] == "fleetctl/hosts/v1"
    by_name = {host["name"]: host for host in told["hosts"]}
    assert (
        by_name["gpu-a"].items()
        >= {"labels": {"gpu": "h100"}, "price_per_hour": 2.1, "state": "ready"}.items()
    )
    assert by_name["gpu-c"]["state"] == "off"


def test_explain_leads_with_the_sentence(fleetctl, serving):
    lines = fleetctl("explain").out.splitlines()
    assert lines[0] == "pool default: 1 wanted, 1 ready"
    assert lines[1].startswith("decided 1m") and lines[1].endswith(" ago: min_servers 1")
    assert "held back by: cooldown.scale_down for another 12 s" in lines
    assert any(row.split()[:2] == ["latency", "1"] for row in lines)


def test_explain_as_json(fleetctl, serving):
    told = fleetctl("explain", "-o", "json").json
    assert told["schema"] == "fleetctl/explain/v1"
    assert told["pool"] == "default"
    assert told["bounds"] == {"low": 1, "high": 3}
    assert told["winner"] == "latency"
    assert told["recommendations"][0].keys() == {"policy", "desired", "reason"}
    assert told["blocked_by"] == ["cooldown.scale_down for another 12 s"]


def test_explain_before_any_decision(fleetctl, folder):
    ran = fleetctl("explain")
    assert (ran.code, ran.out) == (0, "pool default: nothing has been decided yet\n")
    assert fleetctl("explain", "nope").code == 2
