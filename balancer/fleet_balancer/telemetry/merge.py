"""Several processes' counts as one. PURE.

Processes that serve side by side are added up; one that has ended leaves its counters behind, so that the sum never
falls and the reader of two reports sees every request once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleet_balancer.process.condition import Condition, SavedEjection
from fleet_wire.balancer import BackendStatus, BalancerStatus, Figure, PoolStatus
from fleet_wire.histogram import LatencyHistogram, merged


def merge(serving: Sequence[BalancerStatus], ended: Sequence[BalancerStatus] = ()) -> BalancerStatus:
    """The sum of `serving`, whose lists of hosts are the same, and of those that only finish or have `ended`.

    What `ended` says of pools and hosts that are not in the list any more is left out. A host is healthy where every
    serving process holds it for healthy.
    """
    first = serving[0]
    everyone = [*serving, *ended]
    if len(everyone) == 1:
        return first
    pools = {p.name: [p] for p in first.pools}
    hosts = {(b.name, b.address): [b] for b in first.backends}
    beside = {key: [b] for key, (b,) in hosts.items()}
    for status in everyone[1:]:
        for pool in status.pools:
            if pool.name in pools:
                pools[pool.name].append(pool)
        for host in status.backends:
            if (host.name, host.address) in hosts:
                hosts[host.name, host.address].append(host)
    for status in serving[1:]:
        for host in status.backends:
            if (host.name, host.address) in beside:
                beside[host.name, host.address].append(host)
    return first.model_copy(
        update={
            "at": max(s.at for s in everyone),
            "pools": [_pool(same) for same in pools.values()],
            "backends": [_host(same, beside[key]) for key, same in hosts.items()],
            "workers": sum(s.workers for s in serving),
            "figures": _figures(f for s in everyone for f in s.figures),
        }
    )


def agreed(told: Sequence[Condition]) -> Condition:
    """How hosts are by several processes: healthy for all of them, ejected by any, for as long as the longest says."""
    healthy = [key for key in told[0].healthy if all(key in other.healthy for other in told[1:])]
    ejections: dict[str, dict[tuple[str, str], SavedEjection]] = {}
    for condition in told:
        for pool, of in condition.ejections.items():
            known = ejections.setdefault(pool, {})
            for one in of:
                before = known.get((one.name, one.address))
                if before is None or one.left_s > before.left_s:
                    known[one.name, one.address] = one
    return Condition(healthy=healthy, ejections={pool: list(of.values()) for pool, of in ejections.items()})


def last_words(status: BalancerStatus) -> BalancerStatus:
    """What a process that was last heard with `status`, and is gone, leaves: its requests in flight were broken off."""
    pools = [
        p.model_copy(
            update={
                "errors": p.errors + p.in_flight,
                "abandoned": p.abandoned + p.queued,
                "in_flight": 0,
                "queued": 0,
            }
        )
        for p in status.pools
    ]
    backends = [
        b.model_copy(update={"errors": b.errors + b.in_flight, "in_flight": 0}) for b in status.backends
    ]
    figures = [f for f in status.figures if f.kind == "counter"]
    return status.model_copy(update={"pools": pools, "backends": backends, "figures": figures, "workers": 0})


def _pool(same: Sequence[PoolStatus]) -> PoolStatus:
    if len(same) == 1:
        return same[0]
    counts = ("arrivals", "completed", "errors", "refused", "abandoned", "in_flight", "queued")
    update: dict[str, object] = {name: sum(getattr(p, name) for p in same) for name in counts}
    update["latency"] = merged(LatencyHistogram.from_wire(p.latency) for p in same).to_wire()
    return same[0].model_copy(update=update)


def _host(same: Sequence[BackendStatus], beside: Sequence[BackendStatus]) -> BackendStatus:
    newest = min(beside, key=lambda b: float("inf") if b.report_age_s is None else b.report_age_s)
    doubtful = next((b for b in beside if not b.healthy), None) or next((b for b in beside if b.error), None)
    return newest.model_copy(
        update={
            "healthy": all(b.healthy for b in beside),
            "error": doubtful.error if doubtful else None,
            "in_flight": sum(b.in_flight for b in same),
            "requests": sum(b.requests for b in same),
            "errors": sum(b.errors for b in same),
            "ejected_s": max((b.ejected_s for b in beside if b.ejected_s is not None), default=None),
        }
    )


def _figures(figures: Iterable[Figure]) -> list[Figure]:
    total: dict[tuple[object, ...], Figure] = {}
    for figure in figures:
        key = (figure.name, *sorted(figure.labels.items()))
        known = total.get(key)
        total[key] = (
            figure if known is None else known.model_copy(update={"value": known.value + figure.value})
        )
    return list(total.values())
