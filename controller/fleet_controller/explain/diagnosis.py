"""Diagnosis: what a person should know about a pool's number of servers, one sentence each. PURE.

It decides nothing. It reads the last decision and says what a reader of fleet.yaml would otherwise have to work out:
which bound is reached, which policy is not set, what is waited for, which hosts are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fleet_controller.explain.bursts import Bursts
from fleet_controller.lifecycle import QUARANTINE_AFTER, STARTING_UP, HostState, Quarantine
from fleet_controller.plan.tiers import is_loan
from fleet_controller.policies import STALE_AFTER_S, Decision, has_policies
from fleet_controller.policies.words import ms, number, servers, span
from fleet_controller.records import HostRecord
from fleet_controller.spec import PoolSpec, ScalingSpec
from fleet_controller.window import OLD_S, Signal

# Without a latency policy, latency is worth a sentence from here on: it grows steeply with the load.
BUSY_UTILIZATION = 0.7
NAMED = 3
_CALM = re.compile(r"(cooldown|stabilization) scale_(up|down): (.+) left")


@dataclass(frozen=True)
class Hosts:
    """A pool's hosts by what they can do. `failed` maps a name to the seconds until the next try, and so do
    `quarantined` (it failed often) and `unproven` (whether what ran there is gone is not proven).

    `elsewhere` maps hosts that it shares to the pool that has them now; `borrowed` are sentences about hosts that it
    took from a lower tier.
    """

    total: int = 0
    ready: int = 0
    starting: int = 0
    failed: Mapping[str, float] = field(default_factory=dict)
    quarantined: Mapping[str, float] = field(default_factory=dict)
    unproven: Mapping[str, float] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()
    cordoned: tuple[str, ...] = ()
    roomless: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    borrowed: tuple[str, ...] = ()

    @property
    def usable(self) -> int:
        """How many could serve."""
        lost = {
            *self.failed,
            *self.quarantined,
            *self.unproven,
            *self.unreachable,
            *self.cordoned,
            *self.roomless,
            *self.elsewhere,
        }
        return self.total - len(lost)


def hosts(
    pool: PoolSpec,
    records: Mapping[str, HostRecord],
    roomless: frozenset[str],
    now: float,
    elsewhere: Mapping[str, str] | None = None,
) -> Hosts:
    """The hosts of `pool` as recorded at `now`. `elsewhere`: those that another pool has, and which."""
    away = elsewhere or {}
    known = {name: records.get(name, HostRecord(name)) for name in pool.hosts if name not in away}
    failed = {
        n: max(0.0, r.retry_at - now)
        for n, r in known.items()
        if r.state is HostState.FAILED and not r.cordoned
    }
    return Hosts(
        total=len(known) + len(away),
        ready=sum(r.state is HostState.READY and n not in roomless for n, r in known.items()),
        starting=sum(r.state in STARTING_UP for r in known.values()),
        failed={n: left for n, left in failed.items() if known[n].quarantine is None},
        quarantined={n: left for n, left in failed.items() if known[n].quarantine is Quarantine.FAILURES},
        unproven={n: left for n, left in failed.items() if known[n].quarantine is Quarantine.UNPROVEN},
        unreachable=tuple(n for n, r in known.items() if r.state is HostState.UNREACHABLE),
        cordoned=tuple(n for n, r in known.items() if r.cordoned),
        roomless=tuple(n for n in known if n in roomless),
        elsewhere=away,
        borrowed=tuple(r.reason for r in known.values() if is_loan(r, pool.name)),
    )


@dataclass(frozen=True)
class Case:
    """A pool at `now`, Unix seconds. `decision` None: nothing was decided yet.

    `bursts`: what its traffic of the last day has that no scaling can answer in time.
    """

    name: str
    spec: ScalingSpec
    decision: Decision | None
    signal: Signal | None
    hosts: Hosts
    now: float
    paused: bool = False
    goal: str = "up"
    stale_after_s: float = STALE_AFTER_S
    bursts: Bursts | None = None


def diagnose(case: Case) -> tuple[str, ...]:
    """The sentences, what matters most first; none where there is nothing to say."""
    if case.goal == "down":
        return ("the fleet is down: fleetctl up",)
    if case.decision is None:
        return tuple(_hosts(case, None))
    found: list[str] = []
    if case.paused:
        stays = f"the number stays at {case.decision.desired} whatever the load"
        found.append(f"paused by an operator: {stays}, until fleetctl autoscale resume {case.name}")
    blind = _blind(case)
    if blind:
        found.append(blind)
    elif not case.paused:
        found += _load(case, case.decision)
    found += _bounds(case, case.decision)
    found += _bursts(case)
    found += _waiting(case.decision.blocked_by)
    found += _hosts(case, case.decision)
    if not blind:
        found += _idle(case, case.decision)
    return tuple(found)


def _blind(case: Case) -> str | None:
    signal = case.signal
    if signal is None or signal.age_s > case.stale_after_s:
        if signal is None or signal.age_s >= OLD_S:
            return "no data yet: nothing is scaled down"
        since = datetime.fromtimestamp(case.now - signal.age_s, UTC)
        return f"no data since {since:%Y-%m-%dT%H:%M:%SZ}, {span(signal.age_s)} ago: nothing is scaled down"
    return None


def _load(case: Case, decision: Decision) -> Iterator[str]:
    """Why the load moves nothing. Where it moves something, the reason says it already."""
    signal, spec = case.signal, case.spec
    assert signal is not None
    # A pool whose bounds are one number has one sentence, and it is not about the load.
    if decision.bounds.low == decision.bounds.high or not signal.ready:
        return
    if not has_policies(spec):
        yield "no policy is set: only min_servers, max_servers, schedules and people change the number"
        return
    wanted = max((r.desired for r in decision.recommendations if r.desired is not None), default=0)
    because = [
        text for text in (_utilization(spec, signal), _latency(spec, signal), _queue(spec, signal)) if text
    ]
    gap = _gap(spec, signal)
    moving = signal.ready + signal.starting != decision.desired
    if wanted <= decision.desired and because and not moving:
        text = f"stays at {decision.desired}: {'; '.join(because)}"
        yield f"{text}; {gap}" if gap else text
    elif gap:
        yield gap


def _utilization(spec: ScalingSpec, signal: Signal) -> str | None:
    target, used = spec.target_utilization, signal.utilization
    if target is None:
        return None
    if used is None:
        return "utilization is not known"
    side = "under" if used < target else "over" if used > target else "at"
    return f"utilization {number(used)} is {side} target_utilization {number(target)}"


def _latency(spec: ScalingSpec, signal: Signal) -> str | None:
    if spec.latency is None:
        return None
    target, named = spec.latency.target_ms, spec.latency.percentile
    known = {50.0: signal.p50_ms, 95.0: signal.p95_ms, 99.0: signal.p99_ms}
    p = known.get(named, signal.percentile_ms)
    if p is None:
        return f"p{named:g} is not known"
    if p > target:
        return f"p{named:g} is {ms(p - target)} over its target of {ms(target)}"
    return f"p{named:g} {ms(p)} is under its target of {ms(target)}"


def _queue(spec: ScalingSpec, signal: Signal) -> str | None:
    if spec.queue is None or signal.queued is None:
        return None
    each = signal.queued / max(1, signal.ready)
    target = spec.queue.target_per_server
    side = "under" if each < target else "over" if each > target else "at"
    return f"{number(each)} requests wait per server, {side} queue.target_per_server {number(target)}"


def _gap(spec: ScalingSpec, signal: Signal) -> str | None:
    """What nobody looks after: latency under load without a latency policy."""
    if spec.latency is not None or signal.p95_ms is None:
        return None
    limits = [
        rule.condition.number
        for rule in spec.steps
        if rule.add > 0 and rule.condition.field == "p95_ms" and rule.condition.op.startswith(">")
    ]
    if limits and signal.p95_ms > min(limits):
        excess = ms(signal.p95_ms - min(limits))
        return f"p95 is {excess} over the {ms(min(limits))} of a step, but no latency policy is set"
    if (signal.utilization or 0.0) >= BUSY_UTILIZATION or signal.queued:
        return f"p95 is {ms(signal.p95_ms)}, but no latency policy is set"
    return None


def _bounds(case: Case, decision: Decision) -> Iterator[str]:
    limits = decision.bounds
    wants = [r for r in decision.recommendations if r.desired is not None and r.policy != "bounds"]
    best = max(wants, key=lambda r: r.desired or 0, default=None)
    most = 0 if best is None else best.desired or 0
    if limits.low == limits.high:
        if limits.low_source == limits.high_source:
            yield f"{limits.low_source} sets exactly {servers(limits.low)}: no policy can change that"
        else:
            yield f"{limits.low_source} = {limits.high_source} = {limits.low}: no policy can change the number"
    if best is not None and most > limits.high:
        beyond = most - limits.high
        more = f"{limits.high_source} {limits.high} is reached: {beyond} more would be wanted ({best.policy})"
        room = case.hosts.total - limits.high
        yield f"{more}, and the pool has {room} more {_noun(room)}" if room > 0 else more
    elif best is not None and most < limits.low == decision.desired < limits.high:
        yield f"{limits.low_source} keeps it at {limits.low}: the load needs {most}"


def _bursts(case: Case) -> Iterator[str]:
    found = case.bursts
    if found is not None:
        often = f"in {found.minutes} of {found.seen} minutes, with {found.share:.0%} of the requests"
        text = f"the target can't be held by scaling: the load grew faster than a host starts {often}"
        floor = f"min_servers {found.floor} or more would hold it"
        short = found.floor > case.hosts.total
        yield f"{text}; {floor}{f', and the pool has {case.hosts.total} {_noun(case.hosts.total)}' if short else ''}"


def _waiting(blocked: Iterable[str]) -> Iterator[str]:
    for obstacle in blocked:
        found = _CALM.fullmatch(obstacle)
        if found:
            what, direction, left = found.groups()
            yield f"{what} blocks scaling {direction} for another {left}"


def _hosts(case: Case, decision: Decision | None) -> Iterator[str]:
    pool, high = case.hosts, case.spec.max_servers if decision is None else decision.bounds.high
    if pool.total < high:
        yield f"hosts are missing: the pool has {pool.total} {_noun(pool.total)}, {_source(decision)} is {high}"
    if decision is not None and pool.usable < decision.desired <= pool.total:
        yield f"hosts are missing: {decision.desired} are wanted, {pool.usable} of {pool.total} can serve"
    if pool.failed:
        count = len(pool.failed)
        yield f"{count} {_noun(count)} failed, tried again {_soon(pool.failed)}: {_names(pool.failed)}"
    if pool.quarantined:
        text = f"{_count(pool.quarantined)} quarantined after {QUARANTINE_AFTER} or more failures in a row"
        yield f"{text}, tried again {_soon(pool.quarantined)}: {_names(pool.quarantined)}"
    if pool.unproven:
        text = f"{_count(pool.unproven)} not proven to be free, so nothing is started there"
        yield f"{text}, tried again {_soon(pool.unproven)}: {_names(pool.unproven)}"
    if pool.unreachable:
        yield f"{_count(pool.unreachable)} out of reach: {_names(pool.unreachable)}"
    if pool.cordoned:
        yield f"{_count(pool.cordoned)} drained by an operator: {_names(pool.cordoned)}"
    if pool.roomless:
        yield f"{_count(pool.roomless)} without room for the pool's model: {_names(pool.roomless)}"
    for other in sorted(set(pool.elsewhere.values())):
        lent = [name for name, serves in pool.elsewhere.items() if serves == other]
        yield f"{len(lent)} of its hosts {'serves' if len(lent) == 1 else 'serve'} {other}: {_names(lent)}"
    yield from pool.borrowed[:NAMED]
    if decision is not None and pool.starting and pool.ready < decision.desired:
        yield f"{_count(range(pool.starting))} still starting"


def _idle(case: Case, decision: Decision) -> Iterator[str]:
    signal = case.signal
    assert signal is not None
    quiet = signal.arrivals_per_s == 0 and not signal.in_flight and not signal.queued
    if quiet and decision.desired >= 1 and decision.bounds.low == 0 and not case.spec.idle.scale_to_zero:
        stays = f"{servers(decision.desired)} {'stays' if decision.desired == 1 else 'stay'}"
        yield f"idle-to-zero is off (idle.scale_to_zero): {stays} although no requests come in"


def _source(decision: Decision | None) -> str:
    return "max_servers" if decision is None else decision.bounds.high_source


def _noun(count: int) -> str:
    return "host" if count == 1 else "hosts"


def _count(found: Mapping[str, float] | range | tuple[str, ...]) -> str:
    return f"{len(found)} {_noun(len(found))} {'is' if len(found) == 1 else 'are'}"


def _soon(waits: Mapping[str, float]) -> str:
    left = min(waits.values())
    return f"in {span(left)}" if left > 0 else "now"


def _names(found: Iterable[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
