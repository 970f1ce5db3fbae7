"""The event loop: arrivals, batches, starts and looks of the controller, in the order of their times.

The window, the policies and their state are the real ones; hosts are SimHost. Requests go to the ready
host with the fewest in flight that has room, else they wait in the pool's queue, first in first out.
Deterministic for a seed.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from random import Random

from fleet_controller.policies import PolicyState, decide
from fleet_controller.simulate.hosts import ServiceCurve, SimHost
from fleet_controller.simulate.report import Report, Turn
from fleet_controller.simulate.trace import Trace
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import HostSample, PoolSample, Window
from fleet_wire.histogram import LatencyHistogram

LINGER_S = 3600.0  # after the trace, requests that still wait get this long


def simulate(
    trace: Trace,
    spec: ScalingSpec,
    *,
    startup_s: float = 60.0,
    curve: ServiceCurve | None = None,
    slots: int | None = None,
    interval_s: float = 5.0,
    target_ms: float | None = None,
    start_at: float = 0.0,
    initial: int | None = None,
    warmup_s: float = 0.0,
    seed: int = 1,
) -> Report:
    """Run `trace` against a pool that scales by `spec`.

    A host takes `startup_s` to start and at most `slots` requests at a time (None: any number). `start_at`
    is the Unix time of the trace's beginning, for schedules. `initial` hosts are ready then (None:
    min_servers). Requests that arrive in the first `warmup_s` seconds don't count. `target_ms` None: the
    one of `spec.latency`.
    """
    if target_ms is None and spec.latency is not None:
        target_ms = spec.latency.target_ms
    ready = spec.min_servers if initial is None else initial
    run = _Run(
        trace,
        spec,
        curve or ServiceCurve(),
        startup_s,
        slots,
        interval_s,
        start_at,
        warmup_s,
        seed,
        target_ms,
    )
    return run.to_the_end(ready)


class _Run:
    """One run's events and counters. Times are seconds from the start of the trace."""

    def __init__(
        self,
        trace: Trace,
        spec: ScalingSpec,
        curve: ServiceCurve,
        startup_s: float,
        slots: int | None,
        interval_s: float,
        start_at: float,
        warmup_s: float,
        seed: int,
        target_ms: float | None,
    ) -> None:
        self.trace, self.spec, self.curve = trace, spec, curve
        self.startup_s, self.slots, self.interval_s = startup_s, slots, interval_s
        self.start_at, self.warmup_s, self.target_ms = start_at, warmup_s, target_ms
        self.chance = Random(seed)
        self.window = Window(spec)
        self.state = PolicyState()
        self.hosts: list[SimHost] = []
        self.queue: deque[float] = deque()
        self.events: list[tuple[float, int, str, SimHost | None]] = []
        self.made = self.arrived = self.answered = self.flying = 0
        self.arriving = True  # whether the trace has more
        self.seen = LatencyHistogram()  # as the balancer counts
        self.counted = LatencyHistogram()  # after the warm-up
        self.waits = self.late = self.due = 0.0
        self.server_s = 0.0
        self.turns: list[Turn] = []

    def to_the_end(self, initial: int) -> Report:
        arrivals = self.trace.arrivals(self.chance)
        for _ in range(initial):
            self._add(0.0, phase="ready")
        self._look(0.0)
        self._next_arrival(arrivals)
        end = over = self.trace.seconds
        while self.events:
            now, _, kind, host = heapq.heappop(self.events)
            if now >= end and not self.flying and kind != "arrival" and not self.arriving:
                break  # what is still to start has nothing to do, and costs nothing that was asked about
            over = max(over, now)
            if kind == "arrival":
                self._arrive(now)
                self._next_arrival(arrivals)
            elif kind == "done" and host is not None:
                self._answer(now, host)
            elif kind == "ready" and host is not None and host in self.hosts:
                host.phase = "ready"
                self.window.started(now - host.began)
                self._drain_queue(now)
            elif kind == "look" and (now < end or self.flying) and now < end + LINGER_S:
                self._look(now)
        for host in self.hosts:
            self.server_s += over - host.began
        return self._report(over)

    def _at(self, when: float, kind: str, host: SimHost | None = None) -> None:
        self.made += 1
        heapq.heappush(self.events, (when, self.made, kind, host))

    def _next_arrival(self, arrivals: Iterator[float]) -> None:
        when = next(arrivals, None)
        self.arriving = when is not None
        if when is not None:
            self._at(when, "arrival")

    def _add(self, now: float, phase: str = "starting") -> None:
        self.made += 1
        host = SimHost(f"sim-{self.made}", now)
        self.hosts.append(host)
        if phase == "ready":
            host.phase = "ready"
        else:
            self._at(now + self.startup_s, "ready", host)

    def _arrive(self, now: float) -> None:
        self.arrived += 1
        self.flying += 1
        if now >= self.warmup_s:
            self.due += 1
        self.queue.append(now)
        self._drain_queue(now)

    def _drain_queue(self, now: float) -> None:
        while self.queue:
            open_ = [
                h
                for h in self.hosts
                if h.phase == "ready" and (self.slots is None or h.in_flight < self.slots)
            ]
            if not open_:
                return
            host = min(open_, key=lambda h: h.in_flight)
            host.waiting.append(self.queue.popleft())
            self._work(now, host)

    def _work(self, now: float, host: SimHost) -> None:
        done = host.take(now, self.curve, self.chance)
        if done is None:
            return
        self._at(done, "done", host)
        self.waits += sum(now - arrived for arrived in host.batch if arrived >= self.warmup_s)

    def _answer(self, now: float, host: SimHost) -> None:
        for arrived in host.finish(now):
            ms = (now - arrived) * 1000
            self.seen.record(ms)
            self.answered += 1
            self.flying -= 1
            if arrived >= self.warmup_s:
                self.counted.record(ms)
                self.late += self.target_ms is not None and ms > self.target_ms
        self._drain_queue(now)
        self._work(now, host)
        self._stop_if_empty(now, host)

    def _stop_if_empty(self, now: float, host: SimHost) -> None:
        if host.phase == "draining" and not host.in_flight and host in self.hosts:
            self.hosts.remove(host)
            self.server_s += now - host.began

    def _look(self, now: float) -> None:
        wall = self.start_at + now
        ready = [h for h in self.hosts if h.phase == "ready"]
        starting = [h for h in self.hosts if h.phase == "starting"]
        at_hosts = sum(h.in_flight for h in self.hosts)
        pool = PoolSample(
            wall,
            "sim",
            self.arrived,
            self.answered,
            0,
            at_hosts,
            len(self.queue),
            self.seen.copy(),
            self.start_at,
        )
        samples = [HostSample(wall, h.name, "sim", h.busy_s(now), h.completed, len(h.waiting)) for h in ready]
        self.window.feed(wall, pool, samples)
        signal = self.window.signal(wall, ready=len(ready), starting=len(starting))
        before = self.state.desired
        decision, self.state = decide(self.spec, self.state, signal, wall)
        if before is None or decision.desired != before:
            self.turns.append(Turn(at=now, servers=decision.desired, reason=decision.reason))
        self._become(now, decision.desired, ready, starting)
        self._at(now + self.interval_s, "look")

    def _become(self, now: float, desired: int, ready: list[SimHost], starting: list[SimHost]) -> None:
        """Start what is missing; of too many, let go first those that still start, then the least busy."""
        surplus = len(ready) + len(starting) - desired
        for _ in range(-surplus):
            self._add(now)
        for host in reversed(starting[max(0, len(starting) - max(0, surplus)) :]):
            self.hosts.remove(host)
            self.server_s += now - host.began
            surplus -= 1
        for host in sorted(ready, key=lambda h: h.in_flight)[: max(0, surplus)]:
            host.phase = "draining"
            self._stop_if_empty(now, host)

    def _report(self, seconds: float) -> Report:
        steps = [b.servers - a.servers for a, b in zip(self.turns, self.turns[1:], strict=False)]
        turned = sum(a * b < 0 for a, b in itertools.pairwise(steps))
        kept = self.counted.count - self.late
        peak = max((turn.servers for turn in self.turns), default=0)
        return Report(
            seconds=seconds,
            requests=self.arrived,
            completed=self.answered,
            mean_wait_ms=1000 * self.waits / self.counted.count if self.counted.count else None,
            latency_ms={f"p{q:g}": self.counted.quantile(q / 100) for q in (50, 95, 99)},
            longest_ms=self.counted.quantile(1.0),
            target_ms=self.target_ms,
            within_target=kept / self.due if self.target_ms is not None and self.due else None,
            server_hours=self.server_s / 3600,
            static_server_hours=peak * seconds / 3600,
            peak_servers=peak,
            scale_ups=sum(step > 0 for step in steps),
            scale_downs=sum(step < 0 for step in steps),
            direction_changes=turned,
            turns=tuple(self.turns),
        )
