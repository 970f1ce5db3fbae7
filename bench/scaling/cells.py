"""A cell: one trace at one start-up time. The same arrivals, hosts and first size for every policy.

Each trace is smoothed as its index says (thin traces would show shot noise instead of traffic), scaled to PEAK_RPS in
the evaluated span, and its arrivals are drawn once, as a Poisson process of that rate. What lies before the span is
history: a policy that remembers may see its arrivals, a look a minute, before the run begins.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleet_controller.simulate.hosts import ServiceCurve
from fleet_controller.simulate.trace import Trace, read_trace

PEAK_RPS = 480.0
TARGET_MS = 500.0
STARTUPS_S = (60.0, 240.0)
INTERVAL_S = 5.0
MAX_HOSTS = 100
CURVE = ServiceCurve(base_s=0.034, per_request_s=0.0217, max_batch=16)
FIRST_UTILIZATION = 0.8
EPOCH = 1_790_035_200.0  # a midnight: where each trace's first row lies on the clock


@dataclass(frozen=True)
class Load:
    """A trace ready to run. `rate` is requests/s per second of the evaluated span, `history` the rates per interval
    of what came before."""

    name: str
    rate: np.ndarray[Any, Any]
    arrivals: np.ndarray[Any, Any]
    history: np.ndarray[Any, Any]
    interval_s: float
    start_at: float

    @property
    def seconds(self) -> float:
        return float(len(self.rate))

    @property
    def trace(self) -> Trace:
        """The span as counts per second, for the simulation's clock (its arrivals are handed in)."""
        counts = np.bincount(self.arrivals.astype(np.int64), minlength=len(self.rate))
        return Trace(tuple((float(s), int(n)) for s, n in enumerate(counts)), 1.0)


def loads(folder: Path, seconds: float | None = None, only: str = "") -> list[Load]:
    """Every trace of `folder` whose name holds `only`; `seconds` cuts the evaluated span (around its peak). A CSV
    without an entry in index.json is evaluated from a week on, or as a whole."""
    index = folder / "index.json"
    known: dict[str, dict[str, float]] = json.loads(index.read_text()) if index.exists() else {}
    files = [file for file in sorted(folder.glob("*.csv")) if only in file.stem]
    return [load(file, known.get(file.stem, {}), seconds) for file in files]


def load(file: Path, facts: dict[str, Any], seconds: float | None = None) -> Load:
    with file.open(encoding="utf-8-sig") as lines:
        trace = read_trace(lines)
    dt = trace.interval_s
    if not dt:
        raise ValueError(f"{file}: the bench needs counts per interval (timestamp_s,requests)")
    counts = np.zeros(round(trace.seconds / dt))
    for at, count in trace.rows:
        counts[round(at / dt)] = count
    width = max(1, round(facts.get("smoothing_s", dt) / dt))
    ones = np.ones(width)
    rate = np.convolve(counts / dt, ones, "same") / np.convolve(np.ones(len(counts)), ones, "same")
    begin = facts.get("evaluate_from_s", 604_800.0 if trace.seconds > 604_800 + 3600 else 0.0)
    end = min(trace.seconds, begin + facts.get("evaluate_seconds", 86_400.0))
    span = rate[round(begin / dt) : round(end / dt)]
    scale = PEAK_RPS / span.max()
    if seconds is not None and end - begin > seconds:
        peak = begin + float(span.argmax()) * dt
        first = min(max(begin, peak - 0.7 * seconds), end - seconds)
        begin, end = first - first % dt, first - first % dt + seconds
        span = rate[round(begin / dt) : round(end / dt)]
    centres = (np.arange(len(span)) + 0.5) * dt
    per_second = scale * np.interp(np.arange(round(end - begin)) + 0.5, centres, span)
    chance = np.random.default_rng(1)
    drawn = chance.poisson(per_second)
    times = np.repeat(np.arange(len(drawn), dtype=float), drawn) + chance.random(int(drawn.sum()))
    times.sort()
    return Load(file.stem, per_second, times, scale * rate[: round(begin / dt)], dt, EPOCH + begin)


def first_hosts(load: Load, startup_s: float, host_rps: float) -> int:
    """Hosts that are ready when the span begins: what its first minutes need until one started then is ready."""
    return max(1, math.ceil(load.rate[: int(startup_s + 120)].max() / (FIRST_UTILIZATION * host_rps)))
