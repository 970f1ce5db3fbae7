"""Bursts: whether the load grows faster than hosts start, and which floor would carry it. PURE.

A policy that answers what it measures has, in any minute, what was needed a start-up earlier, or lately before that (it
scales down slowly). The requests of a minute that needs more than that come too late for it. Where these are more than
the latency target lets be late, no policy holds the target, and only servers that run already do.

Counted by the minute: bursts of seconds within a minute don't show, so the floor is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet_controller.records import Minute

MINUTE_S = 60
KEPT_MINUTES = 5  # for so long a policy stays at what was needed before (stabilization of scale_down)
ENOUGH_MINUTES = 60  # fewer tell nothing about a pool


@dataclass(frozen=True)
class Bursts:
    """`minutes` of `seen` with more load than servers could be there for, with `share` of the requests.

    `floor` is the least min_servers with which not more than the allowed share is late.
    """

    minutes: int
    seen: int
    share: float
    floor: int


def bursts(
    known: Sequence[Minute],
    servers: Callable[[float], int],
    late_s: float,
    low: int,
    allowed: float,
) -> Bursts | None:
    """None: scaling can hold the target, or too little is known.

    `servers` says how many carry a rate (requests/s), `late_s` is how long after a rise a server is ready, `low` the
    floor of now, `allowed` the share of requests (0..1) that may be late.
    """
    total = sum(minute.requests for minute in known)
    if len(known) < ENOUGH_MINUTES or not total:
        return None
    lag = max(1, math.ceil(late_s / MINUTE_S))
    needs = {minute.at: servers(minute.requests / MINUTE_S) for minute in known}
    missed: dict[int, list[int]] = {}  # the servers needed: the requests that came too fast for them
    for minute in known:
        earlier = range(lag, lag + KEPT_MINUTES + 1)
        before = [needs[at] for back in earlier if (at := minute.at - back * MINUTE_S) in needs]
        need = needs[minute.at]
        if before and need > max(low, *before):
            missed.setdefault(need, []).append(minute.requests)
    late = sum(sum(counts) for counts in missed.values())
    if late <= allowed * total:
        return None
    floor, left = low, late
    for need in sorted(missed):
        if left <= allowed * total:
            break
        floor, left = need, left - sum(missed[need])
    return Bursts(sum(map(len, missed.values())), len(known), late / total, floor)
