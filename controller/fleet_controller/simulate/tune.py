"""Searches a scaling block's knobs for the cheapest setting that keeps the promise, on one part of the traffic.

One knob at a time, each value tried in turn, round after round until nothing gets better (coordinate descent: a few
dozen runs where a grid would take thousands). What is found is judged on the other part, which the search never saw:
a setting that was learned by heart shows there. max_servers, schedules and the promise itself stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet_controller.simulate.report import Report
from fleet_controller.simulate.trace import Trace
from fleet_controller.spec.scaling import ScalingSpec

SEARCH_SHARE = 0.6  # of the traffic's time; the rest judges
MOST_RUNS = 40
JUDGED = 5  # settings that are judged, the cheapest first, until one holds
APART = (
    1.03  # after one that failed, others of about its hours are not tried: they are the same in other words
)
WORTH = 0.995  # of the hours: less gained is noise

Knob = tuple[str, ...]
Value = float | int | bool | None


@dataclass(frozen=True)
class Tried:
    """A setting (what differs from the one that there is) and what came of it."""

    changes: tuple[tuple[Knob, Value], ...]
    report: Report

    def holds(self, share: float) -> bool:
        return (self.report.within_target or 0.0) >= share

    def rank(self, share: float) -> tuple[float, float, int]:
        """Smaller is better: first those that hold, by their hours; then the others, by how much they lack."""
        missing = max(0.0, share - (self.report.within_target or 0.0))
        return missing, self.report.server_hours, len(self.changes)


@dataclass
class Tuned:
    """What the search found, on the part that was searched and on the one that judges. `best` None: nothing there is
    both cheaper and keeps the promise; `closest` is what came nearest to it in the search."""

    share: float
    before: Tried
    before_judged: Report
    closest: Tried
    best: Tried | None = None
    best_judged: Report | None = None
    runs: int = 0
    refused: list[tuple[Tried, Report]] = field(default_factory=list)


def split(trace: Trace, share: float = SEARCH_SHARE) -> tuple[Trace, Trace]:
    """The part to search on and the part to judge on, each counted from its own beginning. Raises ValueError for
    traffic that is too short for both."""
    edge = trace.seconds * share
    if trace.interval_s:
        edge = trace.interval_s * round(edge / trace.interval_s)
    first = tuple(row for row in trace.rows if row[0] < edge - 1e-9)
    rest = tuple((at - edge, count) for at, count in trace.rows if at >= edge - 1e-9)
    if len(first) < 2 or len(rest) < 2 or not sum(n for _, n in first) or not sum(n for _, n in rest):
        raise ValueError("the traffic is too short to search on one part of it and to judge on the other")
    return Trace(first, trace.interval_s, trace.began), Trace(rest, trace.interval_s, trace.began + edge)


def knobs(spec: ScalingSpec) -> Iterator[tuple[Knob, tuple[Value, ...]]]:
    """The knobs that move this pool, and the values to try."""
    if spec.target_utilization is not None:
        yield ("target_utilization",), (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    if spec.queue is not None:
        yield ("queue", "target_per_server"), (1.0, 2.0, 4.0, 8.0, 16.0)
    if spec.latency is not None and spec.latency.percentile < 99:
        yield ("latency", "percentile"), (spec.latency.percentile, 99.0)
    if spec.latency is not None or spec.target_utilization is not None:
        yield ("predictive", "enabled"), (True, False)
    floors = {spec.min_servers, *(n for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89) if n <= spec.max_servers)}
    yield ("min_servers",), tuple(sorted(floors))
    yield ("stabilization", "scale_down"), (60.0, 300.0, 900.0)
    yield ("cooldown", "scale_down"), (60.0, 120.0, 300.0, 900.0)
    yield ("cooldown", "scale_up"), (0.0, 30.0, 60.0)


def value(spec: ScalingSpec, knob: Knob) -> Value:
    found: Any = spec
    for step in knob:
        found = getattr(found, step)
    return found  # type: ignore[no-any-return]


def changed(spec: ScalingSpec, changes: dict[Knob, Value]) -> ScalingSpec:
    """`spec` with these values."""
    for knob, new in changes.items():
        if len(knob) == 1:
            spec = spec.model_copy(update={knob[0]: new})
        else:
            block = getattr(spec, knob[0]).model_copy(update={knob[1]: new})
            spec = spec.model_copy(update={knob[0]: block})
    return spec


def tune(
    spec: ScalingSpec,
    share: float,
    search: Callable[[ScalingSpec], Report],
    judge: Callable[[ScalingSpec], Report],
    *,
    most_runs: int = MOST_RUNS,
    told: Callable[[int, Tried], None] | None = None,
) -> Tuned:
    """`search` and `judge` simulate a setting on their part of the traffic. `told` hears of each run of the search."""
    runs: dict[tuple[tuple[Knob, Value], ...], Tried] = {}

    def tried(changes: dict[Knob, Value]) -> Tried:
        real = {knob: new for knob, new in changes.items() if new != value(spec, knob)}
        key = tuple(sorted(real.items(), key=lambda change: change[0]))
        if key not in runs:
            runs[key] = Tried(key, search(changed(spec, real)))
            if told is not None:
                told(len(runs), runs[key])
        return runs[key]

    before = best = tried({})
    better = True
    while better and len(runs) < most_runs:
        better = False
        for knob, values in knobs(spec):
            for new in values:
                if len(runs) >= most_runs:
                    break
                here = tried({**dict(best.changes), knob: new})
                if _better(here, best, share):
                    best, better = here, True
    found = Tuned(share, before, judge(spec), best, runs=len(runs))
    least = 0.0
    for one in sorted(runs.values(), key=lambda t: t.rank(share)):
        if not one.changes or not one.holds(share) or not _better(one, before, share):
            break
        if len(found.refused) >= JUDGED or one.report.server_hours < least:
            continue
        report = judge(changed(spec, dict(one.changes)))
        failed_before = (found.before_judged.within_target or 0.0) < share
        cheaper = report.server_hours < WORTH * found.before_judged.server_hours
        if (report.within_target or 0.0) >= share and (cheaper or failed_before):
            found.best, found.best_judged = one, report
            break
        found.refused.append((one, report))
        least = APART * one.report.server_hours
    return found


def _better(one: Tried, other: Tried, share: float) -> bool:
    if one.holds(share) and other.holds(share):
        return one.report.server_hours < WORTH * other.report.server_hours
    return one.rank(share) < other.rank(share)
