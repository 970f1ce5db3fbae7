"""Tables: a pool as it stands, and the sentence that must (or must not) be said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.explain.bursts import Bursts
from fleet_controller.explain.diagnosis import Case, Hosts, diagnose, hosts
from fleet_controller.lifecycle import HostState
from fleet_controller.policies import PolicyState, ScalingSpec, Signal, decide
from fleet_controller.records import HostRecord
from fleet_controller.spec import PoolSpec

NOW = 1_790_000_000.0
Diagnosed = Callable[..., tuple[str, ...]]


@pytest.fixture
def diagnosed() -> Diagnosed:
    """diagnosed({scaling}, {signal}, hosts=..., desired=2): a real decision about it, and what is said of that."""

    def say(scaling: dict[str, Any], signal: dict[str, Any], **more: Any) -> tuple[str, ...]:
        spec = ScalingSpec.model_validate({"max_servers": 3, **scaling})
        desired = more.pop("desired", signal.get("ready", 1))
        calm = more.pop("state", {})
        look = Signal.model_validate({"ready": 1, **signal})
        state = PolicyState(desired=desired, first_at=NOW - 9000, last_at=NOW - 5, **calm)
        decision, _ = decide(spec, state, look, NOW)
        case = {"hosts": Hosts(total=spec.max_servers, ready=look.ready), **more}
        return diagnose(Case("default", spec, decision, look, now=NOW, **case))

    return say


UTIL = {"min_servers": 1, "target_utilization": 0.95}
BUSY = {"arrivals_per_s": 9.0, "utilization": 0.82, "p95_ms": 240.0, "completed": 500}
QUIET = {"arrivals_per_s": 0.0, "in_flight": 0, "queued": 0, "utilization": 0.0}
LATE = {"latency": {"target_ms": 200}, "predictive": {"enabled": False}}


@pytest.mark.parametrize(
    ("scaling", "signal", "more", "sentence"),
    [
        (UTIL, BUSY, {}, "stays at 1: utilization 0.82 is under target_utilization 0.95; "
                         "p95 is 240 ms, but no latency policy is set"),
        (UTIL | {"steps": [{"when": "p95_ms > 200", "for": "10m", "add": 1}]}, BUSY, {},
         "stays at 1: utilization 0.82 is under target_utilization 0.95; "
         "p95 is 40 ms over the 200 ms of a step, but no latency policy is set"),
        (UTIL | LATE, BUSY | {"p95_ms": 150.0}, {},
         "stays at 1: utilization 0.82 is under target_utilization 0.95; p95 150 ms is under its target of 200 ms"),
        (UTIL, BUSY | {"utilization": 0.3, "queued": 2}, {},
         "stays at 1: utilization 0.3 is under target_utilization 0.95; p95 is 240 ms, but no latency policy is set"),
        ({"min_servers": 1, "queue": {"target_per_server": 8}}, BUSY | {"queued": 4, "p95_ms": None}, {},
         "stays at 1: 4 requests wait per server, under queue.target_per_server 8"),
        ({"min_servers": 1}, BUSY, {},
         "no policy is set: only min_servers, max_servers, schedules and people change the number"),
        ({"min_servers": 3}, BUSY, {"desired": 3}, "min_servers = max_servers = 3: no policy can change the number"),
        ({"schedules": [{"cron": "* * * * *", "servers": 2}]}, BUSY, {},
         'schedule "* * * * *" UTC sets exactly 2 servers: no policy can change that'),
        ({"target_utilization": 0.5, "max_servers": 2}, BUSY | {"ready": 2, "utilization": 1.0}, {},
         "max_servers 2 is reached: 2 more would be wanted (utilization)"),
        ({"target_utilization": 0.5, "max_servers": 2}, BUSY | {"ready": 2, "utilization": 1.0},
         {"hosts": Hosts(total=3, ready=2)},
         "max_servers 2 is reached: 2 more would be wanted (utilization), and the pool has 1 more host"),
        ({"min_servers": 2, "target_utilization": 0.5}, BUSY | {"ready": 2, "utilization": 0.1}, {},
         "min_servers keeps it at 2: the load needs 1"),
        (UTIL, BUSY | {"age_s": 95.0}, {}, "no data since 2026-09-21T14:11:45Z, 95 s ago: nothing is scaled down"),
        (UTIL, BUSY | {"age_s": 1e9}, {}, "no data yet: nothing is scaled down"),
        (UTIL | {"target_utilization": 0.5}, BUSY | {"utilization": 1.0}, {"state": {"last_up_at": NOW - 10}},
         "cooldown blocks scaling up for another 20 s"),
        (UTIL | {"target_utilization": 0.5}, BUSY | {"ready": 2, "utilization": 0.1},
         {"state": {"highs": ((NOW - 100, 2),)}}, "stabilization blocks scaling down for another 200 s"),
        ({"max_servers": 5} | UTIL, BUSY, {"hosts": Hosts(total=3, ready=1)},
         "hosts are missing: the pool has 3 hosts, max_servers is 5"),
        (UTIL, BUSY | {"ready": 2}, {"hosts": Hosts(total=3, ready=1, cordoned=("a", "b"))},
         "hosts are missing: 2 are wanted, 1 of 3 can serve"),
        (UTIL, BUSY, {"paused": True},
         "paused by an operator: the number stays at 1 whatever the load, until fleetctl autoscale resume default"),
        (UTIL, BUSY, {"hosts": Hosts(total=3, failed={"b": 90.0, "a": 5.0})},
         "2 hosts failed, tried again in 5 s: a, b"),
        (UTIL, BUSY, {"hosts": Hosts(total=9, quarantined=dict.fromkeys("abcde", 700.0))},
         "5 hosts are quarantined after 5 or more failures in a row, tried again in 12 min: a, b, c and 2 more"),
        (UTIL, BUSY, {"hosts": Hosts(total=9, unproven={"b": 300.0})},
         "1 host is not proven to be free, so nothing is started there, tried again in 300 s: b"),
        (UTIL, BUSY, {"hosts": Hosts(total=3, unreachable=("a",))}, "1 host is out of reach: a"),
        (UTIL, BUSY, {"hosts": Hosts(total=3, roomless=("a",))}, "1 host is without room for the pool's model: a"),
        (UTIL, BUSY | {"ready": 1, "starting": 1},
         {"desired": 2, "state": {"highs": ((NOW - 100, 2),)}, "hosts": Hosts(total=3, ready=1, starting=1)},
         "1 host is still starting"),
        (UTIL | {"min_servers": 0}, QUIET, {},
         "idle-to-zero is off (idle.scale_to_zero): 1 server stays although no requests come in"),
        (UTIL, BUSY, {"goal": "down"}, "the fleet is down: fleetctl up"),
        (UTIL | LATE, BUSY, {"bursts": Bursts(12, 1440, 0.31, 3)},
         "the target can't be held by scaling: the load grew faster than a host starts in 12 of 1440 minutes, "
         "with 31% of the requests; min_servers 3 or more would hold it"),
    ],
)  # fmt: skip
def test_what_is_said(
    diagnosed: Diagnosed, scaling: dict[str, Any], signal: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    assert sentence in diagnosed(scaling, signal, **more)


@pytest.mark.parametrize(
    ("scaling", "signal", "more", "word"),
    [
        (
            UTIL,
            BUSY | {"utilization": 0.3},
            {},
            "no latency policy",
        ),  # idle enough: nothing to say about latency
        (UTIL | LATE, BUSY, {}, "no latency policy"),
        (UTIL, BUSY | {"age_s": 95.0}, {}, "stays at"),  # blind, so nothing is known about the load
        ({"min_servers": 3}, BUSY, {"desired": 3}, "stays at"),
        (UTIL | {"target_utilization": 0.5}, BUSY, {}, "stays at"),  # it moves: the reason says why
        (UTIL, QUIET, {}, "idle-to-zero"),  # min_servers keeps it, not the switch
        (UTIL | {"min_servers": 0, "idle": {"scale_to_zero": True}}, QUIET, {}, "idle-to-zero"),
        (UTIL, BUSY, {"hosts": Hosts(total=3, ready=1)}, "missing"),
        (UTIL, BUSY, {"goal": "down", "paused": True}, "paused"),
    ],
)
def test_what_is_not_said(
    diagnosed: Diagnosed, scaling: dict[str, Any], signal: dict[str, Any], more: dict[str, Any], word: str
) -> None:
    assert word not in " ".join(diagnosed(scaling, signal, **more))


def test_before_any_decision_only_the_hosts_are_spoken_of() -> None:
    spec = ScalingSpec(max_servers=2)
    case = Case("default", spec, None, None, Hosts(total=1, unreachable=("a",)), NOW)
    assert diagnose(case) == (
        "hosts are missing: the pool has 1 host, max_servers is 2",
        "1 host is out of reach: a",
    )


def test_hosts_are_counted_by_what_they_can_do() -> None:
    pool = PoolSpec(
        name="default", hosts=tuple("abcdefgh"), models=("m",), scaling=ScalingSpec(max_servers=8)
    )
    states = {
        "a": HostRecord("a", state=HostState.READY),
        "b": HostRecord("b", state=HostState.READY),
        "c": HostRecord("c", state=HostState.LOADING),
        "d": HostRecord("d", state=HostState.FAILED, failures=1, retry_at=NOW + 5),
        "e": HostRecord("e", state=HostState.FAILED, failures=6, retry_at=NOW + 160),
        "f": HostRecord("f", state=HostState.FAILED, failures=6, cordoned=True),
        "h": HostRecord("h", state=HostState.FAILED, failures=5, retry_at=NOW + 300, unproven=True),
    }
    found = hosts(pool, states, frozenset({"b"}), NOW)
    assert (found.total, found.ready, found.starting, found.usable) == (8, 1, 1, 3)
    assert (found.failed, found.quarantined) == ({"d": 5.0}, {"e": 160.0})
    assert found.unproven == {"h": 300.0}, "it was one stop, not five failures"
    assert (found.cordoned, found.roomless) == (("f",), ("b",))
