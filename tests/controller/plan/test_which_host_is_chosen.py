"""Each rule of choice.py, as a row: the hosts, what is known, and the order in which they start or stop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.plan.choice import Market, hurry, measured, to_start, to_stop
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec, ScalingSpec
from fleet_controller.window import Signal
from fleet_wire.agent import AgentStatus

NEVER = Market()
OLD = {"gpu": "old"}
SLOW, FAST = {"startup_s": 90.0}, {"startup_s": 30.0}
POWER = Market(price_per_kwh=0.5)


def hosts(**said: dict[str, Any]) -> list[HostSpec]:
    return [HostSpec.model_validate({"name": n, "address": "local", **keys}) for n, keys in said.items()]


def records(**said: dict[str, Any]) -> dict[str, HostRecord]:
    return {name: HostRecord(name, **keys) for name, keys in said.items()}


def price(hourly: float, **more: Any) -> dict[str, Any]:
    return {"price_per_hour": hourly, **more}


SPOT = price(1.0, spot=True)

STARTS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ("as in fleet.yaml", {"a": {}, "b": {}}, {}, {}, "ab"),
    ("the cheapest", {"a": price(3.0), "b": price(2.0)}, {}, {}, "ba"),
    ("by what an hour's work costs", {"a": price(2.0), "b": price(3.0, speed=2.0)}, {}, {}, "ba"),
    ("what was measured", {"a": price(2.0), "b": price(3.0)}, {}, {"market": Market({"a": 90.0, "b": 200.0})}, "ba"),
    ("nearly equal is equal", {"a": price(2.0), "b": price(2.0)}, {}, {"market": Market({"a": 99, "b": 104})}, "ab"),
    (
        "one that was never measured is like its kind",
        {"a": price(3.0, labels=OLD), "b": price(4.0, labels={"gpu": "new"}), "c": price(2.9, labels=OLD)},
        {},
        {"market": Market({"c": 50.0, "b": 200.0})},
        "bca",
    ),
    ("electricity is a price", {"a": {"watts": 700}, "b": {"watts": 300}}, {}, {"market": POWER}, "ba"),
    ("and beside the other one", {"a": price(1.0, watts=100), "b": price(0.9, watts=700)}, {}, {"market": POWER}, "ab"),
    ("of equal prices the fewest watts", {"a": price(1.0, watts=700), "b": price(1.0, watts=300)}, {}, {}, "ba"),
    ("then the one that is ready first", {"a": {}, "b": {}}, {"a": SLOW, "b": FAST}, {}, "ba"),
    ("in a hurry that first", {"a": price(1.0), "b": price(9.0)}, {"a": SLOW, "b": FAST}, {"hurry": True}, "ba"),
    ("without a hurry not", {"a": price(1.0), "b": price(9.0)}, {"a": SLOW, "b": FAST}, {}, "ab"),
    ("not for seconds", {"a": price(9.0), "b": {}}, {"a": FAST, "b": {"startup_s": 32.0}}, {"hurry": True}, "ba"),
    ("one that failed comes last", {"a": price(1.0), "b": price(9.0)}, {"a": {"failures": 1}}, {"hurry": True}, "ba"),
    ("spot hosts first above the floor", {"a": {}, "b": {"spot": True}, "c": {}}, {}, {}, "bac"),
    ("spot hosts last under it", {"a": price(9.0), "b": SPOT, "c": price(8.0)}, {}, {"floor_lacks": 2}, "cab"),
    ("as many as the floor lacks", {"a": price(9.0), "b": SPOT, "c": price(8.0)}, {}, {"floor_lacks": 1}, "cba"),
    ("spot where there is no other", {"a": {"spot": True}}, {}, {"floor_lacks": 1}, "a"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "known", "how", "order"), [c[1:] for c in STARTS], ids=[c[0] for c in STARTS]
)
def test_to_start(said: dict[str, Any], known: dict[str, Any], how: dict[str, Any], order: str) -> None:
    found = to_start(hosts(**said), records(**known), **({"market": NEVER} | how))
    assert "".join(h.name for h in found) == order


STOPS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("as in fleet.yaml", {"a": {}, "b": {}}, {}, "ab"),
    ("the dearest", {"a": price(1.0), "b": price(2.0)}, {}, "ba"),
    ("by what an hour's work costs", {"a": price(3.0, speed=2.0), "b": price(2.0)}, {}, "ba"),
    ("the idlest of equals", {"a": {}, "b": {}}, {"in_flight": {"a": 2}}, "ba"),
    ("money before idleness", {"a": price(2.0), "b": price(1.0)}, {"in_flight": {"a": 9}}, "ab"),
    ("never a protected one", {"a": {"protect": True}, "b": {}}, {}, "b"),
    ("spot hosts first when the others are the floor", {"a": price(9.0), "b": SPOT}, {"floor": 1}, "ba"),
    ("by price above it", {"a": price(9.0), "b": SPOT, "c": price(8.0)}, {"floor": 1}, "abc"),
    ("by price without a floor", {"a": price(9.0), "b": SPOT}, {"floor": 0}, "ab"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "how", "order"), [c[1:] for c in STOPS], ids=[c[0] for c in STOPS])
def test_to_stop(said: dict[str, Any], how: dict[str, Any], order: str) -> None:
    known = hosts(**said)
    steady = sum(not h.spot for h in known)
    found = to_stop(known, {}, NEVER, how.get("in_flight", {}), steady, how.get("floor", 0))
    assert "".join(h.name for h in found) == order


host = st.fixed_dictionaries(
    {
        "price_per_hour": st.sampled_from([None, 0.0, 1.0, 2.5]),
        "watts": st.sampled_from([None, 300.0]),
        "speed": st.sampled_from([None, 0.5, 2.0]),
        "spot": st.booleans(),
        "protect": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(host, max_size=8),
    speeds=st.lists(st.sampled_from([0.0, 1.0, 1.1, 40.0]), min_size=8, max_size=8),
    starts=st.lists(st.sampled_from([None, 1.0, 60.0]), min_size=8, max_size=8),
    floor=st.integers(0, 9),
    rush=st.booleans(),
)
def test_the_order_is_total_and_the_same_each_time(
    said: list[dict[str, Any]], speeds: list[float], starts: list[float | None], floor: int, rush: bool
) -> None:
    known = hosts(**{f"h{n}": keys for n, keys in enumerate(said)})
    seen = {h.name: HostRecord(h.name, startup_s=s) for h, s in zip(known, starts, strict=False)}
    market = Market({h.name: s for h, s in zip(known, speeds, strict=False)}, 0.3)
    first = to_start(known, seen, market, floor, rush)
    assert sorted(h.name for h in first) == sorted(h.name for h in known)
    assert first == to_start(known, seen, market, floor, rush)
    steady = sum(not h.spot for h in known)
    assert not any(h.spot for h in first[: min(floor, steady)])
    going = to_stop(known, seen, market, {}, steady, floor)
    assert sorted(h.name for h in going) == sorted(h.name for h in known if not h.protect)
    assert going == to_stop(known, seen, market, {}, steady, floor)
    left = steady
    for number, gone in enumerate(going):
        if not gone.spot and left <= floor:
            assert not any(h.spot for h in going[number:]), (
                "a steady host of the floor goes before a spot host"
            )
        left -= not gone.spot


TARGET = ScalingSpec.model_validate({"latency": {"percentile": 95, "target_ms": 100}})


@pytest.mark.parametrize(
    ("signal", "floor", "wanted"),
    [
        (None, 1, False),
        (Signal(ready=2, queued=0, p95_ms=90.0), 2, False),
        (Signal(ready=1, queued=0, p95_ms=90.0), 2, True),
        (Signal(ready=2, queued=1, p95_ms=90.0), 1, False),
        (Signal(ready=2, queued=2, p95_ms=90.0), 1, True),
        (Signal(ready=0, queued=1), 0, True),
        (Signal(ready=2, queued=0, p95_ms=101.0), 1, True),
        (Signal(ready=2), 1, False),
    ],
)
def test_time_counts_more_than_money_while_too_few_serve(
    signal: Signal | None, floor: int, wanted: bool
) -> None:
    assert hurry(signal, TARGET, floor) is wanted


def test_a_host_is_as_fast_as_its_best_batches_of_all_models() -> None:
    def status(**curves: list[tuple[float, float]]) -> AgentStatus:
        models = [{"name": n, "version": "1", "ready": True, "service_curve": c} for n, c in curves.items()]
        return AgentStatus.model_validate(
            {
                "fleet": "f", "host": "h", "action_id": "x", "release": "r", "pid": 7, "started_at": 1.0, "at": 2.0,
                "state": "ready", "models": models, "in_flight": 0, "queued": 0, "completed": 0, "errors": 0,
                "busy_s": 0.0, "latency": {}, "device": "cpu", "device_memory": {},
            }
        )  # fmt: skip

    one = status(a=[(1, 0.010), (8, 0.040)], b=[(2, 0.01)])
    assert measured(one, ["a"]) == pytest.approx(200.0)
    assert measured(one, ["a", "b"]) == pytest.approx(100.0)
    assert measured(status(a=[]), ["a"]) is None
    assert measured(one, ["a", "other"]) is None
