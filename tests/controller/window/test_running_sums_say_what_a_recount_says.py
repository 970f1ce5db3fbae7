"""The window keeps running sums; this counts every slice anew at every look, and both must say the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import (
    ARRIVALS_S,
    CAPACITY_MIN_UTILIZATION,
    CAPACITY_TAU_S,
    SETTLE_S,
    UTILIZATION_S,
    HostSample,
    PoolSample,
    Signal,
    Window,
)
from fleet_wire.histogram import GAMMA, LatencyHistogram, merged

T0 = 1_790_000_000.0


class Recount:
    """The same Signal from all samples ever fed, by the definitions. Samples are true and clocks go forward."""

    def __init__(self, spec: ScalingSpec) -> None:
        self.spec = spec
        self.pool: list[tuple[float, float, int, int, int, LatencyHistogram]] = []
        self.hosts: dict[str, list[tuple[float, float, float, int]]] = {}
        self.last_pool: PoolSample | None = None
        self.last_host: dict[str, tuple[float, HostSample]] = {}
        self.ready: int | None = None
        self.joined: float | None = None
        self.capacity: float | None = None
        self.seen = self.fed = T0

    def feed(self, now: float, pool: PoolSample | None, hosts: list[HostSample]) -> None:
        self.fed = now
        if pool is not None:
            before = self.last_pool
            self.last_pool, self.seen = pool, now
            if before is not None and before.source == pool.source and 0 < pool.at - before.at <= 120:
                done, wrong = pool.completed - before.completed, pool.errors - before.errors
                counts = (pool.arrivals - before.arrivals, done, wrong, pool.latency.since(before.latency))
                self.pool.append((now - (pool.at - before.at), now, *counts))
        for host in hosts:
            at, old = self.last_host.get(host.name, (now, None))
            self.last_host[host.name] = (now, host)
            if old is None or old.source != host.source or not host.ready:
                self.hosts[host.name] = []
            elif 0 < host.at - old.at <= 120 and now - at <= 120:
                seconds = host.at - old.at
                busy = min(host.busy_s - old.busy_s, seconds)
                self.hosts[host.name].append((now, seconds, busy, host.completed - old.completed))
        for slices in self.hosts.values():
            slices[:] = [s for s in slices if s[0] > now - UTILIZATION_S]
        fresh = [s[-1] for s in self.hosts.values() if s and s[-1][0] == now]
        seconds, busy = sum(s[1] for s in fresh), sum(s[2] for s in fresh)
        if seconds and busy / seconds >= CAPACITY_MIN_UTILIZATION and sum(s[3] for s in fresh):
            here = sum(s[3] for s in fresh) / busy
            share = 1 - math.exp(-(seconds / len(fresh)) / CAPACITY_TAU_S)
            self.capacity = here if self.capacity is None else self.capacity + share * (here - self.capacity)

    def signal(self, now: float, ready: int) -> dict[str, Any]:
        if self.ready is not None and ready > self.ready:
            self.joined = now
        self.ready = ready
        slices = [s for s in self.pool if s[1] > now - 60]
        recent = [s for s in slices if s[1] > now - ARRIVALS_S]
        settled = slices
        if self.joined is not None and now - self.joined <= 60 + SETTLE_S:
            settled = [s for s in slices if (s[0] + s[1]) / 2 >= self.joined + SETTLE_S]
        latency = merged(s[5] for s in settled)
        all_ = merged(s[5] for s in slices)
        limit = math.ceil(math.log(200.0) / math.log(GAMMA))
        shares = [sum(x[2] for x in s) / sum(x[1] for x in s) for s in self.hosts.values() if s]
        known = shares and 2 * len(shares) >= ready
        return {
            "rps": sum(s[3] for s in slices) / covered(slices) if slices else None,
            "arrivals_per_s": sum(s[2] for s in recent) / covered(recent) if recent else None,
            "utilization": self.utilization(shares, ready) if known else None,
            "p50_ms": latency.quantile(0.5),
            "p95_ms": latency.quantile(0.95),
            "p99_ms": latency.quantile(0.99),
            "percentile_ms": latency.quantile(0.9),
            "late_share": sum(n for i, n in all_.counts.items() if i > limit) / all_.count
            if all_.count
            else None,
            "completed": sum(s[3] for s in slices),
            "errors": sum(s[4] for s in slices),
            "capacity_rps_per_server": self.capacity,
        }

    @staticmethod
    def utilization(shares: list[float], ready: int) -> float:
        missing, mean = max(0, ready - len(shares)), sum(shares) / len(shares)
        if not missing:
            return mean
        if mean < 0.6:
            return (sum(shares) + 0.6 * missing) / (len(shares) + missing)
        return max(0.6, sum(shares) / (len(shares) + missing))


def covered(slices: list[tuple[float, float, int, int, int, LatencyHistogram]]) -> float:
    total, reach = 0.0, -math.inf
    for s in sorted(slices, key=lambda s: s[0]):
        total += max(0.0, s[1] - max(s[0], reach))
        reach = max(reach, s[1])
    return total


host = st.tuples(
    st.sampled_from(["on", "on", "on", "lost", "new", "starting"]), st.floats(0, 1.2), st.integers(0, 9)
)
look = st.fixed_dictionaries(
    {
        "seconds": st.sampled_from([1.0, 4.9, 5.0, 5.3, 31.0, 70.0, 130.0]),
        "pool": st.sampled_from(["on", "on", "on", "on", "lost", "new"]),
        "latencies": st.lists(st.sampled_from([3.0, 40.0, 199.0, 260.0, 900.0]), max_size=6),
        "ready": st.integers(0, 4),
        "hosts": st.lists(
            host,
            min_size=3,
            max_size=3,
        ),
    }
)


@given(st.lists(look, min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_the_signal_is_that_of_a_recount(looks: list[dict[str, Any]]) -> None:
    spec = ScalingSpec.model_validate(
        {"max_servers": 5, "target_utilization": 0.6, "latency": {"target_ms": 200, "percentile": 90}}
    )
    window, recount, now = Window(spec), Recount(spec), T0
    pool = PoolSample(now, "0", 0, 0, 0, 0, 0, LatencyHistogram())
    hosts = [HostSample(now, f"h{n}", "0", 0.0, 0) for n in range(3)]
    for number, step in enumerate(looks):
        now += step["seconds"]
        latency = pool.latency.copy() if step["pool"] != "new" else LatencyHistogram()
        latency.record_all(step["latencies"])
        n = len(step["latencies"])
        if step["pool"] == "new":
            pool = PoolSample(now, str(number), n, n, 1, 0, 0, latency)
        else:
            pool = PoolSample(
                now, pool.source, pool.arrivals + n + 1, pool.completed + n, pool.errors + 1, 2, 1, latency
            )
        answered = []
        for h, (what, busy, done) in enumerate(step["hosts"]):
            old = hosts[h]
            hosts[h] = HostSample(
                now, old.name, str(number) if what == "new" else old.source, old.busy_s + busy * step["seconds"],
                old.completed + done, 0, what != "starting",
            )  # fmt: skip
            if what != "lost":
                answered.append(hosts[h])
        given_pool = None if step["pool"] == "lost" else pool
        window.feed(now, given_pool, answered)
        recount.feed(now, given_pool, answered)
        signal = window.signal(now, ready=step["ready"], starting=0)
        for name, value in recount.signal(now, step["ready"]).items():
            said = getattr(signal, name)
            assert said == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)), (
                name,
                number,
            )
        assert Signal.from_json(signal.to_json()) == signal


def test_sums_do_not_drift_over_many_looks() -> None:
    spec = ScalingSpec(max_servers=1)
    window, busy = Window(spec), 0.0
    for n in range(8_000):
        busy += 0.1 * (n % 7)
        window.feed(T0 + n, None, [HostSample(T0 + n, "h", "0", busy, n)])
    last = [0.1 * (n % 7) for n in range(8_000 - 30, 8_000)]
    assert window.signal(T0 + 7_999, ready=1, starting=0).utilization == pytest.approx(
        sum(last) / 30, abs=1e-9
    )
