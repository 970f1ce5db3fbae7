"""The highest rate that keeps a promise, found by trying. Pure: what a try means is the caller's."""

from __future__ import annotations

from collections.abc import Callable

_CLOSE = 1.05
_UP, _DOWN = 1.25, 0.75


def search(holds: Callable[[float], bool], start: float, tries: int) -> float:
    """The highest rate (per second) that held, to within 5 % where the tries suffice; 0.0 if none did.

    Up or down from `start` in steps of a quarter until both sides are known, then halfway between them.
    """
    low, high = 0.0, 0.0
    rate = start
    for _ in range(tries):
        if holds(rate):
            low = max(low, rate)
        else:
            high = rate if not high else min(high, rate)
        if low and high:
            if high / low <= _CLOSE:
                break
            rate = (low + high) / 2
        else:
            rate = low * _UP if low else high * _DOWN
    return low
