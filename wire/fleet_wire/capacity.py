"""What a server carries within a latency target, from what a batch costs there: a queueing model, no trial.

A free host takes what waits as one batch. At a load of r requests/s the batch that gathers while one of n runs is
r x s(n); where the two are equal the host is in balance, so n = r x s(n). A request waits for the batch that runs and
for its own: s(n) + s(n') with n' a batch as large as the percentile asks (n + z sqrt(n / c): c hosts under
least_connections share their peaks). Near the largest batch b a queue is left over; its tail falls by exp(-theta) a
request, with r x s(b) x (e^theta - 1) = theta x b (Poisson arrivals into batches: Kingman 1962 for the bound, Bailey
1954 for the bulk queue). While some host is free nobody waits: Erlang's C. Several models take turns on one device.
Checked against the simulation in the tests. PURE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

Curve = tuple[tuple[float, float], ...]

ECHO_MOST = 0.95
BEFORE = 0.6  # of the spread: how much larger than usual the batch is that runs when an unlucky request comes
RARE = 0.01  # of the requests: a model with less says nothing about what a host carries
STEPS = 30  # halvings
DIGITS = 3  # of shares and sizes: finer ones would only fill the memory of answers


class ModelLoad(NamedTuple):
    """One model on one host: requests answered, items that went to the device for them, the largest batch, and what a
    batch costs, as the agent reports it: (items, seconds); empty: not known yet."""

    name: str
    completed: int
    items: int
    max_batch: int
    curve: Curve


class _Part(NamedTuple):
    """A model's part of the load: items per request of the host (whichever model that is for)."""

    share: float
    items: float
    max_batch: int
    curve: Curve


def batch_seconds(curve: Curve, items: float) -> float:
    """How long a batch of so many items takes: between two known sizes in a straight line, beyond the largest one in
    proportion, under the smallest one as that.
    """
    size, seconds = curve[0]
    if items <= size:
        return seconds
    for larger, longer in curve[1:]:
        if items <= larger:
            return seconds + (longer - seconds) * (items - size) / (larger - size)
        size, seconds = larger, longer
    return seconds * items / size


def true_curve(points: Sequence[tuple[float, float]]) -> Curve:
    """The points that can be true, in order of size, a longer batch never shorter than a smaller one."""
    kept: list[tuple[float, float]] = []
    for items, seconds in sorted(points):
        if not (math.isfinite(items) and math.isfinite(seconds) and items > 0 and seconds > 0):
            continue
        if kept and items <= kept[-1][0]:
            continue
        kept.append((items, max(seconds, kept[-1][1]) if kept else seconds))
    return tuple(kept)


def pool_capacity(hosts: Sequence[Sequence[ModelLoad]], target_ms: float, percentile: float) -> float | None:
    """Requests/s that one of these hosts carries with `percentile` (50..99.9) of the answers within `target_ms`, in the
    mix of models that they all answered so far; the mean over those whose models have curves. None where none has, or
    where a single request takes longer than the target.
    """
    done: dict[str, int] = {}
    items: dict[str, int] = {}
    for models in hosts:
        for model in models:
            done[model.name] = done.get(model.name, 0) + max(0, model.completed)
            items[model.name] = items.get(model.name, 0) + max(0, model.items)
    total = sum(done.values())
    found = []
    for models in hosts:
        parts = []
        for model in models:
            share = done[model.name] / total if total else 1.0 / len(models)
            if share < RARE:
                continue
            each = max(1.0, items[model.name] / done[model.name]) if done[model.name] else 1.0
            parts.append(_Part(_rounded(share), _rounded(each), model.max_batch, true_curve(model.curve)))
        if parts and all(part.curve for part in parts):
            carries = capacity(tuple(parts), len(hosts), target_ms / 1000.0, percentile / 100.0)
            if carries:
                found.append(carries)
    return sum(found) / len(found) if found else None


