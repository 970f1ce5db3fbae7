from __future__ import annotations

import time


def test_what_is_known_of_one_host(fleetctl, stage):
    stage.move(
        "gpu-a", "booting", "reachable", "installing", "failed", reason="no room", error="gpu-a: \x1b[2Jfull"
    )
    stage.journal.amend("gpu-a", failures=6, retry_at=time.time() + 600, boot_s=12.0, startup_s=72.0)
    ran = fleetctl("hosts", "describe", "gpu-a", "-o", "json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert told["schema"] == "fleetctl/host/v1" and told["name"] == "gpu-a"
    assert (told["zone"], told["price_per_hour"], told["labels"]) == ("rack-1", 2.1, {"gpu": "h100"})
    assert told["pools"] == [{"name": "default", "models": ["hello"]}]
    assert told["state"]["state"] == "failed" and told["state"]["quarantined"]
    assert told["state"]["quarantine"] == "failures"
    assert 500 < told["state"]["retry_in_s"] <= 600
    assert told["learned"] == {"startup_s": 72.0, "boot_s": 12.0, "load_s": 60.0}
    assert [event["kind"] for event in told["events"]] == ["booting", "reachable", "installing", "failed"]
    assert told["power_now"]["state"] == "uncontrolled" and told["agent"] is None
    page = fleetctl("hosts", "describe", "gpu-a", "-n", "2", "--no-ask").out
    assert "\x1b" not in page and "full" in page
    assert "after 6 failures in a row; next try in" in page
    assert "booting" not in page, "only the last two events were asked for"
    assert "1m12s: 12s to boot, 1m to install and load" in page


def test_what_is_under_way_is_told(fleetctl, stage):
    from fleet_controller.lifecycle import HostState

    stage.journal.enlist(["gpu-b"], time.time())
    stage.journal.begin("gpu-b", "start", "default", "min_servers asks for 1", time.time(), HostState.BOOTING)
    told = fleetctl("hosts", "describe", "gpu-b", "-o", "json").json
    assert [(one["kind"], one["reason"]) for one in told["open_actions"]] == [
        ("start", "min_servers asks for 1")
    ]


def test_an_agent_that_does_not_answer_is_told(fleetctl, stage):
    stage.journal.enlist(["gpu-a"], time.time())
    stage.journal.amend("gpu-a", agent_port=1, action_id="a1")
    stage.state.token("host-gpu-a")
    told = fleetctl("hosts", "describe", "gpu-a", "-o", "json").json
    assert told["agent"]["state"] is None and "does not answer" in told["agent"]["error"]


def test_a_fleet_that_was_never_started_and_a_host_that_is_not_there(fleetctl, folder):
    ran = fleetctl("hosts", "describe", "gpu-a")
    assert ran.code == 0 and "the fleet was never started with it" in ran.out
    assert not (folder / ".fleetctl").exists()
    assert fleetctl("hosts", "describe", "gpu-z").code == 2


def test_the_table_of_all_hosts_stays_as_it_was(fleetctl):
    assert fleetctl("hosts").out.split()[:4] == ["HOST", "POOL", "ADDRESS", "ZONE"]
    assert len(fleetctl("hosts", "-o", "json").json["hosts"]) == 3
