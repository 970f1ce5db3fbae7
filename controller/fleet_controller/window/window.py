"""What a pool's last minute looked like: cumulative counters in, one Signal out.

Decides what counts as evidence: a difference of two samples of the same process. A restarted process
starts a new count, a lost sample makes the signal older, and a number that cannot be true (NaN, negative,
absurd) is no number. Pure: `now` (Unix seconds, the controller's clock) is an argument; rates use the
samples' own clocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window.slices import HostLine, PoolSums, covered
from fleet_wire.capacity import ModelLoad, pool_capacity
from fleet_wire.histogram import LatencyHistogram

DEFAULT_WINDOW_S = 60.0
ARRIVALS_S = 15.0  # arrivals are looked at over this long: a surge shows before it is an average
UTILIZATION_S = 30.0
SETTLE_S = (
    10.0  # after a server joined, its predecessors' latencies are history; this long for new ones to come in
)
ABSURD = 1e12
OLD_S = 1e9  # the age of a signal whose age is not a number
CAPACITY_MIN_UTILIZATION = 0.3
CAPACITY_TAU_S = 120.0
STARTS_KEPT = 7
CURVES_EVERY_S = 30.0  # what a batch costs changes slowly


def _measured(value: object) -> object:
    """A measurement, or None where it cannot be true."""
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value <= ABSURD:
        return None
    return value


def _counted(value: object) -> object:
    return 0 if _measured(value) is None else value


def _aged(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return OLD_S
    return max(0.0, value) if isinstance(value, int | float) else value


Measured = Annotated[float | None, BeforeValidator(_measured)]
Counted = Annotated[int, BeforeValidator(_counted)]


class Signal(BaseModel):
    """What a policy sees of one pool. None: not known, which is never the same as 0.

    `rps` completed per second and `arrivals_per_s` (requests coming in, the last 15 s), `in_flight` at a
    host, `queued` waiting anywhere (at the balancer or in a host's queue), `utilization` 0..1 mean over
    the ready hosts, `p50_ms`..`p99_ms` over the window, `percentile_ms` the one that scaling.latency names
    when it is another, `late_share` of what completed (0..1) took longer than the target, `completed` and
    `errors` in the window, `startup_s` and `capacity_rps_per_server` learned (the latter: what a server
    carries within the latency target by the agents' service curves, where there are a target and curves;
    else what it completes per busy second), `age_s` since the last good sample. A NaN, negative or absurd
    measurement becomes None, and such an age becomes very old.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ready: int = Field(default=0, ge=0)
    starting: int = Field(default=0, ge=0)
    rps: Measured = None
    arrivals_per_s: Measured = None
    in_flight: Measured = None
    queued: Measured = None
    utilization: Measured = None
    p50_ms: Measured = None
    p95_ms: Measured = None
    p99_ms: Measured = None
    percentile_ms: Measured = None
    late_share: Measured = None
    completed: Counted = 0
    errors: Counted = 0
    startup_s: Measured = None
    capacity_rps_per_server: Measured = None
    age_s: Annotated[float, BeforeValidator(_aged)] = 0.0

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Signal:
        """Raises pydantic.ValidationError for anything that is not a Signal."""
        return cls.model_validate_json(text)


@dataclass(frozen=True)
class PoolSample:
    """One balancer's counters of one pool. `source` names the process (pid and start): its counters only
    grow.

    `at` and `started_at` are Unix seconds on the balancer's clock. Counters as in
    fleet_wire.balancer.PoolStatus.
    """

    at: float
    source: str
    arrivals: int
    completed: int
    errors: int
    in_flight: int
    queued: int
    latency: LatencyHistogram
    started_at: float | None = None


class HostSample(NamedTuple):
    """One agent's counters. `source` names the process; `busy_s` is its device's time under load, `queued`
    waits there. `models`: what each of its models did, and what a batch costs there.
    """

    at: float
    name: str
    source: str
    busy_s: float
    completed: int
    queued: int = 0
    ready: bool = True
    models: tuple[ModelLoad, ...] = ()


class Learned(BaseModel):
    """What the window knows about the pool's servers beyond the window: worth keeping over a restart."""

    model_config = ConfigDict(frozen=True)

    starts_s: tuple[float, ...] = ()
    capacity_rps_per_server: float | None = None


class Window:
    """One pool's recent past. `feed` it at each tick, then ask for the `signal`.

    `spec` may be replaced when fleet.yaml changes. `learned` survives a restart through the journal.
    """

    def __init__(self, spec: ScalingSpec, learned: Learned | None = None) -> None:
        self.spec = spec
        self.learned = learned or Learned()
        self._pool = PoolSums(spec.latency.target_ms if spec.latency else None)
        self._last_pool: dict[str, tuple[float, PoolSample]] = {}
        self._hosts: dict[str, HostLine[HostSample]] = {}
        self._curves_at: float | None = None
        self._from_curves: float | None = None
        self._began: float | None = None
        self._seen: float | None = None
        self._fed: float | None = None
        self._ready: int | None = None
        self._joined_at: float | None = None

    def __repr__(self) -> str:
        return f"<Window {self.seconds:g} s, {len(self._pool.slices)} slices, {len(self._hosts)} hosts>"

    @property
    def seconds(self) -> float:
        window = self.spec.latency.window if self.spec.latency else DEFAULT_WINDOW_S
        return window or DEFAULT_WINDOW_S

    def feed(
        self,
        now: float,
        pool: PoolSample | Iterable[PoolSample] | None,
        hosts: Iterable[HostSample] = (),
    ) -> None:
        """Take what was observed at `now`: the pool's counters (of one balancer or several; None: none
        answered) and those of every host that answered. Samples that cannot be true are dropped as if they
        were missing.
        """
        if self._fed is not None and now < self._fed:
            self._forget()  # the clock was set back: nothing kept can be ordered any more
        if self._began is None:
            self._began = now
        self._fed = now
        samples = () if pool is None else (pool,) if isinstance(pool, PoolSample) else tuple(pool)
        true = [sample for sample in samples if _true_pool(sample)]
        for sample in true:
            self._feed_pool(now, sample)
        if true:
            self._seen = now
        self._feed_hosts(now, hosts)
        self._prune(now)
        self._learn_capacity()
        self._read_curves(now)

    def started(self, seconds: float) -> None:
        """A host took `seconds` from the decision to ready; `startup_s` is the median of the last few."""
        if math.isfinite(seconds) and seconds >= 0:
            kept = (*self.learned.starts_s, seconds)[-STARTS_KEPT:]
            self.learned = self.learned.model_copy(update={"starts_s": kept})

    def signal(self, now: float, *, ready: int, starting: int) -> Signal:
        """The pool at `now`. `ready` and `starting` are the controller's own count of hosts."""
        if self._ready is not None and ready > self._ready:
            self._joined_at = now
        self._ready = ready
        seconds, target = self.seconds, self.spec.latency
        pool = self._pool
        pool.aim(target.target_ms if target else None)
        pool.drop(now - seconds)
        long = covered(pool.slices)
        recent = [s for s in pool.slices if s.end > now - min(ARRIVALS_S, seconds)]
        recent_s = covered(recent)
        age = self._age(now)
        latest = [s for at, s in self._last_pool.values() if at == self._seen and age <= seconds]
        queued_at_hosts = sum([line.last.queued for line in self._hosts.values() if line.at == self._fed])
        named = target.percentile if target else None
        other = named is not None and named not in (50, 95, 99)
        p50, p95, p99, own = self._settled(now).quantiles(0.50, 0.95, 0.99, (named or 50.0) / 100)
        starts = self.learned.starts_s
        return Signal(
            ready=ready,
            starting=starting,
            rps=pool.completed / long if long else None,
            arrivals_per_s=sum(s.arrivals for s in recent) / recent_s if recent_s else None,
            in_flight=sum(s.in_flight for s in latest) if latest else None,
            queued=sum(s.queued for s in latest) + queued_at_hosts if latest else None,
            utilization=self._utilization(ready),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            percentile_ms=own if other else None,
            late_share=pool.late / pool.latency.count if target and pool.latency.count else None,
            completed=pool.completed,
            errors=pool.errors,
            startup_s=median(starts) if starts else None,
            capacity_rps_per_server=self._capacity(),
            age_s=age,
        )

    def latency_ms(self, now: float) -> dict[str, float | None]:
        """{p50, p95, p99} of every request that completed in the window, for people (status)."""
        self._pool.drop(now - self.seconds)
        p50, p95, p99 = self._pool.latency.quantiles(0.50, 0.95, 0.99)
        return {"p50": p50, "p95": p95, "p99": p99}

    def _age(self, now: float) -> float:
        known = self._seen if self._seen is not None else self._began
        return max(0.0, now - known) if known is not None else OLD_S

    def _forget(self) -> None:
        self._pool.clear()
        self._last_pool.clear()
        self._hosts.clear()
        self._curves_at = None
        self._began = self._seen = self._joined_at = None

    def _feed_pool(self, now: float, sample: PoolSample) -> None:
        known = self._last_pool.get(sample.source)
        self._last_pool[sample.source] = (now, sample)
        before = known[1] if known is not None else self._zero(now, sample)
        if before is None:
            return
        seconds = sample.at - before.at
        gap = 0.0 if known is None else now - known[0]
        if not 0 < seconds <= 2 * self.seconds or gap > 2 * self.seconds:
            return
        arrivals = sample.arrivals - before.arrivals
        completed = sample.completed - before.completed
        errors = sample.errors - before.errors
        if min(arrivals, completed, errors) < 0:
            return  # counters that went back under the same name: nothing can be said about this span
        latency = sample.latency.since(before.latency)
        self._pool.add(now - seconds, now, arrivals, completed, errors, latency)

    def _zero(self, now: float, sample: PoolSample) -> PoolSample | None:
        """The start of a source seen for the first time. One that started while we watched counted from
        zero, and all of it is news; one that was there before has a history that we know nothing about:
        None.
        """
        if sample.started_at is None or self._seen is None:
            return None
        if not 0 < sample.at - sample.started_at <= now - self._seen + 1.0:
            return None
        return PoolSample(sample.started_at, sample.source, 0, 0, 0, 0, 0, LatencyHistogram())

    def _feed_hosts(self, now: float, hosts: Iterable[HostSample]) -> None:
        lines, longest = self._hosts, 2 * self.seconds
        edge = now - min(UTILIZATION_S, self.seconds)
        for host in hosts:
            at, name, source, busy_s, completed, queued, ready, _ = host
            if not (-math.inf < at < math.inf and 0 <= busy_s <= ABSURD):
                continue
            if not (0 <= completed <= ABSURD and 0 <= queued <= ABSURD):
                continue
            line = lines.get(name)
            if line is None:
                lines[name] = HostLine(now, host)
                continue
            seen, before = line.at, line.last
            line.at, line.last = now, host
            if before.source != source or not ready:
                line.clear()
                continue
            seconds, busy_s, completed = at - before.at, busy_s - before.busy_s, completed - before.completed
            if not 0 < seconds <= longest or now - seen > longest or busy_s < 0 or completed < 0:
                line.drop(edge)
                continue
            line.add(edge, now, seconds, busy_s if busy_s < seconds else seconds, completed)

    def _prune(self, now: float) -> None:
        seconds = self.seconds
        old = now - 2 * seconds
        if any(seen[0] < old for seen in self._last_pool.values()):
            self._last_pool = {source: seen for source, seen in self._last_pool.items() if seen[0] >= old}
        self._pool.drop(now - seconds)
        edge = now - min(UTILIZATION_S, seconds)
        silent = [(name, line) for name, line in self._hosts.items() if line.at != now]
        for name, line in silent:
            line.drop(edge)
            if line.at < old:
                del self._hosts[name]

    def _settled(self, now: float) -> LatencyHistogram:
        """Latencies that the servers of now are to answer for.

        While a server has just joined, the window is full of what the smaller pool did, and the next answers are
        to requests that waited for it; raising on those would add servers for a queue that is already gone. So:
        only what completed from a few seconds after it joined, until the window holds nothing older.
        """
        if self._joined_at is None or now - self._joined_at > self.seconds + SETTLE_S:
            self._pool.since = math.inf
            return self._pool.latency
        return self._pool.settle(self._joined_at + min(SETTLE_S, self.seconds / 2))

    def _utilization(self, ready: int) -> float | None:
        """Mean over the ready hosts. A host that did not report counts as on target while the others are
        below it and as idle while they are above, never past the target (Kubernetes HPA,
        replica_calculator.go): what is not known neither adds nor removes a server. None when fewer than
        half of them reported.
        """
        shares = [line.busy_s / line.seconds for line in self._hosts.values() if line.slices]
        if not shares or 2 * len(shares) < ready:
            return None
        mean = sum(shares) / len(shares)
        missing = max(0, ready - len(shares))
        target = self.spec.target_utilization
        if not missing or target is None:
            return mean
        if mean < target:
            return (sum(shares) + missing * target) / (len(shares) + missing)
        return max(target, sum(shares) / (len(shares) + missing))

    def _learn_capacity(self) -> None:
        """Requests per second of busy time: what one server completes at utilization 1, from busy servers
        only.
        """
        latest = [line.slices[-1] for line in self._hosts.values() if line.slices]
        fresh = [s for s in latest if s[0] == self._fed]
        seconds, busy = sum([s[1] for s in fresh]), sum([s[2] for s in fresh])
        completed = sum([s[3] for s in fresh])
        if not seconds or busy / seconds < CAPACITY_MIN_UTILIZATION or not completed:
            return
        now_rps, known = completed / busy, self.learned.capacity_rps_per_server
        if known is not None:
            share = 1.0 - math.exp(-(seconds / len(fresh)) / CAPACITY_TAU_S)
            now_rps = known + share * (now_rps - known)
        self.learned = self.learned.model_copy(update={"capacity_rps_per_server": now_rps})

    def _read_curves(self, now: float) -> None:
        """Now and then: what the ready hosts that answered carry at the latency target, by their service curves."""
        if self.spec.latency is None:
            self._curves_at = self._from_curves = None
            return
        read = self._curves_at if self._from_curves is not None else None
        if read is not None and now - read < CURVES_EVERY_S:
            return
        hosts = [
            line.last.models
            for line in self._hosts.values()
            if line.at == now and line.last.ready and line.last.models
        ]
        found = pool_capacity(hosts, self.spec.latency.target_ms, self.spec.latency.percentile)
        if found is not None:
            self._from_curves, self._curves_at = found, now

    def _capacity(self) -> float | None:
        """At the latency target, where there is one and the hosts know what a batch costs; else what a busy server
        completes."""
        if self.spec.latency is not None and self._from_curves is not None:
            return self._from_curves
        return self.learned.capacity_rps_per_server


def _true_pool(sample: PoolSample) -> bool:
    counts = (sample.arrivals, sample.completed, sample.errors, sample.in_flight, sample.queued)
    return math.isfinite(sample.at) and all(0 <= n <= ABSURD for n in counts)
