"""The oracle: it knows every arrival and the start-up time, and rents the fewest host-hours that keep the target.

Need: the fewest hosts whose load per host stays under a limit, looking at the arrivals of the next NEED_S. Each host
number k is needed in some spans; it is started so that it is ready when a span begins, and kept through a gap that is
shorter than a start, for a start costs as much (for one limit this is exact: the levels don't interact). The limit is
then raised until the simulated share within the target is just SHARE. Near-optimal, not a proven bound: one limit for
the whole trace spends the allowance where the load per host is highest.
"""

from __future__ import annotations

import numpy as np
from bench.scaling.cells import INTERVAL_S, MAX_HOSTS, Load
from bench.scaling.field import run
from bench.scaling.peers import Look

from fleet_controller.simulate.oracle import with_starts
from fleet_controller.simulate.report import Report

SHARE = 0.995
NEED_S = 10
TRIES = 6
LEAST, MOST = 0.8, 1.3  # of a host's capacity


class Clairvoyant:
    """The number of hosts, by tick; `first` are ready when the trace begins."""

    period_s = INTERVAL_S
    sees: frozenset[str] = frozenset()

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
        self.wanted = with_starts(need.tolist(), round(startup_s / step) + 1)
        self.first = self.wanted[0]  # also what a start before the trace would have brought

    def __call__(self, look: Look, now: float) -> int:
        return self.wanted[min(len(self.wanted) - 1, round((now - self.start_at) / INTERVAL_S))]


def oracle(load: Load, startup_s: float, host_rps: float) -> Report:
    """The cheapest run of the clairvoyant that keeps SHARE. Raises RuntimeError where none does."""
    low, high = LEAST, MOST
    best = _within(load, startup_s, host_rps, low)
    while best is None:
        low, high = low - 0.2, low
        if low < 0.1:
            raise RuntimeError(f"{load.name}: no oracle keeps {SHARE:.1%}, whatever it spends")
        best = _within(load, startup_s, host_rps, low)
    for _ in range(TRIES):
        share = (low + high) / 2
        report = _within(load, startup_s, host_rps, share)
        if report is None:
            high = share
        else:
            low = share
            best = min(best, report, key=lambda r: r.server_hours)
    return best


def _within(load: Load, startup_s: float, host_rps: float, share: float) -> Report | None:
    """The clairvoyant's run at this share of a host's capacity; None where it doesn't keep SHARE."""
    policy = Clairvoyant(load, startup_s, share * host_rps)
    report = run(load, startup_s, policy, host_rps, initial=policy.first)
    return report if report.within_target is not None and report.within_target >= SHARE else None
