"""Choice: which of a pool's hosts to start next, and which to stop. PURE.

One score says what a host is worth: what an hour of it costs (price_per_hour, and watts x controller.price_per_kwh)
per unit of capacity (`speed`, or what its agent has learned). To start: the cheapest unit first; while requests are
late or wait, the one that is ready first. To stop: the one that saves most per unit lost, the idlest among equals.
Spot hosts come after all others while a pool is under its floor, and before them above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec, ScalingSpec
from fleet_controller.window import Signal
from fleet_wire.agent import AgentStatus

# What was measured of two hosts of a kind is never quite the same: within such a factor it counts as equal.
LIKE_SPEED = 1.25
LIKE_READY = 1.5


@dataclass(frozen=True)
class Market:
    """What is known beyond fleet.yaml and the records.

    `speeds`: items per second of each host that was measured. `price_per_kwh`: 0 where nobody said.
    """

    speeds: Mapping[str, float] = field(default_factory=dict)
    price_per_kwh: float = 0.0


@dataclass(frozen=True)
class Offer:
    """One host as it is weighed: cost and watts per unit of capacity; `delay`: 0 for those that are ready first."""

    host: HostSpec
    place: int
    cost: float
    watts: float
    delay: int
    failures: int

    def cheapest(self) -> tuple[float, ...]:
        return (self.failures, self.cost, self.watts, self.delay, self.place)

    def soonest(self) -> tuple[float, ...]:
        return (self.failures, self.delay, self.cost, self.watts, self.place)


def to_start(
    hosts: Sequence[HostSpec],
    records: Mapping[str, HostRecord],
    market: Market,
    floor_lacks: int = 0,
    hurry: bool = False,
) -> list[HostSpec]:
    """`hosts` in the order in which they are to be started, those that failed last.

    The first `floor_lacks` are for the pool's floor: none of them is a spot host while another one is left.
    """
    key = Offer.soonest if hurry else Offer.cheapest
    offers = sorted(_offers(hosts, records, market), key=key)
    steady = [o for o in offers if not o.host.spot]
    first = steady[: max(0, floor_lacks)]
    taken = {o.place for o in first}
    rest = [o for o in offers if o.place not in taken]
    rest.sort(key=lambda o: (o.failures, not o.host.spot))  # stable: else as before
    return [o.host for o in (*first, *rest)]


def to_stop(
    hosts: Sequence[HostSpec],
    records: Mapping[str, HostRecord],
    market: Market,
    in_flight: Mapping[str, int],
    steady: int,
    floor: int,
) -> list[HostSpec]:
    """`hosts` in the order in which they are to be stopped; protected ones are left out.

    `steady` servers of the pool are no spot hosts; while there are no more than `floor` of them, spot hosts go first.
    """
    offers = sorted(
        _offers([h for h in hosts if not h.protect], records, market),
        key=lambda o: (-o.cost, -o.watts, in_flight.get(o.host.name, 0), o.place),
    )
    rank = {o.host.name: n for n, o in enumerate(offers)}
    spots = [o.host for o in offers if o.host.spot][::-1]
    others = [o.host for o in offers if not o.host.spot][::-1]
    chosen = []
    while spots or others:
        keep = steady <= floor or not others
        spot = bool(spots) and (keep or rank[spots[-1].name] < rank[others[-1].name])
        chosen.append(spots.pop() if spot else others.pop())
        steady -= not spot
    return chosen


def hurry(signal: Signal | None, scaling: ScalingSpec, floor: int) -> bool:
    """Whether time counts more than money: too few serve, requests wait, or they are late."""
    if signal is None:
        return False
    waits = signal.queued is not None and signal.queued >= max(1, signal.ready)
    percentile = {50.0: signal.p50_ms, 95.0: signal.p95_ms, 99.0: signal.p99_ms}
    target = scaling.latency
    seen = None if target is None else percentile.get(target.percentile, signal.percentile_ms)
    late = target is not None and seen is not None and seen > target.target_ms
    return signal.ready < floor or waits or late


def measured(status: AgentStatus, models: Iterable[str]) -> float | None:
    """Items per second of a host whose agent serves `models`, at the best batch it knows; None: not known yet.

    Where there are several models: one item of each after the other.
    """
    curves = {m.name: m.service_curve for m in status.models}
    seconds = 0.0
    for model in models:
        each = [s / items for items, s in curves.get(model, ()) if items > 0 and 0 < s < math.inf]
        if not each:
            return None
        seconds += min(each)
    return 1.0 / seconds if seconds > 0 else None


def _offers(hosts: Sequence[HostSpec], records: Mapping[str, HostRecord], market: Market) -> Iterable[Offer]:
    speeds = _speeds(hosts, market.speeds)
    starts = {h.name: r.startup_s for h in hosts if (r := records.get(h.name)) is not None and r.startup_s}
    usual_s = median(starts.values()) if starts else 1.0
    first_s = min(starts.values(), default=1.0)
    for place, host in enumerate(hosts):
        watts, speed = host.watts or 0.0, speeds[host.name]
        hourly = (host.price_per_hour or 0.0) + watts / 1000.0 * market.price_per_kwh
        record = records.get(host.name)
        yield Offer(
            host,
            place,
            hourly / speed,
            watts / speed,
            _class((starts.get(host.name) or usual_s) / first_s, LIKE_READY),
            0 if record is None else record.failures,
        )


def _speeds(hosts: Sequence[HostSpec], known: Mapping[str, float]) -> dict[str, float]:
    """Each host's speed beside the others, 1 being usual.

    What fleet.yaml says; else what was measured; else what was of hosts with the same labels.
    """
    found = {h.name: known[h.name] for h in hosts if known.get(h.name, 0.0) > 0.0}
    usual = median(found.values()) if found else 1.0
    alike: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for host in hosts if found else ():
        if host.name in found:
            alike.setdefault(_labels(host), []).append(found[host.name])
    speeds = {}
    for host in hosts:
        if host.speed is not None:
            speeds[host.name] = host.speed
            continue
        same = alike.get(_labels(host)) if found else None
        speed = found.get(host.name) or (median(same) if same else usual)
        speeds[host.name] = LIKE_SPEED ** _class(speed / usual, LIKE_SPEED)
    return speeds


def _labels(host: HostSpec) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(host.labels.items()))


def _class(value: float, factor: float) -> int:
    """Values within about `factor` of each other are of one class."""
    return round(math.log(value) / math.log(factor)) if value > 0 else -1_000_000
