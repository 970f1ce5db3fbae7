"""From records and reports to the balancer's list and the operator's picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.backends import backends
from fleet_controller.latencies import SPAN_S, HostLatencies
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import HostReport, Observation
from fleet_controller.records import HostRecord, KeyRecord, PoolRecord
from fleet_controller.spec import FleetSpec, load
from fleet_controller.status import Picture
from fleet_controller.tick import PoolTick
from fleet_controller.view import pool_view, roomless
from fleet_wire.agent import AgentStatus
from fleet_wire.balancer import ApiKey, BackendList, Ejection, ModelNeed, PoolConfig
from fleet_wire.histogram import LatencyHistogram

Agent = Callable[..., AgentStatus]
S = HostState
GIB = 1 << 30


def listed(spec: FleetSpec, *records: HostRecord) -> BackendList:
    by_name = {r.name: r for r in records}
    return backends(spec, by_name, lambda r: f"127.0.0.1:{r.agent_port}", lambda name: f"token of {name}")


# backends


@pytest.mark.parametrize("state", S)
def test_who_may_serve_is_listed(spec: FleetSpec, state: HostState) -> None:
    found = listed(spec, HostRecord("h1", state=state, agent_port=9400)).backends
    wanted = {S.READY: "active", S.UNREACHABLE: "active", S.DRAINING: "draining"}.get(state)
    assert [b.state for b in found] == ([wanted] if wanted else [])


def test_one_out_of_reach_that_an_operator_drained_gets_nothing_new(spec: FleetSpec) -> None:
    record = HostRecord("h1", state=S.UNREACHABLE, agent_port=9400, cordoned=True)
    assert [b.state for b in listed(spec, record).backends] == ["draining"]


def test_a_host_without_a_port_is_not_listed(spec: FleetSpec) -> None:
    assert listed(spec, HostRecord("h1", state=S.READY)).backends == []


def test_each_backend_has_its_pool_its_address_and_its_token(spec: FleetSpec) -> None:
    found = listed(
        spec, HostRecord("h3", state=S.READY, agent_port=3), HostRecord("h1", state=S.READY, agent_port=1)
    )
    assert [(b.name, b.pool, b.address, b.token) for b in found.backends] == [
        ("h1", "one", "127.0.0.1:1", "token of h1"),
        ("h3", "two", "127.0.0.1:3", "token of h3"),
    ]
    assert "token of" not in repr(found)
    assert [(p.name, p.routing) for p in found.pools] == [
        ("one", "round_robin"),
        ("two", "least_connections"),
    ]
    assert [(m.name, m.device_memory_bytes) for m in found.pools[0].models] == [("tiny", 2 * GIB)]


def test_pools_without_hosts_are_listed_so_that_requests_wait(spec: FleetSpec) -> None:
    assert [p.name for p in listed(spec).pools] == ["one", "two"]


TRAFFIC = """\
fleet: demo
hosts:
  - {name: h1, address: local, zone: rack-1}
  - {name: h2, address: local}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}
pools:
  - name: one
    hosts: [h1, h2]
    models: [tiny]
    traffic:
      max_in_flight_per_server: 7
      retry: idempotent
      hedge: true
      slow_start: 3s
      panic_share: 0.25
      session_header: X-User
      tenant_header: X-Tenant
      ejection: {enabled: false, consecutive_5xx: 9, latency_factor: null, base: 1m, max_share: 0.3}
balancer:
  zone: rack-1
  keys: required
  routing: consistent_hash
  queue: {size: 5, timeout: 6s}
  request_timeout: 8s
