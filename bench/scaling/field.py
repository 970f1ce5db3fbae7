"""One policy on one cell, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from bench.scaling.cells import CURVE, INTERVAL_S, MAX_HOSTS, TARGET_MS, Load, first_hosts
from bench.scaling.peers import Peer, StaticPeak
from bench.scaling.rival import RivalRun

from fleet_controller.policies import Decision
from fleet_controller.simulate import kernel
from fleet_controller.simulate.hosts import ServiceCurve
from fleet_controller.simulate.report import Report
from fleet_controller.simulate.run import OwnPolicy, Run, Setting
from fleet_controller.simulate.trace import Trace
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import Signal

SPEC = ScalingSpec.model_validate(
    {"min_servers": 1, "max_servers": MAX_HOSTS, "latency": {"target_ms": TARGET_MS}}
)
LOOKED_S = 15.0


@dataclass(frozen=True)
class Outcome:
    trace: str
    startup_s: float
    subject: str
    setting: str
    within: float
    host_hours: float
    flaps: int  # changes of direction within 5 minutes
    peak: int
    changes: int = 0  # of direction, in all


def run(
    load: Load,
    startup_s: float,
    policy: OwnPolicy | Peer,
    host_rps: float,
    *,
    initial: int | None = None,
    curve: ServiceCurve = CURVE,
    watch: Callable[[float, Signal, Decision], None] | None = None,
) -> Report:
    """fleetctl's policy looks every INTERVAL_S through the real window and moves hosts through the real plan; a peer
    looks as often as it does by itself, and its hosts do at once what it says."""
    own = isinstance(policy, OwnPolicy)
    setting = Setting(
        startup_s=startup_s,
        curve=curve,
        interval_s=INTERVAL_S if own else policy.period_s,
        target_ms=TARGET_MS,
        start_at=load.start_at,
        initial=first_hosts(load, startup_s, host_rps) if initial is None else initial,
        compiled=True,
        planned=own,
        max_hosts=MAX_HOSTS,
    )
    if isinstance(policy, OwnPolicy):
        return Run(load.trace, SPEC, setting, policy, watch, load.arrivals).to_the_end()
    return RivalRun(load.trace, SPEC, setting, policy, load.arrivals).to_the_end()


def remembering(load: Load, startup_s: float, spec: ScalingSpec = SPEC) -> OwnPolicy:
    """fleetctl's policy, having seen the arrivals of the load's history (and nothing else: no latency, no host)."""
    policy = OwnPolicy(spec)
    if not len(load.history):
        return policy
    per_look = max(1, round(LOOKED_S / load.interval_s))
    per_minute = max(1, round(60.0 / load.interval_s))
    rates = np.convolve(load.history, np.ones(per_look) / per_look, "full")[: len(load.history)]
    for minute in range(len(rates) // per_minute):
        peak = float(rates[minute * per_minute : (minute + 1) * per_minute].max())
        at = load.start_at - (len(rates) - (minute + 0.5) * per_minute) * load.interval_s
        policy.seen(peak, at)
    return policy


@dataclass(frozen=True)
class Steady:
    """Hosts under a constant load: the share within the target, and the mean number of requests at each."""

    within: float
    at_each: float


@cache
def steady(rps: float, curve: ServiceCurve = CURVE, hosts: int = 12) -> Steady:
    """`hosts` that each get `rps`, for ten minutes."""
    trace = Trace(tuple((10.0 * n, round(10 * rps * hosts)) for n in range(60)), 10.0)
    setting = Setting(
        curve=curve,
        target_ms=TARGET_MS,
        initial=hosts,
        compiled=True,
        planned=False,
        max_hosts=hosts,
        warmup_s=60.0,
    )
    run = RivalRun(trace, SPEC, setting, StaticPeak(hosts))
    within = run.to_the_end().within_target or 0.0
    return Steady(within, float(run.counters[kernel.STAYED_S]) / trace.seconds / hosts)


def host_capacity(curve: ServiceCurve = CURVE) -> float:
    """Requests/s that a host carries with 99.5 % within the target, found by trying: what peers are told."""
    low, high = 0.3 * curve.capacity_rps, curve.capacity_rps
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if steady(middle, curve).within >= 0.995 else (low, middle)
    return low
