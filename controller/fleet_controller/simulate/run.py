"""The simulation's clock: looks of the controller and starts of hosts; in between the kernel runs.

The window, the policies, their state and the plan are the real ones; hosts are columns of numbers. Deterministic for
a seed and an engine.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fleet_controller.policies import Decision, PolicyState, arrivals, decide
from fleet_controller.simulate import kernel
from fleet_controller.simulate.engine import CompiledEngine, PlainEngine, engine
from fleet_controller.simulate.fleet import DirectFleet, PlannedFleet
from fleet_controller.simulate.hosts import ServiceCurve
from fleet_controller.simulate.kernel import BUCKETS, DRAINING, LOWEST, READY, STARTING
from fleet_controller.simulate.report import Report, Turn
from fleet_controller.simulate.trace import Trace
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import HostSample, PoolSample, Signal, Window
from fleet_wire.capacity import ModelLoad
from fleet_wire.histogram import GAMMA, LatencyHistogram

LINGER_S = 3600.0  # after the trace, requests that still wait get this long
LOOKED_S = 15.0  # arrivals are a mean over this long (window.ARRIVALS_S)
QUICK_TURN_S = 300.0  # a direction that changes sooner than this is a flap
NO_LIMIT = 1 << 40


class Policy(Protocol):
    """What decides: the number wanted, from what is seen at `now` (Unix seconds)."""

    def __call__(self, signal: Signal, now: float) -> Decision: ...


class OwnPolicy:
    """fleetctl's: decide(), its state handed on from tick to tick."""

    def __init__(self, spec: ScalingSpec) -> None:
        self.spec, self.state = spec, PolicyState()

    def __call__(self, signal: Signal, now: float) -> Decision:
        decision, self.state = decide(self.spec, self.state, signal, now)
        return decision

    def seen(self, rate: float, now: float) -> None:
        """What came in at `now`, long before the run: nothing is decided."""
        self.state = self.state.model_copy(update={"arrivals": arrivals.seen(self.state.arrivals, rate, now)})


Watch = Callable[[float, Signal, Decision], None]
"""Told what is seen and decided at each look, by seconds from the start of the trace."""


@dataclass(frozen=True)
class Setting:
    """What is simulated besides the trace and the policy. `max_hosts` None: as many as the scaling block can ask for.

    `planned`: which hosts stop, and how many at a time, is the real plan's word. `prices` per hour, of the hosts in the
    order of their numbers; of further ones the last. `blind`: the policy looks at nothing, so nothing is measured.
    `startups` are what the first starts take, one after the other; the later ones take `startup_s`.
    """

    startup_s: float = 60.0
    curve: ServiceCurve = field(default_factory=ServiceCurve)
    slots: int | None = None
    interval_s: float = 5.0
    target_ms: float | None = None
    start_at: float = 0.0
    initial: int | None = None
    warmup_s: float = 0.0
    seed: int = 1
    compiled: bool | None = None
    planned: bool = True
    max_hosts: int | None = None
    prices: tuple[float, ...] = ()
    blind: bool = False
    startups: tuple[float, ...] = ()


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
    compiled: bool | None = None,
    history: Trace | None = None,
    prices: Sequence[float] = (),
    watch: Watch | None = None,
) -> Report:
    """Run `trace` against a pool that scales by `spec`.

    A host takes `startup_s` to start and at most `slots` requests at a time (None: any number). `start_at`
    is the Unix time of the trace's beginning, for schedules. `initial` hosts are ready then (None:
    min_servers). Requests that arrive in the first `warmup_s` seconds don't count. `target_ms` None: the
    one of `spec.latency`. `history` is earlier traffic that ends where the trace begins: the policies have seen its
    arrivals. `prices` per hour of the hosts, cheapest first. `watch` is called at each look. `compiled` None: numba
    where it is installed and worth its start.
    """
    setting = Setting(
        startup_s, curve or ServiceCurve(), slots, interval_s, target_ms, start_at,
        spec.min_servers if initial is None else initial, warmup_s, seed, compiled, prices=tuple(prices),
    )  # fmt: skip
    return simulated(trace, spec, setting, history, watch)