"""
KEY = KeyRecord("alice", "ab" * 32, 1.0, 10.0, 20, 2.5, ("one",))


@pytest.fixture
def busy(spec: FleetSpec) -> FleetSpec:
    """`spec`, of which everything about traffic is set."""
    spec.source.write_text(TRAFFIC)
    return load(spec.source)


def test_all_that_fleet_yaml_says_of_traffic_reaches_the_balancer(busy: FleetSpec) -> None:
    told = backends(busy, {}, lambda r: "", lambda name: "", [KEY])
    assert told.pools == [
        PoolConfig(
            name="one",
            models=[ModelNeed(name="tiny")],
            routing="consistent_hash",
            queue_size=5,
            queue_timeout_s=6.0,
            request_timeout_s=8.0,
            max_in_flight_per_server=7,
            retry="idempotent",
            hedge=True,
            slow_start_s=3.0,
            panic_share=0.25,
            session_header="x-user",
            tenant_header="x-tenant",
            ejection=Ejection(
                enabled=False, consecutive_5xx=9, latency_factor=None, base_s=60.0, max_share=0.3
            ),
        )
    ]
    assert told.zone == "rack-1"
    assert told.keys == [
        ApiKey(name="alice", sha256="ab" * 32, rate_per_s=10.0, burst=20, share=2.5, pools=["one"])
    ]
    # What it is told it can read.
    assert BackendList.model_validate_json(told.model_dump_json(by_alias=True)) == told


def test_keys_are_not_told_where_nobody_is_asked_for_one(spec: FleetSpec, busy: FleetSpec) -> None:
    assert backends(busy, {}, lambda r: "", lambda name: "").keys == []  # nobody has one: nobody comes in
    off = busy.model_copy(update={"balancer": busy.balancer.model_copy(update={"keys": "off"})})
    assert backends(off, {}, lambda r: "", lambda name: "", [KEY]).keys is None


def test_each_backend_has_its_zone_and_the_versions_that_its_agent_says(
    busy: FleetSpec, agent: Agent
) -> None:
    models = [
        {"name": "tiny", "version": "2", "ready": True},
        {"name": "big", "version": "1", "ready": False},
    ]
    seen = {name: agent(action_id="now", models=models) for name in ("h1", "h2")}
    records = {
        "h1": HostRecord("h1", state=S.READY, agent_port=1, action_id="now"),
        "h2": HostRecord("h2", state=S.READY, agent_port=2, action_id="later"),
    }
    told = backends(busy, records, lambda r: f"127.0.0.1:{r.agent_port}", lambda name: "t", seen=seen)
    assert [(b.name, b.zone, b.models) for b in told.backends] == [
        ("h1", "rack-1", {"tiny": "2"}),
        ("h2", None, {}),  # what an earlier agent said says nothing about this one
    ]


# room


@pytest.mark.parametrize(
    ("used", "total", "own", "full"),
    [
        (0, 8 * GIB, None, False),
        (7 * GIB, 8 * GIB, None, True),
        (6 * GIB, 8 * GIB, None, False),
        (7 * GIB, 8 * GIB, 2 * GIB, False),  # it is this very model that fills it
        (None, 8 * GIB, None, False),  # unknown is not full
        (7 * GIB, None, None, False),
    ],
)
def test_roomless(
    spec: FleetSpec, agent: Agent, used: int | None, total: int | None, own: int | None, full: bool
) -> None:
    models = [{"name": "tiny", "version": "1", "ready": True, "device_memory_bytes": own}]
    said = agent(device_memory={"used_bytes": used, "total_bytes": total}, models=models)
    seen = Observation(1.0, {"h1": HostReport(said, None), "h2": HostReport(None, "?")}, None, None)
    assert roomless(spec, spec.pool("one"), seen) == (frozenset({"h1"}) if full else frozenset())


def test_silent_are_those_that_do_not_answer_or_say_that_they_failed(spec: FleetSpec, agent: Agent) -> None:
    reports = {
        "h1": HostReport(None, "refused"),
        "h2": HostReport(agent(state="failed", error="no weights"), None),
        "h3": HostReport(agent(), None),
    }
    seen = Observation(1.0, reports, None, None)
    view = pool_view(spec, spec.pool("one"), {}, 1, "r", "", frozenset(), seen)
    assert {k: v for k, v in view.silent.items() if k != "h3"} == {"h1": "refused", "h2": "no weights"}
    assert "h3" not in view.silent
    assert [h.name for h in view.hosts] == ["h1", "h2"]


# latencies


def histogram(*values: float) -> dict[str, Any]:
    one = LatencyHistogram()
    for value in values:
        one.record(value)
    return one.to_wire().model_dump()


def test_a_hosts_p95_is_of_the_last_minute(agent: Agent) -> None:
    kept = HostLatencies()
    assert kept.p95_ms("h1") is None
    kept.feed(0.0, "h1", agent(latency=histogram(*[1000.0] * 50)))
    assert kept.p95_ms("h1") is None  # what it did before we looked is not known to be recent
    kept.feed(10.0, "h1", agent(latency=histogram(*[1000.0] * 50, *[10.0] * 100)))
    assert kept.p95_ms("h1") == pytest.approx(10.0, rel=0.02)
    kept.feed(10.0 + SPAN_S, "h1", agent(latency=histogram(*[1000.0] * 50, *[10.0] * 100)))
    kept.feed(11.0 + SPAN_S, "h1", agent(latency=histogram(*[1000.0] * 50, *[10.0] * 100)))
    assert kept.p95_ms("h1") is None


def test_a_restarted_agent_begins_anew_and_a_broken_histogram_is_left_out(agent: Agent) -> None:
    kept = HostLatencies()
    kept.feed(0.0, "h1", agent(latency=histogram()))
    kept.feed(5.0, "h1", agent(latency=histogram(7.0)))
    kept.feed(6.0, "h1", agent(latency={"count": 3, "sum_ms": 1.0, "buckets": {}}))
    assert kept.p95_ms("h1") == pytest.approx(7.0, rel=0.02)
    kept.feed(7.0, "h1", agent(pid=8, latency=histogram()))
    assert kept.p95_ms("h1") is None


# the picture


def draw(spec: FleetSpec, **parts: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "goal": "up",
        "endpoint": "http://127.0.0.1:8080",
        "records": {},
        "pools": {},
        "observation": None,
        "latencies": HostLatencies(),
    }
    return Picture(spec=spec, **(usual | parts)).draw(100.0)


def test_before_the_first_look_everything_is_there_and_nothing_is_claimed(spec: FleetSpec) -> None:
    picture = draw(spec)
    assert picture["schema"] == "fleetctl/status/v1"
    assert [p["name"] for p in picture["pools"]] == ["one", "two"]
    assert picture["pools"][0] | {"name": "", "goal": ""} == {
        "name": "", "desired": None, "ready": 0, "min_servers": 1, "max_servers": 2,
        "latency_ms": {"p50": None, "p95": None, "p99": None}, "rps": None, "utilization": None, "in_flight": 0,
        "queued": 0, "last_decision": None, "diagnosis": [], "cooldown_remaining_s": 0.0, "paused": False, "goal": "",
        "tier": "interactive", "elsewhere": {},
    }  # fmt: skip
    assert [h["state"] for h in picture["hosts"]] == ["off"] * 4
    assert not picture["balancer"]["running"]


def test_a_host_is_shown_with_what_it_is_at_and_what_is_wrong(spec: FleetSpec, agent: Agent) -> None:
    kept = HostLatencies()
    kept.feed(0.0, "h2", agent(latency=histogram()))
    kept.feed(1.0, "h2", agent(latency=histogram(5.0)))
    records = {
        "h1": HostRecord("h1", "one", S.FAILED, 90.0, "start failed", error="no power", retry_at=130.0),
        "h2": HostRecord("h2", "one", S.OFF, 95.0),
        "h3": HostRecord("h3", "two", S.READY, 60.0, agent_port=1, cordoned=True),
    }
    seen = Observation(100.0, {"h3": HostReport(None, "refused")}, None, "the balancer does not answer")
    picture = draw(spec, records=records, observation=seen, latencies=kept)
    h1, h2, h3, _ = picture["hosts"]
    assert (h1["state"], h1["since_s"], h1["error"], h1["retry_in_s"]) == ("failed", 10.0, "no power", 30.0)
    assert (h2["error"], h2["p95_ms"], h2["retry_in_s"]) == (None, None, None)  # off: it has no latency now
    assert (h3["error"], h3["cordoned"], h3["since_s"]) == ("refused", True, 40.0)
    assert picture["balancer"] == {"running": False, "error": "the balancer does not answer"}


def test_a_roomless_host_is_not_ready_and_says_why(spec: FleetSpec) -> None:
    records = {n: HostRecord(n, "one", S.READY, 60.0, agent_port=1) for n in ("h1", "h2")}
    tick = PoolTick(PoolRecord("one", desired=2), None, {}, frozenset({"h1"}))
    picture = draw(spec, records=records, pools={"one": tick})
    assert picture["pools"][0]["ready"] == 1
    assert "no room" in picture["hosts"][0]["error"]
    assert picture["hosts"][1]["error"] is None


@pytest.mark.parametrize(
    ("up_at", "down_at", "left"),
    [(None, None, 0.0), (90.0, None, 290.0), (10.0, None, 210.0), (90.0, 95.0, 295.0)],
)
def test_the_cooldown_that_lasts_longest_is_shown(
    spec: FleetSpec, up_at: float | None, down_at: float | None, left: float
) -> None:
    record = PoolRecord("one", policy_state={"last_up_at": up_at, "last_down_at": down_at})
    tick = PoolTick(record, None, {}, frozenset())
    assert draw(spec, pools={"one": tick})["pools"][0]["cooldown_remaining_s"] == left


def test_paused_is_the_fleet_only_when_all_pools_are(spec: FleetSpec) -> None:
    ticks = {n: PoolTick(PoolRecord(n, paused=n == "one"), None, {}, frozenset()) for n in ("one", "two")}
    picture = draw(spec, pools=ticks)
    assert not picture["controller"]["paused"]
    assert [p["paused"] for p in picture["pools"]] == [True, False]
