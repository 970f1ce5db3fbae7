"""Each rule of plan, as a row: the hosts as they are, what is wanted, and the steps that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.plan import PoolView, Step, mass_loss, steps

Pool = Callable[..., PoolView]


def short(found: list[Step]) -> list[str]:
    return [f"{s.kind} {s.host}" for s in found]


OUT = {"state": "ready", "release": "release-1"}
CORDONED = {"state": "ready", "cordoned": True}

CASES: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    # starting
    ("nothing to do", {"a": "ready", "b": "off"}, {"desired": 1}, []),
    ("the first in fleet.yaml", {"a": "off", "b": "off"}, {"desired": 1}, ["start a"]),
    (
        "as many as are missing",
        {"a": "ready", "b": "off", "c": "off"},
        {"desired": 3},
        ["start b", "start c"],
    ),
    ("what comes already counts", {"a": "loading", "b": "off"}, {"desired": 1}, []),
    (
        "every state of a start counts",
        {"a": "booting", "b": "reachable", "c": "installing", "d": "starting", "e": "off"},
        {"desired": 4},
        [],
    ),
    (
        "a start that was broken off is taken up again, and counts",
        {"a": "loading", "b": "off"},
        {"desired": 1, "busy": frozenset()},
        ["start a"],
    ),
    ("what leaves does not count", {"a": "draining", "b": "off"}, {"desired": 1}, ["start b"]),
    (
        "the cheapest",
        {"a": {"state": "off", "price": 3.0}, "b": {"state": "off", "price": 1.0}},
        {"desired": 1},
        ["start b"],
    ),
    (
        "one that never failed before a cheap one",
        {"a": {"state": "failed", "failures": 1, "price": 0.1}, "b": {"state": "off", "price": 9.0}},
        {"desired": 1},
        ["start b"],
    ),
    (
        "a failed one when no other is left",
        {"a": {"state": "failed", "failures": 3}},
        {"desired": 1},
        ["start a"],
    ),
    (
        "not before its time",
        {"a": {"state": "failed", "failures": 1, "retry_at": 1_790_000_000.1}},
        {"desired": 1},
        [],
    ),
    (
        "at its time",
        {"a": {"state": "failed", "failures": 1, "retry_at": 1_790_000_000.0}},
        {"desired": 1},
        ["start a"],
    ),
    (
        "never a cordoned one",
        {"a": {"state": "off", "cordoned": True}, "b": "off"},
        {"desired": 2},
        ["start b"],
    ),
    (
        "an unreachable one is no capacity, and is not started again",
        {"a": {"state": "unreachable", "retry_at": 2e9}, "b": "off"},
        {"desired": 1},
        ["start b"],
    ),
    ("a host without a record is off", {}, {"desired": 1}, []),
    # stopping
    ("the surplus", {"a": "ready", "b": "ready"}, {"desired": 1}, ["stop a"]),
    ("the idlest", {"a": "ready", "b": "ready"}, {"desired": 1, "in_flight": {"a": 3, "b": 1}}, ["stop b"]),
    (
        "the dearest of equals",
        {"a": {"state": "ready", "price": 1.0}, "b": {"state": "ready", "price": 2.0}},
        {"desired": 1},
        ["stop b"],
    ),
    (
        "never a protected one",
        {"a": {"state": "ready", "protect": True}, "b": "ready"},
        {"desired": 1, "in_flight": {"b": 99}},
        ["stop b"],
    ),
    (
        "all protected: none",
        {"a": {"state": "ready", "protect": True}, "b": {"state": "ready", "protect": True}},
        {"desired": 0},
        [],
    ),
    ("one at a time", {"a": "ready", "b": "ready", "c": "ready"}, {"desired": 0}, ["stop a"]),
    ("and no second while one leaves", {"a": "ready", "b": "ready", "c": "stopping"}, {"desired": 0}, []),
    ("nor when this decision had its stop", {"a": "ready", "b": "ready"}, {"desired": 0, "stopped": 1}, []),
    # drained by the operator
    ("a cordoned one is drained", {"a": CORDONED, "b": "ready"}, {"desired": 1}, ["stop a"]),
    (
        "even below the wanted number, while another starts",
        {"a": CORDONED, "b": "off"},
        {"desired": 1},
        ["start b", "stop a"],
    ),
    ("before the surplus", {"a": "ready", "b": "ready", "c": CORDONED}, {"desired": 1}, ["stop c"]),
    # releases
    ("a new one first", {"a": OUT, "b": "off"}, {"desired": 1}, ["start b"]),
    ("the old one serves until the new one is ready", {"a": OUT, "b": "loading"}, {"desired": 1}, []),
    ("then the old one goes", {"a": OUT, "b": "ready"}, {"desired": 1}, ["stop a"]),
    ("before one of the new ones", {"a": "ready", "b": "ready", "c": OUT}, {"desired": 1}, ["stop c"]),
    ("in place when there is no other", {"a": OUT}, {"desired": 1}, ["stop a"]),
    ("in place, one at a time", {"a": OUT, "b": OUT}, {"desired": 2}, ["stop a"]),
    ("in place, the next when the first is ready", {"a": "ready", "b": OUT}, {"desired": 2}, ["stop b"]),
    ("in place, not while the first comes", {"a": "loading", "b": OUT}, {"desired": 2}, []),
    (
        "in place, not while the first leaves",
        {"a": {"state": "draining", "release": "release-1"}, "b": OUT},
        {"desired": 2},
        [],
    ),
    (
        "a new release that failed elsewhere does not cost the host that serves",
        {"a": OUT, "b": {"state": "failed", "failures": 1, "retry_at": 2e9}},
        {"desired": 1},
        [],
    ),
    (
        "nor is it tried on the next in place",
        {"a": {"state": "failed", "failures": 1, "retry_at": 2e9}, "b": OUT, "c": OUT},
        {"desired": 3},
        [],
    ),
    (
        "a failed host that is cordoned does not hold it up",
        {"a": {"state": "failed", "failures": 1, "cordoned": True}, "b": OUT},
        {"desired": 1},
        ["stop b"],
    ),
    # device memory
    (
        "a roomless host is not counted",
        {"a": "ready", "b": "off"},
        {"desired": 1, "roomless": frozenset({"a"})},
        ["start b"],
    ),
    (
        "and stops when another serves",
        {"a": "ready", "b": "ready"},
        {"desired": 1, "roomless": frozenset({"a"})},
        ["stop a"],
    ),
    ("and stays where there is no other", {"a": "ready"}, {"desired": 1, "roomless": frozenset({"a"})}, []),
    # what does not answer
    (
        "a silent host is looked at, not replaced",
        {"a": "ready", "b": "off"},
        {"desired": 1, "silent": {"a": "refused"}},
        ["inspect a"],
    ),
    (
        "an unreachable one is looked at when its time comes",
        {"a": "unreachable"},
        {"desired": 0},
        ["inspect a"],
    ),
    ("not before", {"a": {"state": "unreachable", "retry_at": 2e9}}, {"desired": 0}, []),
    (
        "a silent one that goes anyway is not looked at first",
        {"a": "ready", "b": "ready"},
        {"desired": 1, "silent": {"a": "refused"}, "in_flight": {"b": 2}},
        ["stop a"],
    ),
    (
        "nor while it is looked at",
        {"a": "ready", "b": "off"},
        {"desired": 1, "silent": {"a": "refused"}, "busy": frozenset({"a"})},
        [],
    ),
    # busy ones
    (
        "busy hosts are left alone",
        {"a": "ready", "b": "ready"},
        {"desired": 0, "busy": frozenset({"a", "b"})},
        [],
    ),
    (
        "a busy one is not started twice",
        {"a": "off", "b": "off"},
        {"desired": 1, "busy": frozenset({"a"})},
        ["start b"],
    ),
    (
        "a busy silent one is not looked at twice",
        {"a": "ready"},
        {"silent": {"a": "?"}, "busy": frozenset({"a"})},
        [],
    ),
]


@pytest.mark.parametrize(("hosts", "view", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_going_up(
    pool: Pool, now: float, hosts: dict[str, Any], view: dict[str, Any], wanted: list[str]
) -> None:
    assert short(steps(pool(hosts, **view), "up", now)) == wanted


DOWN: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    (
        "all at once",
        {"a": "ready", "b": "failed", "c": "loading", "d": "off"},
        {"busy": frozenset()},
        ["stop a", "stop b", "stop c"],
    ),
    ("protected ones too", {"a": {"state": "ready", "protect": True}}, {}, ["stop a"]),
    ("busy ones when they are done", {"a": "ready", "b": "loading"}, {"busy": frozenset({"b"})}, ["stop a"]),
    ("what failed to stop waits for its time", {"a": {"state": "failed", "retry_at": 2e9}}, {}, []),
    ("an unreachable one is looked for", {"a": "unreachable"}, {}, ["inspect a"]),
    (
        "an unreachable one whose power can be switched is stopped by that",
        {"a": {"state": "unreachable", "power": {"driver": "libvirt"}}, "b": "unreachable"},
        {},
        ["inspect b", "stop a"],
    ),
    (
        "but not before its time",
        {"a": {"state": "unreachable", "power": {"driver": "libvirt"}, "retry_at": 2e9}},
        {},
        [],
    ),
    ("nothing is started", {"a": "off"}, {"desired": 3}, []),
    (
        "half the fleet out of sight does not keep the other half up",
        {"a": "unreachable", "b": "unreachable", "c": "unreachable", "d": "unreachable", "e": "ready"},
        {"busy": frozenset("abcd")},
        ["stop e"],
    ),
]


@pytest.mark.parametrize(("hosts", "view", "wanted"), [c[1:] for c in DOWN], ids=[c[0] for c in DOWN])
def test_going_down(
    pool: Pool, now: float, hosts: dict[str, Any], view: dict[str, Any], wanted: list[str]
) -> None:
    assert short(steps(pool(hosts, **view), "down", now)) == wanted


@pytest.mark.parametrize(("running", "stops"), [(2, 1), (19, 1), (20, 2), (40, 4), (45, 4)])
def test_one_decision_stops_a_tenth_of_the_hosts_but_at_least_one(
    pool: Pool, now: float, running: int, stops: int
) -> None:
    view = pool({f"h{n}": "ready" for n in range(running)}, desired=0)
    assert len(steps(view, "up", now)) == stops


@pytest.mark.parametrize(
    ("lost", "ready", "lossy"),
    [(3, 0, False), (4, 0, True), (4, 4, True), (4, 5, False), (9, 11, False), (10, 11, True)],
)
def test_more_than_45_percent_and_three_hosts_out_of_sight_is_a_mass_loss(
    pool: Pool, lost: int, ready: int, lossy: bool
) -> None:
    hosts = {f"u{n}": "unreachable" for n in range(lost)} | {f"r{n}": "ready" for n in range(ready)}
    assert mass_loss(pool(hosts | {"spare": "off"})) is lossy


def test_a_mass_loss_stops_nothing_and_starts_one_host_at_a_time(pool: Pool, now: float) -> None:
    gone: dict[str, Any] = {f"u{n}": {"state": "unreachable", "retry_at": 2e9} for n in range(5)}
    hosts = gone | {"a": CORDONED, "b": "ready", "c": "ready", "d": "off", "e": "off"}
    assert short(steps(pool(hosts, desired=7), "up", now)) == ["start d"]
    assert short(steps(pool(hosts | {"d": "booting"}, desired=7), "up", now)) == []
    assert short(steps(pool(hosts, desired=0), "up", now)) == []


def test_a_step_says_why(pool: Pool, now: float) -> None:
    view = pool({"a": CORDONED}, desired=0, silent={})
    assert steps(view, "up", now) == [Step("stop", "a", "default", "drained by the operator")]
    assert steps(pool({"a": "off"}), "up", now)[0].reason == "the decision"
    assert steps(pool({"a": "ready"}, silent={"a": "refused"}), "up", now)[0].reason == "refused"
    outdated = steps(pool({"a": OUT, "b": "ready"}), "up", now)
    assert outdated[0].reason == "runs release release-1"


def test_what_a_failed_stop_may_have_left_is_stopped_once_its_retry_is_due(pool: Pool, now: float) -> None:
    failed = {"state": "failed", "action_id": "one", "retry_at": now}
    [step] = steps(pool({"a": "ready", "b": failed}), "up", now)
    assert (step.kind, step.host) == ("stop", "b")
    assert step.reason == "it failed and is not needed; what may still run there is stopped"
    assert steps(pool({"a": "ready", "b": {**failed, "retry_at": now + 1}}), "up", now) == []
    assert steps(pool({"a": "ready", "b": {**failed, "action_id": None}}), "up", now) == []
    [step] = steps(pool({"a": "ready", "b": failed}, desired=2), "up", now)  # needed: it is tried again
    assert (step.kind, step.host) == ("start", "b")


def test_a_machine_that_was_switched_on_for_nothing_is_switched_off(pool: Pool, now: float) -> None:
    failed = {"state": "failed", "action_id": None, "retry_at": now, "power": {"driver": "libvirt"}}
    assert short(steps(pool({"a": "ready", "b": failed}), "up", now)) == ["stop b"]
    assert short(steps(pool({"b": failed}, desired=0), "down", now)) == ["stop b"]
    assert steps(pool({"a": "ready", "b": {**failed, "retry_at": now + 1}}), "up", now) == []
    assert short(steps(pool({"a": "ready", "b": failed}, desired=2), "up", now)) == ["start b"]