def simulated(
    trace: Trace,
    spec: ScalingSpec,
    setting: Setting,
    history: Trace | None = None,
    watch: Watch | None = None,
) -> Report:
    """The same with everything else in one `setting` (where it names no target: the one of `spec.latency`)."""
    if setting.target_ms is None and spec.latency is not None:
        setting = replace(setting, target_ms=spec.latency.target_ms)
    policy = OwnPolicy(spec)
    if history is not None:
        remember(policy, history, setting.start_at)
    return Run(trace, spec, setting, policy, watch).to_the_end()


def remember(policy: OwnPolicy, history: Trace, start_at: float) -> None:
    """Let `policy` see the arrivals of `history`, which ends at `start_at`: each minute's highest rate over 15 s.

    Raises ValueError for a history that has no intervals.
    """
    if not history.interval_s:
        raise ValueError("a history needs counts per interval")
    counts = {round(at / history.interval_s): count for at, count in history.rows}
    intervals = round(history.seconds / history.interval_s)
    looked, minute = max(1, round(LOOKED_S / history.interval_s)), max(1, round(60.0 / history.interval_s))
    for first in range(0, intervals - minute + 1, minute):
        sums = [sum(counts.get(n - m, 0) for m in range(looked)) for n in range(first, first + minute)]
        at = start_at - (intervals - first - 0.5 * minute) * history.interval_s
        policy.seen(max(sums) / (looked * history.interval_s), at)


