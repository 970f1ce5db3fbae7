"""What a server carries within the target, from what a batch costs: by hand, and against the simulation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.policies import Decision
from fleet_controller.simulate import ServiceCurve, Trace
from fleet_controller.simulate.run import Run, Setting
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import HostSample, PoolSample, Window
from fleet_wire.capacity import ModelLoad, batch_seconds, pool_capacity, true_curve
from fleet_wire.histogram import LatencyHistogram

T0 = 1_790_000_000.0
CURVE = ((1.0, 0.02), (4.0, 0.05), (8.0, 0.09))


def load(curve=CURVE, name="m", completed=100, items=100, max_batch=8):  # type: ignore[no-untyped-def]
    return ModelLoad(name, completed, items, max_batch, tuple(curve))


@pytest.mark.parametrize(("items", "seconds"), [(0.5, 0.02), (1, 0.02), (2.5, 0.035), (8, 0.09), (16, 0.18)])
def test_a_batch_between_known_sizes(items: float, seconds: float) -> None:
    assert batch_seconds(CURVE, items) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("points", "curve"),
    [
        ([(4, 0.05), (1, 0.02)], ((1, 0.02), (4, 0.05))),
        ([(1, 0.02), (1, 0.03), (2, 0.01)], ((1, 0.02), (2, 0.02))),  # a larger batch is not faster
        ([(1, math.nan), (0, 1.0), (-1, 1.0), (2, 0.0), (3, math.inf)], ()),
    ],
)
def test_only_what_can_be_true_is_taken(points: list[tuple[float, float]], curve: object) -> None:
    assert true_curve(points) == curve


@pytest.mark.parametrize(
    ("hosts", "target_ms", "expected"),
    [
        ([], 100, None),
        ([(load(()),)], 100, None),  # not learned yet
        ([(load(),)], 15, None),  # one request alone takes longer
        # 8 in 0.09 s is all that it can do: a long target comes near it, never over
        ([(load(),)] * 8, 100_000, pytest.approx(8 / 0.09, rel=0.02)),
        # two items a request: half of it
        ([(load(items=200),)] * 8, 100_000, pytest.approx(4 / 0.09, rel=0.02)),
        # half of the requests are for another model of the same cost: they share the device
        ([(load(), load(name="n"))] * 8, 100_000, pytest.approx(8 / 0.09, rel=0.02)),
        # a model that hardly anybody asks for says nothing
        ([(load(completed=9999, items=9999), load((), "n", 5, 5))] * 8, 100_000, pytest.approx(88.9, rel=0.02)),
        # a host twice as slow: the mean
        ([(load(),)] * 4 + [(load([(n, 2 * s) for n, s in CURVE]),)] * 4, 1e5, pytest.approx(66.7, rel=0.03)),
    ],
)  # fmt: skip
def test_by_hand(hosts: list[tuple[ModelLoad, ...]], target_ms: float, expected: object) -> None:
    assert pool_capacity(hosts, target_ms, 95) == expected


@pytest.mark.parametrize(
    ("base", "each", "batch", "target", "hosts", "percentile", "share"),
    [
        (0.034, 0.0217, 16, 0.5, 12, 95, 0.1),
        (0.034, 0.0217, 16, 0.5, 4, 99, 0.1),
        (0.02, 0.002, 32, 0.066, 12, 95, 0.1),
        (0.05, 0.15, 8, 1.6, 4, 99, 0.1),
        (0.01, 0.01, 16, 0.06, 4, 95, 0.1),
        (0.3, 0.0, 1, 0.9, 12, 95, 0.1),
        (0.034, 0.0217, 16, 0.5, 1, 95, 0.2),  # alone its batches swing more than the model knows
    ],
)
def test_the_simulation_agrees(
    base: float, each: float, batch: int, target: float, hosts: int, percentile: float, share: float
) -> None:
    curve = ServiceCurve(base, each, batch)
    points = [(float(n), curve.seconds_mean(n)) for n in (1, 2, 4, 8, 16, 32) if n <= batch]
    carries = pool_capacity([(load(points, max_batch=batch),)] * hosts, 1000 * target, percentile)
    assert carries is not None

    def within(rate: float) -> float:
        rows = tuple((10.0 * n, round(10 * rate * hosts)) for n in range(math.ceil(200 / rate) + 6))
        setting = Setting(
            curve=curve, target_ms=1000 * target, initial=hosts, planned=False, max_hosts=hosts, interval_s=60,
            warmup_s=20, compiled=False,
        )  # fmt: skip
        policy = lambda signal, now: Decision(desired=hosts, reason="")  # noqa: E731
        report = Run(Trace(rows, 10.0), ScalingSpec(max_servers=hosts), setting, policy).to_the_end()
        assert report.within_target is not None
        return report.within_target

    assert within((1 - share) * carries) >= percentile / 100
    assert within((1 + share) * carries) < percentile / 100


@given(
    st.lists(st.tuples(st.floats(-1, 1e3), st.floats(-1, 1e4) | st.just(math.nan)), max_size=5),
    st.integers(1, 512),
    st.integers(0, 10**6),
    st.floats(1, 1e5),
    st.sampled_from([50.0, 95.0, 99.9]),
)
@settings(max_examples=100, deadline=None)
def test_no_curve_makes_a_wrong_number(
    points: list[tuple[float, float]], batch: int, items: int, target_ms: float, percentile: float
) -> None:
    found = pool_capacity([(ModelLoad("m", 100, items, batch, tuple(points)),)] * 3, target_ms, percentile)
    assert found is None or 0 < found < math.inf


def test_the_signal_has_it_where_there_are_a_target_and_a_curve() -> None:
    def capacity(spec: ScalingSpec, models: tuple[ModelLoad, ...]) -> float | None:
        window = Window(spec)
        for n in range(3):
            at = T0 + 5 * n
            window.feed(
                at,
                PoolSample(at, "b", 0, 0, 0, 0, 0, LatencyHistogram()),
                [HostSample(at, "h", "0", 4.0 * n, 40 * n, 0, True, models)],
            )
        return window.signal(T0 + 10, ready=1, starting=0).capacity_rps_per_server

    target = ScalingSpec.model_validate({"max_servers": 3, "latency": {"target_ms": 200}})
    expected = pool_capacity([(load(),)], 200, target.latency.percentile if target.latency else 0)
    assert capacity(target, (load(),)) == expected
    assert capacity(target, ()) == pytest.approx(10)  # completed per busy second, as ever
    assert capacity(ScalingSpec(max_servers=3), (load(),)) == pytest.approx(10)
