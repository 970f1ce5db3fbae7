"""The search over a scaling block's knobs, with made-up outcomes: what it finds, and what the other part refuses."""

from __future__ import annotations

from random import Random

import pytest

from fleet_controller.simulate import Report, Trace
from fleet_controller.simulate.tune import changed, split, tune, value
from fleet_controller.spec.scaling import ScalingSpec

SPEC = ScalingSpec.model_validate(
    {"min_servers": 2, "max_servers": 10, "target_utilization": 0.5, "cooldown": {"scale_down": "5m"}}
)


def outcome(within: float, hours: float) -> Report:
    return Report(
        seconds=1, requests=1, completed=1, mean_wait_ms=None, latency_ms={}, longest_ms=None, target_ms=200,
        within_target=within, server_hours=hours, static_server_hours=1, peak_servers=1, scale_ups=0, scale_downs=0,
        direction_changes=0, turns=(),
    )  # fmt: skip


def by_utilization(limit: float):  # type: ignore[no-untyped-def]
    """Cheaper the busier the hosts are, and late over a limit."""

    def run(spec: ScalingSpec) -> Report:
        busy = spec.target_utilization or 0.0
        hours = 10 / busy + spec.cooldown.scale_down / 300 + spec.min_servers
        return outcome(1.0 if busy <= limit else 0.9, hours)

    return run


def test_the_cheapest_that_holds_on_both_parts() -> None:
    found = tune(SPEC, 0.995, by_utilization(0.8), by_utilization(0.8))
    assert found.best is not None and found.best_judged is not None
    best = dict(found.best.changes)
    assert best["target_utilization",] == 0.8
    assert best["cooldown", "scale_down"] == 60.0
    assert best["min_servers",] == 1
    assert found.best.report.server_hours < found.before.report.server_hours
    assert found.refused == []
    assert found.runs <= 40


def test_what_was_learned_by_heart_is_refused_and_the_next_one_judged() -> None:
    found = tune(SPEC, 0.995, by_utilization(0.8), by_utilization(0.7))
    assert found.best is not None and found.best_judged is not None
    assert dict(found.best.changes)["target_utilization",] == 0.7
    assert found.best_judged.within_target == 1.0
    assert {dict(one.changes)["target_utilization",] for one, _ in found.refused} == {0.8}


def test_where_nothing_holds_the_closest_is_told_and_nothing_is_proposed() -> None:
    found = tune(SPEC, 0.995, by_utilization(0.1), by_utilization(0.1))
    assert found.best is None and found.refused == []
    assert found.closest.report.within_target == 0.9


def test_one_that_fails_is_replaced_even_by_a_dearer_one() -> None:
    spec = changed(SPEC, {("target_utilization",): 0.9})
    found = tune(spec, 0.995, by_utilization(0.6), by_utilization(0.6))
    assert found.best is not None
    assert dict(found.best.changes)["target_utilization",] == 0.6


def test_knobs_are_read_and_set() -> None:
    new = changed(SPEC, {("cooldown", "scale_up"): 0.0, ("min_servers",): 3})
    assert value(new, ("cooldown", "scale_up")) == 0.0 and new.min_servers == 3
    assert value(SPEC, ("cooldown", "scale_up")) == 30.0
    assert new.cooldown.scale_down == SPEC.cooldown.scale_down


def test_the_parts_of_a_trace_are_the_whole() -> None:
    chance = Random(1)
    trace = Trace(tuple((10.0 * n, chance.randrange(9)) for n in range(101)), 10.0, 1000.0)
    search, judge = split(trace)
    assert search.requests + judge.requests == trace.requests
    assert search.seconds + judge.seconds == pytest.approx(trace.seconds)
    assert judge.began == 1000.0 + search.seconds and judge.rows[0][0] == 0.0
    arrivals = Trace(tuple((0.5 * n, 1) for n in range(10)), 0.0)
    assert [part.requests for part in split(arrivals)] == [6, 4]


@pytest.mark.parametrize(
    "rows", [((0.0, 1), (10.0, 1)), tuple((10.0 * n, 1 if n < 5 else 0) for n in range(20))]
)
def test_too_little_traffic_is_said(rows: tuple[tuple[float, int], ...]) -> None:
    with pytest.raises(ValueError, match="too short"):
        split(Trace(rows, 10.0))