class Run:
    """One run's events and counters. Times are seconds from the start of the trace."""

    def __init__(
        self,
        trace: Trace,
        spec: ScalingSpec,
        setting: Setting,
        policy: Policy,
        watch: Watch | None = None,
        arrivals: Sequence[float] | None = None,
    ) -> None:
        self.trace, self.spec, self.setting, self.policy, self.watch = trace, spec, setting, policy, watch
        self.initial = spec.min_servers if setting.initial is None else setting.initial
        self.engine: PlainEngine | CompiledEngine = engine(trace.requests, setting.seed, setting.compiled)
        self.hosts = setting.max_hosts or _most(spec, self.initial)
        self.fleet = PlannedFleet(self.hosts, setting.prices) if setting.planned else DirectFleet()
        self.window = Window(spec)
        make = self.engine.zeros
        n = max(1, self.hosts)
        self.phase, self.flying, self.first, self.last, self.batch, self.size = (
            make(n, True) for _ in range(6)
        )
        self.since, self.until, self.busy, self.ended = (make(n) for _ in range(4))
        self.done = make(n, True)
        for column in (self.first, self.last, self.batch):
            for h in range(n):
                column[h] = -1
        self.host = (
            self.phase, self.flying, self.first, self.last, self.batch, self.size, self.since, self.until,
            self.busy, self.done, self.ended,
        )  # fmt: skip
        self.arrivals = self.engine.arrivals(trace) if arrivals is None else arrivals
        ring = min(max(1, trace.requests), 1 << 22)
        self.request = (make(ring), make(ring, True))
        self.counters = make(kernel.COUNTERS)
        self.counters[kernel.HEAD] = self.counters[kernel.TAIL] = -1
        self.seen, self.counted = make(BUCKETS, True), make(BUCKETS, True)
        curve = setting.curve
        self.curve = (
            float(curve.base_s), float(curve.per_request_s), int(curve.max_batch), int(curve.jitter == "exponential"),
        )  # fmt: skip
        self.models = (ModelLoad("simulated", 0, 0, curve.max_batch, learned_curve(curve)),)
        self.names = [f"sim-{h}" for h in range(n)]
        self.next_arrival = 0
        self.began = [0.0] * n
        self.served = [0] * n  # which start of this host it is: a new process each time
        self.spent = [0.0] * n  # seconds that each host ran or started
        last = setting.prices[-1:]
        self.prices = (*setting.prices[:n], *last * (n - len(setting.prices)))
        self.turns: list[Turn] = []
        self.wanted: int | None = None
        self.starts: list[tuple[float, int]] = []
        self.startups = iter(setting.startups)

    def to_the_end(self) -> Report:
        for h in range(self.initial):
            self.phase[h], self.began[h] = READY, 0.0
        end, now = self.trace.seconds, 0.0
        look = 0.0
        while now < end or (self._waiting() and now < end + LINGER_S):
            if now >= look:
                self._look(now)
                look += self.setting.interval_s
            stop = min(look, self.starts[0][0] if self.starts else math.inf)
            self._advance(now, stop)
            now = stop
            while self.starts and self.starts[0][0] <= now:
                _, h = heapq.heappop(self.starts)
                self.phase[h] = READY
                self.window.started(now - self.began[h])
        self._close()
        over = max(end, float(self.counters[kernel.LAST_S]))
        for h in range(self.hosts):
            if self.phase[h]:
                self.spent[h] += over - self.began[h]
        return self._report(over)

    def _waiting(self) -> bool:
        arrived = int(self.counters[kernel.ARRIVED])
        return self.next_arrival < len(self.arrivals) or arrived > self.counters[kernel.ANSWERED]

    def _advance(self, now: float, stop: float) -> None:
        setting = self.setting
        draws = self.engine.draws(4096) if self.curve[3] else self.engine.zeros(1)
        there = max((h for h, phase in enumerate(_listed(self.phase)) if phase), default=0) + 1
        host = self.host if isinstance(self.phase, list) else tuple(column[:there] for column in self.host)
        self.next_arrival = self.engine.advance(
            now, stop, self.arrivals, self.next_arrival, draws, self.curve,
            NO_LIMIT if setting.slots is None else setting.slots,
            math.inf if setting.target_ms is None else setting.target_ms / 1000, setting.warmup_s,
            math.log(GAMMA), host, self.request, self.counters, self.seen, self.counted,
        )  # fmt: skip

    def _close(self) -> None:
        """Hosts that have drained since the last look are off, and cost until they were empty."""
        for h in range(self.hosts):
            if self.ended[h]:
                self.spent[h] += float(self.ended[h]) - self.began[h]
                self.ended[h] = 0.0

    def _look(self, now: float) -> None:
        self._close()
        wall = self.setting.start_at + now
        phases, flying = _listed(self.phase), _listed(self.flying)
        ready = [h for h, phase in enumerate(phases) if phase == READY]
        starting = phases.count(STARTING)
        if self.setting.blind:
            signal = Signal(ready=len(ready), starting=starting)
        else:
            signal = self._seen(now, wall, ready, starting, flying)
        decision = self.policy(signal, wall)
        if self.watch is not None:
            self.watch(now, signal, decision)
        if decision.desired != self.wanted:
            self.turns.append(Turn(at=now, servers=decision.desired, reason=decision.reason))
        self.wanted = decision.desired
        if decision.desired != len(ready) + starting:
            self._become(now, decision, phases, flying)

    def _seen(self, now: float, wall: float, ready: list[int], starting: int, flying: list[int]) -> Signal:
        at_hosts = sum(flying)
        arrived, answered = int(self.counters[kernel.ARRIVED]), int(self.counters[kernel.ANSWERED])
        seen = _histogram(self.seen)
        pool = PoolSample(
            wall,
            "sim",
            arrived,
            answered,
            0,
            at_hosts,
            arrived - answered - at_hosts,
            seen,
            self.setting.start_at,
        )
        self.window.feed(wall, pool, self._host_samples(now, wall, ready, flying))
        return self.window.signal(wall, ready=len(ready), starting=starting)

    def _host_samples(self, now: float, wall: float, ready: list[int], flying: list[int]) -> list[HostSample]:
        batch, busy, since = _listed(self.batch), _listed(self.busy), _listed(self.since)
        done, size = _listed(self.done), _listed(self.size)
        samples = []
        for h in ready:
            busy_s, waits = busy[h], flying[h]
            if batch[h] >= 0:
                busy_s += now - since[h]
                waits -= size[h]
            samples.append(
                HostSample(
                    wall, self.names[h], str(self.served[h]), busy_s, done[h], waits, True, self.models
                )
            )
        return samples

    def _become(self, now: float, decision: Decision, phases: list[int], flying: list[int]) -> None:
        starts, stops = self.fleet.moves(phases, flying, decision.desired, decision.reason, now)
        for h in starts:
            self.phase[h], self.began[h], self.busy[h], self.done[h] = STARTING, now, 0.0, 0
            self.served[h] += 1
            heapq.heappush(self.starts, (now + next(self.startups, self.setting.startup_s), h))
        for h in stops:
            if phases[h] == STARTING or not flying[h]:
                self.phase[h] = 0
                self.spent[h] += now - self.began[h]
                self.starts = [entry for entry in self.starts if entry[1] != h]
                heapq.heapify(self.starts)
            else:
                self.phase[h] = DRAINING

    def _priced(self, seconds: Sequence[float]) -> float | None:
        """What so many seconds of each host cost; None where prices are not known."""
        if not self.prices:
            return None
        return sum(s * price for s, price in zip(seconds, self.prices, strict=False)) / 3600

    def _report(self, seconds: float) -> Report:
        steps = [b.servers - a.servers for a, b in itertools.pairwise(self.turns)]
        turned = sum(a * b < 0 for a, b in itertools.pairwise(steps))
        counted = _histogram(self.counted)
        due, late, waits = (float(self.counters[i]) for i in (kernel.COUNTED, kernel.LATE, kernel.WAIT_S))
        unanswered = float(self.counters[kernel.ARRIVED] - self.counters[kernel.ANSWERED])
        target_ms = self.setting.target_ms
        peak = max((turn.servers for turn in self.turns), default=0)
        return Report(
            seconds=seconds,
            requests=int(self.counters[kernel.ARRIVED]),
            completed=int(self.counters[kernel.ANSWERED]),
            mean_wait_ms=1000 * waits / due if due else None,
            latency_ms={f"p{q:g}": counted.quantile(q / 100) for q in (50, 95, 99)},
            longest_ms=1000 * float(self.counters[kernel.LONGEST_S]) if due else None,
            target_ms=target_ms,
            within_target=(due - late) / (due + unanswered)
            if target_ms is not None and due + unanswered
            else None,
            server_hours=sum(self.spent) / 3600,
            static_server_hours=peak * seconds / 3600,
            cost=self._priced(self.spent),
            static_cost=self._priced([seconds] * peak),
            peak_servers=peak,
            scale_ups=sum(step > 0 for step in steps),
            scale_downs=sum(step < 0 for step in steps),
            direction_changes=turned,
            quick_turns=quick_turns(self.turns),
            turns=tuple(self.turns),
        )


