"""The clairvoyant: never late with its hosts, and no dearer than who has to guess."""

from __future__ import annotations

import pytest

from fleet_controller.simulate import ServiceCurve, Setting, Trace, oracle, simulated
from fleet_controller.simulate.oracle import per_second, seen_ahead, with_starts
from fleet_controller.spec.scaling import ScalingSpec

CURVE = ServiceCurve(base_s=0.05, per_request_s=0.15, max_batch=8)  # 6.4 requests/s


@pytest.mark.parametrize(
    ("need", "start", "wanted"),
    [
        ([1, 1, 1, 2, 2, 1, 1], 2, [1, 2, 2, 2, 2, 1, 1]),  # begun two looks earlier
        (
            [2, 1, 1, 2, 1, 1, 1],
            2,
            [2, 2, 2, 2, 1, 1, 1],
        ),  # a gap as long as a start is kept
        ([2, 1, 1, 1, 1, 2, 1], 2, [2, 1, 1, 2, 2, 2, 1]),
        ([1, 3, 1], 5, [3, 3, 1]),
    ],
)
def test_starts_come_before_the_need(need: list[int], start: int, wanted: list[int]) -> None:
    assert with_starts(need, start) == wanted


def test_rates_by_the_second() -> None:
    assert per_second(Trace(((0.0, 20), (10.0, 40)), 10.0))[:20] == [2.0] * 10 + [4.0] * 10
    assert per_second(Trace(((0.0, 1), (0.2, 1), (3.7, 1)), 0.0)) == [2.0, 0.0, 0.0, 1.0]
    assert seen_ahead([1.0] * 30) == [1.0] * 30
    assert seen_ahead([0.0] * 10 + [10.0] * 10)[:11] == pytest.approx([float(n) for n in range(11)])


def test_it_holds_the_share_with_less_than_the_policy_takes() -> None:
    rates = [10.0] * 30 + [30.0] * 30 + [10.0] * 30
    trace = Trace(tuple((10.0 * n, round(10 * rate)) for n, rate in enumerate(rates)), 10.0)
    spec = ScalingSpec.model_validate({"min_servers": 1, "max_servers": 12, "latency": {"target_ms": 1500}})
    setting = Setting(curve=CURVE, initial=3, target_ms=1500, prices=(1.0, 2.0))
    known = oracle(trace, spec, setting, 0.99)
    guessed = simulated(trace, spec, setting)
    assert known is not None
    assert known.within_target >= 0.99
    assert known.server_hours < guessed.server_hours
    assert known.peak_servers >= 5  # 30 requests/s, 6.4 a host at the very most
    assert known.cost is not None and guessed.cost is not None and known.cost < guessed.cost
    # the first host costs 1, the others 2
    assert guessed.cost == pytest.approx(2 * guessed.server_hours - guessed.seconds / 3600, rel=1e-6)
    assert guessed.static_cost == pytest.approx(2 * guessed.static_server_hours - guessed.seconds / 3600)


def test_where_no_number_of_hosts_is_enough_there_is_none() -> None:
    trace = Trace(tuple((10.0 * n, 500) for n in range(12)), 10.0)
    spec = ScalingSpec(min_servers=1, max_servers=2)
    assert oracle(trace, spec, Setting(curve=CURVE, target_ms=1500), 0.99) is None
    assert oracle(trace, spec, Setting(curve=CURVE), 0.99) is None  # nothing to hold