@lru_cache(maxsize=4096)
def capacity(parts: tuple[_Part, ...], hosts: int, target_s: float, quantile: float) -> float:
    """Requests/s that each of so many equal hosts carries; 0: not even one fits."""
    low, high = 0.0, 0.0
    for part in parts:
        fastest = max(n / batch_seconds(part.curve, n) for n in _sizes(part))
        high = max(high, fastest / (part.items * part.share))
    if _latency_s(high * 1e-6, parts, hosts, quantile) > target_s:
        return 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _latency_s(middle, parts, hosts, quantile) <= target_s else (low, middle)
        )
    return low


def _sizes(part: _Part) -> list[float]:
    return [n for n, _ in part.curve if n < part.max_batch] + [float(part.max_batch)]


def _latency_s(rate: float, parts: tuple[_Part, ...], hosts: int, quantile: float) -> float:
    """The latency that a share `quantile` of the requests keeps where each host gets `rate` of them a second."""
    alone = sum(part.share * batch_seconds(part.curve, part.items) for part in parts)
    if rate * alone < 1.0 and _all_busy(hosts, rate * alone) <= 1.0 - quantile:
        return max(batch_seconds(part.curve, part.items) for part in parts)
    loads = [rate * part.share * part.items for part in parts]
    cycle = _cycle_s(parts, loads)
    z = NormalDist().inv_cdf(quantile)
    own, before, late = 0.0, 0.0, 0.0
    for part, load in zip(parts, loads, strict=True):
        mean = max(part.items, load * cycle)
        # a long batch gathers a large one: the spread of an autoregressive chain with the curve's slope x load
        echo = min(ECHO_MOST, load * _slope(part.curve, min(mean, part.max_batch)))
        spread = z * math.sqrt(mean * part.items / hosts / (1.0 - echo * echo))
        most, busy = mean + spread, min(1.0, load * cycle / part.items)
        own += busy * batch_seconds(part.curve, min(most, part.max_batch))
        before += busy * batch_seconds(part.curve, min(mean + BEFORE * spread, part.max_batch))
        if most > part.max_batch:
            left = _left_over(load * cycle / part.max_batch, part.max_batch / part.items, quantile) / hosts
            late = max(late, left)
    longest = max(batch_seconds(part.curve, part.items) for part in parts)
    return max(before, cycle, longest) + max(own, longest) * max(1.0, late)


def _slope(curve: Curve, items: float) -> float:
    """Seconds that one more item in such a batch takes."""
    return batch_seconds(curve, items + 0.5) - batch_seconds(curve, max(1.0, items - 0.5))


def _cycle_s(parts: tuple[_Part, ...], loads: Sequence[float]) -> float:
    """How long each model's batch takes together, when each holds what came in meanwhile."""
    least = max(batch_seconds(part.curve, part.items) for part in parts)
    cycle = least
    for _ in range(200):
        longer = 0.0
        for part, load in zip(parts, loads, strict=True):
            size = load * cycle
            seconds = batch_seconds(part.curve, min(part.max_batch, max(part.items, size)))
            longer += seconds * min(1.0, size / part.items)
        longer = max(least, longer)
        if abs(longer - cycle) <= 1e-6 * cycle:
            break
        cycle = longer
    return cycle


def _left_over(busy: float, batch: float, quantile: float) -> float:
    """How many batches wait, at the quantile, where a share `busy` of the largest batch comes in while one runs."""
    if busy >= 1.0:
        return math.inf
    low, high = 1e-9, 50.0
    for _ in range(60):
        theta = (low + high) / 2
        low, high = (theta, high) if busy * math.expm1(theta) < theta else (low, theta)
    return math.log(1.0 / (1.0 - quantile)) / low / batch


def _all_busy(hosts: int, load: float) -> float:
    """Erlang's C: the share of requests that find no host free, each host busy for a share `load` of the time."""
    blocked = 1.0
    for n in range(1, hosts + 1):  # Erlang's B, by its recursion
        blocked = load * hosts * blocked / (n + load * hosts * blocked)
    return blocked / (1.0 - load * (1.0 - blocked))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
