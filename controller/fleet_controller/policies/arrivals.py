"""What came in, minute by minute, for eight days: the memory that forecasts look into.

One number a minute: the largest arrival rate of its looks, as round(200 x ln(1 + 10 x rate)), that is in steps of half
a percent; as base64 of two bytes each. Eight days are 31 kB of text, which is what the journal keeps of them.
"""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64decode, b64encode
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

MINUTE_S = 60.0
KEPT = 8 * 1440  # minutes
STEPS = 200.0  # per factor e
MOST = 65_535
HOUR, DAY = 60, 1440
KEPT_MINUTES = 5  # for so long a pool keeps what it had (cooldown scale_down)
LONGEST_GAP = 1440  # minutes without a look: what came before is another life


def code(rate: float) -> int:
    return min(MOST, round(STEPS * math.log1p(10.0 * max(0.0, rate))))


def rate(code: float) -> float:
    return math.expm1(code / STEPS) / 10.0


class Arrivals(BaseModel):
    """`codes` are the complete minutes, the last of which ended at minute `minute` (of Unix time), where `peak` is
    growing.
    """

    model_config = ConfigDict(frozen=True)

    minute: int
    peak: float
    codes: str = ""

    def minutes(self) -> tuple[int, ...]:
        """The codes of the complete minutes, oldest first."""
        return decoded(self.codes)


def seen(arrivals: Arrivals | None, rate_now: float, now: float) -> Arrivals:
    """The memory after a look at `now` that saw `rate_now`."""
    minute = int(now // MINUTE_S)
    if arrivals is None or not 0 <= minute - arrivals.minute <= LONGEST_GAP:
        return Arrivals(minute=minute, peak=rate_now)
    if minute == arrivals.minute:
        return arrivals if rate_now <= arrivals.peak else arrivals.model_copy(update={"peak": rate_now})
    values = _unpacked(arrivals.codes)
    values.extend(
        [code(arrivals.peak)] * (minute - arrivals.minute)
    )  # a minute without a look was as the one before
    return Arrivals(minute=minute, peak=rate_now, codes=_packed(values[-KEPT:]))


def moved(arrivals: Arrivals, seconds: float) -> Arrivals:
    """After the clock jumped by `seconds`: by whole minutes, for hours and days keep their places on the dial."""
    return arrivals.model_copy(update={"minute": arrivals.minute + round(seconds / MINUTE_S)})


@lru_cache(maxsize=32)
def decoded(codes: str) -> tuple[int, ...]:
    return tuple(_unpacked(codes))


@lru_cache(maxsize=32)
def usual(codes: str) -> float:
    """The median rate of the last hour, or of its last quarter if that is higher; 0 before there is an hour."""
    last = decoded(codes)[-HOUR:]
    if len(last) < HOUR:
        return 0.0
    return rate(max(sorted(last)[HOUR // 2], sorted(last[-HOUR // 4 :])[HOUR // 8]))


@lru_cache(maxsize=32)
def sudden(codes: str, ahead: int) -> float:
    """The share of the last day's load in minutes with more than twice that of `ahead` minutes before."""
    past = decoded(codes)[-DAY:]
    loads = [rate(c) for c in past[ahead:]]
    twice = STEPS * math.log(2.0)
    burst = sum(
        load for load, now, before in zip(loads, past[ahead:], past, strict=False) if now - before > twice
    )
    return burst / sum(loads) if sum(loads) > 0 else 0.0


def steep(arrivals: Arrivals, ahead: int) -> float:
    """The share of what came in in minutes with more than twice the load of any of the six minutes up to `ahead`
    before: nothing that ran because of those could have carried it. Over whole hours, for it changes slowly.
    """
    past = arrivals.minutes()
    hours = (len(past) - arrivals.minute % HOUR) // HOUR
    end = len(past) - arrivals.minute % HOUR
    return _steep(past[end - HOUR * hours : end], ahead) if hours > 0 else 0.0


@lru_cache(maxsize=32)
def _steep(past: tuple[int, ...], ahead: int) -> float:
    back = ahead + KEPT_MINUTES
    before = map(max, *(past[lag : len(past) - back + lag] for lag in range(KEPT_MINUTES + 1)))
    twice = STEPS * math.log(2.0)
    burst = sum(rate(now) for now, most in zip(past[back:], before, strict=True) if now - most > twice)
    total = sum(map(rate, past))
    return burst / total if total > 0 else 0.0


@lru_cache(maxsize=32)
def highest(codes: str) -> int:
    return max(decoded(codes), default=0)


def _packed(values: array[int]) -> str:
    if sys.byteorder == "big":
        values.byteswap()
    return b64encode(values.tobytes()).decode()


def _unpacked(codes: str) -> array[int]:
    values = array("H")
    values.frombytes(b64decode(codes))
    if sys.byteorder == "big":
        values.byteswap()
    return values
