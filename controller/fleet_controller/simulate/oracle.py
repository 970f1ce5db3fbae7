"""The oracle: it knows every arrival and the start-up time, and takes the fewest server-hours that keep the target.

What is needed at a look: the fewest hosts under whose limit the load of the next seconds stays. Server number k
is needed in some spans; it is started so that it is ready when a span begins, and kept through a gap that is
shorter than a start, which would cost as much (for one limit this is exact: the levels don't interact). The limit,
a host's share of the load, is raised until the simulated share within the target is just what was asked for. Near
the best, not proven to be it: one limit for the whole trace spends the late requests where the load per host is
highest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fleet_controller.policies import Decision
from fleet_controller.simulate.report import Oracle, Report
from fleet_controller.simulate.run import Run, Setting, learned_curve
from fleet_controller.simulate.trace import Trace
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import Signal
from fleet_wire.capacity import ModelLoad, pool_capacity

NEED_S = 10  # a need that is shorter than this is a queue, not a host
TRIES = 6
STEP = 1.1
LEAST_SERVERS = 1


class Clairvoyant:
    """The number of hosts, look by look; `first` are ready when the trace begins."""

    def __init__(self, rates: Sequence[float], setting: Setting, host_rps: float, most: int) -> None:
        step = setting.interval_s
        self.step, self.start_at = step, setting.start_at
        need = []
        for look in range(math.ceil(len(rates) / step) + 2):
            span = rates[int(look * step) : max(int(look * step) + 1, int((look + 1) * step))]
            ahead = max(span, default=rates[-1])
            need.append(min(most, max(LEAST_SERVERS, math.ceil(ahead / host_rps - 1e-9))))
        self.wanted = with_starts(need, round(setting.startup_s / step) + 1)
        self.first = self.wanted[0]  # also what a start before the trace would have brought

    def __call__(self, signal: Signal, now: float) -> Decision:
        look = min(len(self.wanted) - 1, round((now - self.start_at) / self.step))
        return Decision(desired=self.wanted[look], reason="knows what comes")


def with_starts(need: Sequence[int], start: int) -> list[int]:
    """Hosts that run or start at each look, where a start takes `start` looks: for each level the spans of need, each
    begun a start earlier, and what lies between two that then touch."""
    wanted = [0] * len(need)
    for level in range(1, max(need) + 1):
        last = None
        for look, needed in enumerate(need):
            if needed < level:
                continue
            first = max(0, look - start) if last is None or look - last > start else last + 1
            for k in range(first, look + 1):
                wanted[k] += 1
            last = look
    return wanted


def oracle(trace: Trace, spec: ScalingSpec, setting: Setting, share: float) -> Oracle | None:
    """The cheapest run of the clairvoyant that keeps `share` (0..1) within the target of `setting`; None where not
    even all the hosts do, or nothing asks for it."""
    if setting.target_ms is None or not trace.requests or not trace.seconds:
        return None
    most = setting.max_hosts or spec.max_servers
    rates = seen_ahead(per_second(trace))
    curve = setting.curve
    models = (ModelLoad("simulated", 0, 0, curve.max_batch, learned_curve(curve)),)
    pool = max(1, min(most, math.ceil(max(rates) / curve.capacity_rps)))
    limit = (
        pool_capacity([models] * pool, setting.target_ms, 100 * min(share, 0.999)) or 0.7 * curve.capacity_rps
    )
    low, high, best = 0.0, math.inf, None
    tried: set[tuple[int, ...]] = set()
    for _ in range(TRIES):
        policy = Clairvoyant(rates, setting, limit, most)
        if tuple(policy.wanted) in tried:
            break
        tried.add(tuple(policy.wanted))
        told = replace(setting, initial=policy.first, planned=False, blind=True, max_hosts=most)
        report = Run(trace, spec, told, policy).to_the_end()
        if report.within_target is not None and report.within_target >= share:
            low = limit
            best = report if best is None or report.server_hours < best.server_hours else best
        else:
            high = limit
        limit = low * STEP if high == math.inf else high / STEP if not low else (low + high) / 2
    return None if best is None else _told(best, share)


def _told(report: Report, share: float) -> Oracle:
    return Oracle(
        share=share,
        within_target=report.within_target or 0.0,
        server_hours=report.server_hours,
        cost=report.cost,
        peak_servers=report.peak_servers,
    )


def per_second(trace: Trace) -> list[float]:
    """Requests per second, second by second."""
    rates = [0.0] * (int(trace.seconds) + 1)
    width = trace.interval_s
    for start, count in trace.rows:
        if width <= 1.0:
            rates[int(start)] += count
            continue
        for second in range(int(start), min(len(rates), math.ceil(start + width))):
            overlap = min(second + 1.0, start + width) - max(float(second), start)
            rates[second] += count / width * overlap
    return rates


def seen_ahead(rates: Sequence[float]) -> list[float]:
    """The mean of the next NEED_S seconds, at each second."""
    total, means = sum(rates[:NEED_S]), []
    for second in range(len(rates)):
        means.append(max(0.0, total) / min(NEED_S, len(rates) - second))
        total -= rates[second]
        if second + NEED_S < len(rates):
            total += rates[second + NEED_S]
    return means
