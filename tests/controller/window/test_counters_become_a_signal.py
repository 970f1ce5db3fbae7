"""Window: counters in, Signal out; restarts, gaps and nonsense never make a rate that wasn't there."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import HostSample, Learned, PoolSample, Signal, Window
from fleet_wire.histogram import LatencyHistogram

T0 = 1_790_000_000.0


class Traffic:
    """A balancer's counters that grow by a steady rate."""

    def __init__(self, at: float = T0, source: str = "1@0", started_at: float | None = None) -> None:
        self.sample = PoolSample(at, source, 0, 0, 0, 0, 0, LatencyHistogram(), started_at)

    def on(self, seconds: float, rate: float, latency_ms: float = 50.0, errors: int = 0) -> PoolSample:
        n = round(seconds * rate)
        latency = self.sample.latency.copy()
        for _ in range(n):
            latency.record(latency_ms)
        self.sample = replace(
            self.sample,
            at=self.sample.at + seconds,
            arrivals=self.sample.arrivals + n + errors,
            completed=self.sample.completed + n,
            errors=self.sample.errors + errors,
            latency=latency,
        )
        return self.sample


def spec(**more: object) -> ScalingSpec:
    return ScalingSpec.model_validate({"max_servers": 5, **more})


def host(at: float, name: str, busy_s: float, completed: int = 0, **more: object) -> HostSample:
    return HostSample(at=at, name=name, source="a", busy_s=busy_s, completed=completed, **more)  # type: ignore[arg-type]


def test_nothing_is_known_before_two_samples() -> None:
    window = Window(spec())
    window.feed(T0, Traffic().sample)
    signal = window.signal(T0, ready=1, starting=0)
    assert (signal.rps, signal.arrivals_per_s, signal.p95_ms, signal.utilization) == (None, None, None, None)
    assert (signal.in_flight, signal.queued, signal.age_s) == (0, 0, 0)


def test_rates_and_percentiles_over_the_window() -> None:
    window, traffic = Window(spec()), Traffic()
    window.feed(T0, traffic.sample)
    now = T0
    for latency in [400.0] * 4 + [50.0] * 12:
        now += 5
        window.feed(now, traffic.on(5, 20, latency, errors=1))
    signal = window.signal(now, ready=2, starting=1)
    assert signal.rps == pytest.approx(20)
    assert signal.arrivals_per_s == pytest.approx(20.2)
    assert signal.p95_ms == pytest.approx(50, rel=0.02)  # the slow first 20 s have left the window
    assert (signal.completed, signal.errors, signal.ready, signal.starting) == (1200, 12, 2, 1)
    assert window.latency_ms(now)["p99"] == signal.p99_ms


def test_the_window_is_as_long_as_the_latency_target_says() -> None:
    window, traffic = Window(spec(latency={"target_ms": 100, "window": "10s", "percentile": 90})), Traffic()
    window.feed(T0, traffic.sample)
    for tick, latency in enumerate([400.0, 400.0, 50.0, 50.0], 1):
        window.feed(T0 + 5 * tick, traffic.on(5, 10, latency))
    signal = window.signal(T0 + 20, ready=1, starting=0)
    assert signal.completed == 100
    assert signal.percentile_ms == pytest.approx(50, rel=0.02)


def test_a_restarted_balancer_counts_from_zero_and_never_below() -> None:
    window, traffic = Window(spec()), Traffic()
    window.feed(T0, traffic.sample)
    window.feed(T0 + 5, traffic.on(5, 100))
    again = Traffic(at=T0 + 7, source="2@7", started_at=T0 + 7)
    window.feed(T0 + 10, again.on(3, 100))
    signal = window.signal(T0 + 10, ready=1, starting=0)
    assert signal.completed == 800
    assert signal.rps == pytest.approx(100)  # over the 8 s that were seen
    window.feed(T0 + 15, again.on(5, 100))
    assert window.signal(T0 + 15, ready=1, starting=0).rps == pytest.approx(100)


def test_a_balancer_that_ran_before_us_is_a_baseline_only() -> None:
    window = Window(spec())
    old = Traffic(at=T0 - 3600, started_at=T0 - 3600)
    window.feed(T0, old.on(3600, 10))
    assert window.signal(T0, ready=1, starting=0).completed == 0
    window.feed(T0 + 5, old.on(5, 10))
    assert window.signal(T0 + 5, ready=1, starting=0).completed == 50


