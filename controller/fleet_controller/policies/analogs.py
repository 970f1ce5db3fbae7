"""What came after minutes like this one: a forecast with its spread, from the pool's own past.

An analog is a past minute with about the same minute of the hour and the same recent shape; what came after it,
relative to its level, may come now (nearest neighbours of the shape: analog forecasting, Lorenz 1969; as in MArk and
Cocktail for the size of a fleet, but without a model to train). To them come, with little weight, what the last hours
did whatever the minute, the present trend carried on, and, while there is little past, a guess of how fast traffic
grows. The result is not a number but a table: how high the load may get in a span of minutes, with which weight.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from fleet_controller.policies.arrivals import STEPS, decoded

HOUR, DAY = 60, 1440
NEIGHBOURS = 60
REACH = 2  # minutes beside the same minute of the hour
LITTLE = 2 * DAY  # with less past than this every minute of the hour may serve
LOOKBACK = 61  # minutes that a shape needs
MINUTE_STEP = 60  # what a minute of the dial off counts, in the codes' steps (a tenth)
DAY_STEP = 0.2
DIAL_MOST, DAY_MOST = 10, 240
RECENT, RECENT_EVERY, RECENT_WEIGHT = 180, 3, 0.05
TREND_WEIGHT, TREND_MOST = 0.05, 30.0  # at most 16 % a minute
GUESS_MINUTES = 30.0  # so much past weighs as much as the guess
GUESS_GROWTH = 12.0  # steps a root minute: 6 %
GUESS = ((-1.0, 0.2), (0.0, 0.3), (1.0, 0.3), (1.6, 0.13), (2.2, 0.05), (2.8, 0.02))
# a minute's peak is a rate over 15 s: alone it is short, and the limit has room for a little over it
BRIEF_S, BRIEFLY = 40.0, 0.95
STEEP_RISE = 120.0  # steps: 1.8 times the level
NEAR_PEAK = 40  # steps: minutes within a fifth of a path's highest count as long as it


class Case(NamedTuple):
    """One way on: the highest load in the span is `rise` steps over the level (STEPS to a factor e), near it for
    `minutes`; `weight` of all is 1 together."""

    rise: float
    minutes: int
    weight: float


class Outlook(NamedTuple):
    """The cases of a span, by rise. `factors` are their loads over the level, ascending; `weights[i]` and `loads[i]`
    sum weight x seconds late, and that x factor, over the cases from i on.
    """

    factors: tuple[float, ...]
    weights: tuple[float, ...]
    loads: tuple[float, ...]

    def late(self, carried: float, most: float) -> float:
        """Requests late, over the level, where `carried` times the level can be carried; no case goes over `most`."""
        if carried >= most:
            return 0.0
        short, cut = bisect_right(self.factors, carried), bisect_right(self.factors, most)
        return self.loads[short] - self.loads[cut] + most * self.weights[cut]


@lru_cache(maxsize=32)
def outlook(codes: str, first: int, end: int, known: int, late_s: float, steep: float = 1.0) -> Outlook:
    """The outlook from `first` to before `end` minutes from now, where a surge stays late for at most `late_s`.
    Analogs are minutes of which the next `known` are known. Being late in a steep case counts `steep` times.
    """
    ahead = []
    for rise, minutes, weight in cases(codes, first, end, known):
        brief = BRIEFLY if minutes == 1 else 1.0
        counts = steep if rise > STEEP_RISE else 1.0
        seconds = min(late_s, 60.0 * minutes - BRIEF_S)
        ahead.append((brief * math.exp(rise / STEPS), weight * counts * seconds))
    factors, weights, loads = [], [0.0], [0.0]
    for factor, seconds in sorted(ahead, reverse=True):
        factors.append(factor)
        weights.append(weights[-1] + seconds)
        loads.append(loads[-1] + seconds * factor)
    return Outlook(tuple(reversed(factors)), tuple(reversed(weights)), tuple(reversed(loads)))


def cases(codes: str, first: int, end: int, known_minutes: int) -> tuple[Case, ...]:
    """What may happen from `first` to before `end` minutes from now (0 is the minute that has just begun), sorted by
    rise. `codes` are those of Arrivals.
    """
    past = decoded(codes)
    found: list[Case] = []
    known = len(past)
    guessed = GUESS_MINUTES / (GUESS_MINUTES + min(known, 2 * DAY))
    starts = _neighbours(codes, known_minutes)
    latest = known - known_minutes
    recent = [j for j in range(latest, max(0, latest - RECENT), -RECENT_EVERY) if j >= 1]
    sure = 1.0 - guessed - TREND_WEIGHT
    if not starts and not recent:
        sure, guessed = 0.0, 1.0 - TREND_WEIGHT
    shares = ((starts, 1.0 - RECENT_WEIGHT if recent else 1.0), (recent, RECENT_WEIGHT if starts else 1.0))
    for chosen, share in shares:
        for j in chosen:
            found.append(
                _case(
                    past[j + first : j + known_minutes], end - first, past[j - 1], sure * share / len(chosen)
                )
            )
    found += [_trend(past, lag, end) for lag in (3, 6, 10)]
    spread = GUESS_GROWTH * math.sqrt(end)
    found += [Case(max(0.0, z) * spread, end - first, weight * guessed) for z, weight in GUESS]
    return tuple(sorted(found))


def _case(path: Sequence[int], span: int, level: int, weight: float) -> Case:
    """The highest of the first `span` minutes of `path`, and for how many minutes on end the load stays near it."""
    highest = max(path[:span])
    near = [c > highest - NEAR_PEAK for c in path]
    began = near.index(True)
    ended = near.index(False, began) if False in near[began:] else len(near)
    return Case(float(highest - level), ended - began, weight)


def _trend(past: Sequence[int], lag: int, end: int) -> Case:
    slope = 0.0
    if len(past) > 12:
        width = (lag + 1) // 2
        slope = (sum(past[-width:]) - sum(past[-width - lag : -lag])) / width / lag
    return Case(min(max(slope, 0.0), TREND_MOST) * end, end, TREND_WEIGHT / 3)


@lru_cache(maxsize=32)
def _neighbours(codes: str, end: int) -> tuple[int, ...]:
    """Past minutes (places in the codes) like the one that has just begun, whose `end` next minutes are known."""
    past = decoded(codes)
    now = len(past)
    if now < LOOKBACK + end + NEIGHBOURS // 4:
        return ()
    reach = REACH if now >= LITTLE else HOUR // 2
    three, ten, thirty, sixty = (past[now - 1] - past[now - lag] for lag in (3, 11, 31, 61))
    far: list[tuple[float, int]] = []
    for off in range(-reach, reach + (reach < HOUR // 2)):
        # the places j = now + off - 60 k, latest first, of which j - 61 and j + end are known
        j0 = now + off - HOUR
        while j0 + end > now:
            j0 -= HOUR
        count = (j0 - LOOKBACK) // HOUR + 1
        if count <= 0:
            continue
        stop = j0 - HOUR * (count - 1)
        last, b, c, d, e = (past[stop - lag : j0 - lag + 1 : HOUR] for lag in (1, 3, 11, 31, 61))
        dial = MINUTE_STEP * min(abs(off), DIAL_MOST)
        far += [
            (
                abs(v - w - three) + abs(v - x - ten) + abs(v - y - thirty) + abs(v - z - sixty) + dial
                + DAY_STEP * min(abs((j - now + DAY // 2) % DAY - DAY // 2), DAY_MOST),
                j,
            )
            for v, w, x, y, z, j in zip(last, b, c, d, e, range(stop, j0 + 1, HOUR), strict=True)
        ]  # fmt: skip
    return tuple(j for _, j in heapq.nsmallest(NEIGHBOURS, far))