def quick_turns(turns: list[Turn]) -> int:
    """Changes of direction within QUICK_TURN_S of the last change the other way."""
    found, last, direction = 0, -math.inf, 0
    for before, after in itertools.pairwise(turns):
        way = (after.servers > before.servers) - (after.servers < before.servers)
        if way and direction and way != direction and after.at - last < QUICK_TURN_S:
            found += 1
        if way:
            direction, last = way, after.at
    return found


def _listed(column: Any) -> list[Any]:
    """A column's values as Python's own numbers: numpy's are slow one by one."""
    return column if isinstance(column, list) else column.tolist()


def _histogram(buckets: Any) -> LatencyHistogram:
    if isinstance(buckets, list):
        counts = {LOWEST + i: n for i, n in enumerate(buckets) if n}
    else:
        places = buckets.nonzero()[0]
        counts = dict(zip((places + LOWEST).tolist(), buckets[places].tolist(), strict=True))
    return LatencyHistogram(counts, sum(counts.values()))


def learned_curve(curve: ServiceCurve) -> tuple[tuple[float, float], ...]:
    """The curve as an agent learns and reports it."""
    sizes = sorted({*(1 << k for k in range(curve.max_batch.bit_length())), curve.max_batch})
    return tuple((float(n), curve.seconds_mean(n)) for n in sizes)


def _most(spec: ScalingSpec, initial: int) -> int:
    asked = [spec.min_servers, spec.max_servers, initial]
    for schedule in spec.schedules:
        asked += [schedule.min_servers or 0, schedule.max_servers or 0, schedule.servers or 0]
    return max(asked)