def test_counters_that_go_back_under_the_same_name_say_nothing() -> None:
    window, traffic = Window(spec()), Traffic()
    window.feed(T0, traffic.on(0, 0))
    window.feed(T0 + 5, traffic.on(5, 10))
    window.feed(T0 + 10, Traffic(at=T0 + 10).sample)
    signal = window.signal(T0 + 10, ready=1, starting=0)
    assert signal.rps == pytest.approx(10)
    assert signal.completed == 50


def test_missing_samples_make_the_signal_older() -> None:
    window, traffic = Window(spec()), Traffic()
    window.feed(T0, None)
    assert window.signal(T0 + 3, ready=1, starting=0).age_s == 3
    window.feed(T0 + 5, traffic.sample)
    for tick in range(2, 8):
        window.feed(T0 + 5 * tick, None)
    assert window.signal(T0 + 35, ready=1, starting=0).age_s == 30
    assert Window(spec()).signal(T0, ready=1, starting=0).age_s > 1e6


def test_a_short_gap_is_bridged_and_a_long_one_is_not() -> None:
    window, traffic = Window(spec()), Traffic()
    window.feed(T0, traffic.sample)
    window.feed(T0 + 20, traffic.on(20, 10))
    assert window.signal(T0 + 20, ready=1, starting=0).rps == pytest.approx(10)
    window.feed(T0 + 620, traffic.on(600, 10))
    assert window.signal(T0 + 620, ready=1, starting=0).rps is None
    window.feed(T0 + 625, traffic.on(5, 30))
    assert window.signal(T0 + 625, ready=1, starting=0).rps == pytest.approx(30)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_jump_makes_no_rate(jump: float) -> None:
    window, traffic = Window(spec()), Traffic()
    for tick in range(3):
        window.feed(T0 + 5 * tick, traffic.on(5, 10))
    now = T0 + 15 + jump
    window.feed(now, traffic.on(5, 10))
    assert window.signal(now, ready=1, starting=0).rps in (None, pytest.approx(10))
    window.feed(now + 5, traffic.on(5, 10))
    signal = window.signal(now + 5, ready=1, starting=0)
    assert signal.rps == pytest.approx(10)
    assert signal.age_s == 0


def test_two_balancers_add_up() -> None:
    window, one, two = Window(spec()), Traffic(source="1"), Traffic(source="2")
    for tick in range(4):
        window.feed(T0 + 5 * tick, [one.on(5, 10), two.on(5, 30)])
    signal = window.signal(T0 + 15, ready=1, starting=0)
    assert signal.rps == pytest.approx(40)
    assert signal.arrivals_per_s == pytest.approx(40)


def test_utilization_is_the_mean_over_ready_hosts() -> None:
    window = Window(spec())
    window.feed(T0, None, [host(T0, "a", 0), host(T0, "b", 100), host(T0, "c", 0, ready=False)])
    at = T0 + 10
    window.feed(at, None, [host(at, "a", 8), host(at, "b", 102), host(at, "c", 10, ready=False)])
    assert window.signal(at, ready=2, starting=1).utilization == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("shares", "ready", "expected"),
    [
        ([0.2, 0.2], 3, (0.2 + 0.2 + 0.7) / 3),  # below target: the silent one counts as on target
        ([0.9, 0.9], 3, 0.7),  # above: as idle, but never past the target
        ([1.0, 1.0, 1.0], 4, 0.75),
        ([0.2], 3, None),  # fewer than half: nobody knows
    ],
)
def test_silent_hosts_neither_add_nor_remove_a_server(
    shares: list[float], ready: int, expected: float | None
) -> None:
    window = Window(spec(target_utilization=0.7))
    window.feed(T0, None, [host(T0, f"h{i}", 0) for i in range(len(shares))])
    window.feed(T0 + 10, None, [host(T0 + 10, f"h{i}", 10 * s) for i, s in enumerate(shares)])
    got = window.signal(T0 + 10, ready=ready, starting=0).utilization
    assert got == (pytest.approx(expected) if expected is not None else None)


def test_a_restarted_agent_starts_a_new_count() -> None:
    window = Window(spec())
    window.feed(T0, None, [host(T0, "a", 1000)])
    window.feed(T0 + 5, None, [HostSample(at=T0 + 5, name="a", source="b", busy_s=1, completed=3)])
    assert window.signal(T0 + 5, ready=1, starting=0).utilization is None
    window.feed(T0 + 10, None, [HostSample(at=T0 + 10, name="a", source="b", busy_s=3, completed=3)])
    assert window.signal(T0 + 10, ready=1, starting=0).utilization == pytest.approx(0.4)


