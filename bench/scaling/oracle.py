"""The oracle: it knows every arrival and the start-up time, and rents the fewest host-hours that keep the target.

Need: the fewest hosts whose load per host stays under a limit, looking at the arrivals of the next NEED_S. Each host
number k is needed in some spans; it is started so that it is ready when a span begins, and kept through a gap that is
shorter than a start, for a start costs as much (for one limit this is exact: the levels don't interact). The limit is
then raised until the simulated share within the target is just SHARE. Near-optimal, not a proven bound: one limit for
the whole trace spends the allowance where the load per host is highest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bench.scaling.cells import INTERVAL_S, MAX_HOSTS, Load
from bench.scaling.field import run

from fleet_controller.policies import Decision
from fleet_controller.simulate.report import Report
from fleet_controller.window import Signal

SHARE = 0.995
NEED_S = 10
TRIES = 6
LEAST, MOST = 0.8, 1.3  # of a host's capacity


class Clairvoyant:
    """The number of hosts, by tick; `first` are ready when the trace begins."""

    def __init__(self, load: Load, startup_s: float, host_rps: float) -> None:
        window = np.ones(NEED_S) / NEED_S
        rates = np.convolve(
            np.bincount(load.arrivals.astype(np.int64), minlength=len(load.rate)), window, "valid"
        )
        step = int(INTERVAL_S)
        ticks = len(load.rate) // step + 2
        padded = np.concatenate([rates, np.full(ticks * step - len(rates) + step, rates[-1])])
        # what comes from this tick on until one look later
        ahead = np.array([padded[t * step : t * step + step].max() for t in range(ticks)])
        need = np.clip(np.ceil(ahead / host_rps), 1, MAX_HOSTS).astype(int)
        self.start_at = load.start_at
        self.wanted = _with_starts(need, round(startup_s / step) + 1)
        self.first = int(
            self.wanted[0]
        )  # ready when the trace begins: also what a start before it would have brought

    def __call__(self, signal: Signal, now: float) -> Decision:
        tick = min(len(self.wanted) - 1, round((now - self.start_at) / INTERVAL_S))
        return Decision(desired=int(self.wanted[tick]), reason="knows what comes")


def _with_starts(need: np.ndarray[Any, Any], start: int) -> np.ndarray[Any, Any]:
    """Hosts that run or start at each tick: for each level the spans of need, gaps under a start filled, each begun
    a start earlier."""
    wanted = np.zeros(len(need), dtype=int)
    for level in range(1, int(need.max()) + 1):
        on = np.flatnonzero(need >= level)
        breaks = np.flatnonzero(np.diff(on) > start)
        for first, last in zip(np.r_[on[0], on[breaks + 1]], np.r_[on[breaks], on[-1]], strict=True):
            wanted[max(0, first - start) : last + 1] += 1
    return wanted


def oracle(load: Load, startup_s: float, host_rps: float) -> Report:
    """The cheapest run of the clairvoyant that keeps SHARE. Raises RuntimeError where none does."""
    low, high = LEAST, MOST
    best: Report | None = None
    for attempt in range(TRIES + 1):
        share = low if not attempt else (low + high) / 2
        policy = Clairvoyant(load, startup_s, share * host_rps)
        report = run(load, startup_s, policy, host_rps, initial=policy.first)
        if report.within_target is not None and report.within_target >= SHARE:
            low = share
            if best is None or report.server_hours < best.server_hours:
                best = report
        else:
            high = share
    if best is None:
        raise RuntimeError(
            f"{load.name}: no oracle keeps {SHARE:.1%} with a limit of {LEAST} x {host_rps:.1f} requests/s"
        )
    return best
