"""Operators, faults and edits, and what the loop makes of them."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Fleet

MakeFleet = Callable[..., "Fleet"]


def up(fleet: Fleet, ready: int = 1) -> Fleet:
    fleet.control()
    fleet.until(lambda: fleet.count("ready") == ready, f"{ready} ready")
    return fleet


def test_scaled_drained_returned_paused(fleet: MakeFleet) -> None:
    one = up(fleet())
    answer, _ = one.ask("scale", pool="default", servers=3)
    assert (answer.ok, answer.message) == (True, "pool default goes to 3")
    one.until(lambda: one.count("ready") == 3, "three ready")
    told = one.events("scale")[-1]
    assert told.reason == "scaled to 3 by the operator"
    assert told.data == {"from": 1, "to": 3}

    refused, _ = one.ask("scale", pool="default", servers=4)
    assert not refused.ok
    assert "1 to 3 servers, not 4" in refused.message
    assert "no host 'nobody'" in one.ask("drain", host="nobody")[0].message

    assert one.ask("drain", host="b")[0].ok
    one.until(lambda: one.states()["b"] == "off", "b off")
    assert [e.kind for e in one.events(host="b")][-4:] == ["cordon", "draining", "stopping", "off"]
    assert sorted(one.agents()) == ["a", "c"]
    assert one.ask("pause")[0].ok
    one.until(lambda: (one.journal.status() or {})["pools"][0]["paused"])
    assert one.journal.pool("default").desired == 3
    assert one.ask("uncordon", host="b")[0].ok
    one.until(lambda: one.count("ready") == 3, "b back")
    asked = [one.ask("resume") for _ in range(3)]
    assert all(answer.ok for answer, _ in asked)
    assert sorted(took_s for _, took_s in asked)[1] < 1.5  # one that a busy machine held up says nothing
    assert not one.journal.pool("default").paused
    assert set(one.starts().values()) == {1}


def test_down_stops_all_and_up_starts_again(fleet: MakeFleet) -> None:
    one = up(fleet(min_servers=2), 2)
    assert one.ask("down")[0].ok
    one.until(lambda: one.count("off") == 3, "all off")
    assert one.agents() == {}
    assert not one.ask("scale", pool="default", servers=2)[0].ok
    assert one.ask("up")[0].ok
    one.until(lambda: one.count("ready") == 2, "two ready again")


def test_a_killed_agent_is_started_again_by_its_supervisor_under_the_same_action(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=1))
    one.until(lambda: host(one, "a")["models"], "the controller has met it: one more process is a restart")
    [pid] = one.agents()["a"]
    os.kill(pid, signal.SIGKILL)
    one.until(lambda: set(one.starts().values()) == {2}, "its supervisor was quicker")
    one.until(lambda: one.count("ready") == 1 and one.agents().get("a") not in (None, [pid]), "ready again")
    one.until(lambda: one.events("restarted"), "told")
    [told] = one.events("restarted")
    words = "a: the agent ended (killed by signal 9) and was started again by its supervisor on the host"
    assert told.reason == words
    assert not one.events("failed")


def test_an_agent_whose_supervisor_died_too_is_told_and_started_again(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=1))
    [pid] = one.agents()["a"]
    for supervisor in one.supervisors():
        os.kill(supervisor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    one.until(lambda: one.events("failed"), "failed")
    one.until(lambda: one.count("ready") == 1 and one.agents().get("a") not in (None, [pid]), "ready again")
    [failed] = one.events("failed")
    assert failed.reason == "its agent is gone"
    assert failed.data["error"].startswith("a: the agent died. Its last words:")
    assert len(one.starts()) == 2


def test_an_agent_that_ended_with_its_machine_is_told_so_and_started_again(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=1))
    [pid] = one.agents()["a"]
    [file] = one.folder.rglob("run/agent.json")
    run = json.loads(file.read_text())
    file.write_text(json.dumps({**run, "boot_id": "00000000-0000-0000-0000-000000000000"}))
    for supervisor in one.supervisors():
        os.kill(supervisor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    one.until(lambda: one.events("failed"), "failed")
    assert (
        one.events("failed")[0].data["error"] == "a: the machine was rebooted, and its agent ended with it."
    )
    one.until(lambda: one.count("ready") == 1 and one.agents().get("a") not in (None, [pid]), "ready again")


def test_an_agent_that_ends_while_it_loads_is_told_with_how_it_ended(fleet: MakeFleet) -> None:
    one = fleet(hosts=1)
    one.behave("a", load_s=50)
    one.control()
    one.until(lambda: one.states()["a"] == "loading" and "a" in one.agents(), "loading")
    for pid in one.agents()["a"]:
        os.kill(pid, signal.SIGTERM)
    one.until(lambda: one.events("failed"), "told")
    assert "the agent died while loading (exit status 0)" in one.events("failed")[0].data["error"]


@pytest.mark.slow
def test_an_agent_that_hangs_is_replaced_and_one_that_only_stutters_is_not(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=2))
    [pid] = one.agents()["a"]
    os.kill(pid, signal.SIGSTOP)
    one.until(lambda: "not answer" in str(host(one, "a")["error"]), "a silent")
    os.kill(pid, signal.SIGCONT)
    one.until(lambda: host(one, "a")["error"] is None, "a well")
    assert one.agents() == {"a": [pid]}
    os.kill(pid, signal.SIGSTOP)
    one.until(lambda: one.events("failed"), "given up")
    assert "a: the agent hangs: " in one.events("failed")[0].data["error"]
    one.until(lambda: one.count("ready") == 1 and [pid] not in one.agents().values(), "replaced")


def test_an_agent_that_serves_is_not_killed_because_it_does_not_say_how_it_is(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=2))
    one.behave("a", mute=True)
    one.until(lambda: "/status answers 500" in str(host(one, "a")["error"]), "a mute")
    silent_at = time.monotonic()
    one.until(lambda: time.monotonic() > silent_at + 4.0)  # twice unreachable_after
    assert one.states() == {"a": "ready", "b": "off"}
    assert served(one)


def test_an_agent_that_fails_to_start_says_why_and_another_host_takes_over(fleet: MakeFleet) -> None:
    one = fleet(hosts=2)
    one.behave("a", exit="no such thing as a GPU")
    up(one)
    assert one.states() == {"a": "failed", "b": "ready"}
    record = one.journal.hosts()["a"]
    assert record.failures == 1
    assert "no such thing as a GPU" in str(record.error)
    assert record.retry_at - record.since > 4.0
    one.behave("a")
    assert one.ask("up")[0].ok  # means: try again now, where one is still wanted
    assert one.ask("scale", pool="default", servers=2)[0].ok
    one.until(lambda: one.count("ready") == 2, "both")


def test_an_agent_that_says_it_failed_is_stopped_and_its_words_are_kept(fleet: MakeFleet) -> None:
    one = fleet(hosts=2)
    one.behave("a", state="failed", error="the weights are not there")
    up(one)
    assert "the weights are not there" in str(one.journal.hosts()["a"].error)
    assert list(one.agents()) == ["b"]


def test_a_host_without_room_for_the_model_gets_company(fleet: MakeFleet) -> None:
    one = fleet(hosts=2)
    one.change(lambda spec: spec["models"][0].update(device_memory="2GiB"))
    one.behave("a", memory=[7 << 30, 8 << 30])
    one.control()
    one.until(lambda: one.states() == {"a": "off", "b": "ready"}, "b instead of a")
    assert one.events("draining", "a")[0].reason == "has no room for the pool's model"


@pytest.mark.slow
def test_a_killed_and_a_hung_balancer_are_started_again_and_serve(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=1))
    for number in (signal.SIGKILL, signal.SIGSTOP):
        was = one.balancer.ready()["pid"]
        assert isinstance(was, int)
        os.kill(was, number)
        one.until(lambda was=was: one.balancer.ready().get("pid", was) != was, "another balancer")
        one.until(lambda: served(one), "it serves")
    # Killed: the watch is there at once. Hung: the loop stops it, and then either of the two starts it again.
    reasons = [e.reason for e in one.events("balancer")]
    starts = [r for r in reasons if "was started" in r]
    assert starts[0] == "the balancer was started"
    assert starts[1].startswith("the balancer ended, and was started again in")
    assert len(starts) == 3
    assert reasons.count("the balancer did not answer for 2 s and was stopped") == 1
    assert one.count("ready") == 1
    assert len(one.starts()) == 1


def test_fleet_yaml_is_followed_while_it_is_good(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=3, max_servers=1))

    one.change(lambda spec: spec["pools"][0]["scaling"].update(min_servers=2, max_servers=3))
    one.until(lambda: one.count("ready") == 2, "two, as fleet.yaml says now")

    good = one.file.read_text()
    one.file.write_text(good[: len(good) // 2])
    one.until(lambda: "last good" in last_config(one), "half a file refused")
    assert one.ask("scale", pool="default", servers=3)[0].ok  # and the last good one is in force
    one.until(lambda: one.count("ready") == 3, "three")

    def without_a(spec: dict[str, Any]) -> None:
        spec["hosts"] = spec["hosts"][1:]
        spec["pools"][0]["hosts"] = ["b", "c"]
        spec["pools"][0]["scaling"].update(max_servers=2)

    whole = json.loads(json.dumps(one.spec))
    one.change(without_a)
    one.until(lambda: "no longer has a (ready)" in last_config(one), "a missing host refused")
    one.spec = whole
    one.change(lambda spec: spec["balancer"].update(listen="127.0.0.1:1"))
    one.until(lambda: "balancer.listen can't change" in last_config(one), "another address refused")
    one.change(lambda spec: spec["balancer"].update(listen="127.0.0.1:0"))
    one.until(lambda: "was read again" in last_config(one), "the good one again")
    assert one.ask("drain", host="a")[0].ok
    one.until(lambda: one.states()["a"] == "off")
    one.change(without_a)
    one.until(lambda: sorted(one.states()) == ["b", "c"], "a forgotten")


def test_a_changed_model_is_rolled_out_and_one_that_fails_is_not_rolled_on(fleet: MakeFleet) -> None:
    one = up(fleet(hosts=2))
    [first] = one.agents()["a"]
    for name in "ab":
        one.behave(name, exit="bad model")
    one.change(lambda spec: spec["models"][0].update(options={"hidden": 8}))
    one.until(lambda: one.states()["b"] == "failed", "the new release fails on b")
    one.until(lambda: one.journal.hosts()["b"].failures == 2, "and again")
    assert one.states()["a"] == "ready"
    assert one.agents() == {"a": [first]}
    one.behave("b")
    one.ask("up")
    one.until(lambda: one.states() == {"a": "off", "b": "ready"}, "b took over")


def host(one: Fleet, name: str) -> dict[str, Any]:
    return next(h for h in (one.journal.status() or {})["hosts"] if h["name"] == name)


def last_config(one: Fleet) -> str:
    events = one.events("config")
    return events[-1].reason if events else ""


def served(one: Fleet) -> bool:
    url = (one.journal.status() or {})["endpoint"] + "/v1/models/tiny:predict"
    request = urllib.request.Request(url, b'{"instances": [1]}', {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(json.load(answer)["predictions"])
    except OSError:
        return False