def test_capacity_is_learned_from_busy_servers_only() -> None:
    window = Window(spec())
    busy, done = 0.0, 0
    for tick in range(100):
        now = T0 + 5 * tick
        window.feed(now, None, [host(now, "a", busy, done)])
        used = 0.1 if tick < 20 else 0.6
        if tick == 20:
            assert window.learned.capacity_rps_per_server is None
        busy, done = busy + 5 * used, done + round(5 * used * 40)
    learned = window.learned.capacity_rps_per_server
    assert learned == pytest.approx(40, rel=0.02)
    kept = Learned.model_validate_json(window.learned.model_dump_json())
    assert Window(spec(), kept).signal(T0, ready=0, starting=0).capacity_rps_per_server == learned


def test_start_up_time_is_the_median_of_the_last_starts() -> None:
    window = Window(spec())
    assert window.signal(T0, ready=0, starting=0).startup_s is None
    for seconds in [600, 600, 600, 30, 31, 32, 33, 34, 35, 3600, math.nan, -5]:
        window.started(seconds)
    assert window.signal(T0, ready=0, starting=0).startup_s == 33


def test_after_a_server_joined_only_new_latencies_count() -> None:
    window, traffic = Window(spec()), Traffic()
    now = T0
    window.feed(now, traffic.sample)
    window.signal(now, ready=1, starting=1)
    for _ in range(12):
        now += 5
        window.feed(now, traffic.on(5, 20, 900.0))
        assert window.signal(now, ready=1, starting=1).p95_ms == pytest.approx(900, rel=0.02)
    assert window.signal(now, ready=2, starting=0).p95_ms is None
    for _ in range(2):  # what waited for it
        now += 5
        window.feed(now, traffic.on(5, 20, 700.0))
        assert window.signal(now, ready=2, starting=0).p95_ms is None
    now += 5
    window.feed(now, traffic.on(5, 20, 40.0))
    assert window.signal(now, ready=2, starting=0).p95_ms == pytest.approx(40, rel=0.02)
    assert window.latency_ms(now)["p95"] == pytest.approx(900, rel=0.02)
    for _ in range(12):
        now += 5
        window.feed(now, traffic.on(5, 20, 40.0))
        assert window.signal(now, ready=2, starting=0).p95_ms == pytest.approx(40, rel=0.02)


def test_queued_counts_the_balancer_and_the_hosts() -> None:
    window = Window(spec())
    sample = replace(Traffic().sample, in_flight=9, queued=4)
    window.feed(T0, sample, [host(T0, "a", 0, queued=3), host(T0, "b", 0, queued=2)])
    signal = window.signal(T0, ready=2, starting=0)
    assert (signal.queued, signal.in_flight) == (9, 9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_cannot_be_true_is_not_known(value: float) -> None:
    signal = Signal(ready=1, p95_ms=value, utilization=value, rps=value, completed=value, age_s=value)
    assert (signal.p95_ms, signal.utilization, signal.rps, signal.completed) == (None, None, None, 0)
    assert Signal.from_json(signal.to_json()) == signal


wild = st.one_of(st.floats(), st.integers(-(10**15), 10**15).map(float))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-4000, 4000), wild, wild, wild, wild, st.booleans(), st.sampled_from(["1", "2"]), wild
        ),
        max_size=20,
    )
)
def test_no_input_makes_a_wrong_number(
    rows: list[tuple[float, float, float, float, float, bool, str, float]],
) -> None:
    window, now = Window(spec(target_utilization=0.7)), T0
    for step, at, arrivals, completed, busy, lost, source, started in rows:
        now += step
        latency = LatencyHistogram()
        latency.record(10.0)
        sample = PoolSample(at, source, arrivals, completed, 0, 0, 0, latency, started)  # type: ignore[arg-type]
        hosts = [HostSample(at, "h", source, busy, completed, ready=not lost)]  # type: ignore[arg-type]
        window.feed(now, None if lost else sample, hosts)
        signal = window.signal(now, ready=1, starting=0)
        for name, value in signal.model_dump().items():
            assert value is None or (math.isfinite(value) and value >= 0), name
        assert signal.utilization is None or signal.utilization <= 1.0 + 1e-9
        assert Signal.from_json(signal.to_json()) == signal
