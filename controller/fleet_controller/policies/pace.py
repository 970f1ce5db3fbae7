"""How fast policies may change the number: at most so many servers within a time.

Kubernetes HPA `behavior.policies` (pkg/controller/podautoscaler/horizontal.go, calculateScaleUpLimitWithScalingRules):
counted against what ran when the time began, which is what runs now without the changes since; of `servers` and
`percent` the larger counts; percent up is rounded up, percent down leaves the whole part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fleet_controller.policies.words import servers, span
from fleet_controller.spec.scaling import ChangeLimit, Limits

Moves = tuple[tuple[float, int], ...]
"""(Unix seconds, servers added; negative: removed), the oldest first."""

_ROUND = 1e-9  # 10 x 1.1 is 11, not 12


@dataclass(frozen=True)
class Pace:
    """The number may be `least` to `most` now; the sentences say which limit each of them is."""

    least: int
    most: int
    slow_down: str = ""
    slow_up: str = ""


def pace(limits: Limits, moves: Moves, current: int, now: float) -> Pace:
    """How far from `current` servers policies may go at `now`. Without a limit: anywhere."""
    least, most = 0, 10**9
    slow_down = slow_up = ""
    if (up := limits.scale_up) is not None:
        began = _began(up, moves, current, now)
        top = began + max(up.servers or 0, math.ceil(began * (up.percent or 0.0) / 100 - _ROUND))
        most = max(current, top)
        slow_up = f"limits scale_up: {servers(top - began)} in {span(up.per)}"
    if (down := limits.scale_down) is not None:
        began = _began(down, moves, current, now)
        share = math.floor(began * (1 - (down.percent or 0.0) / 100) + _ROUND)
        bottom = max(0, min(began - (down.servers or 0), share))
        least = min(current, bottom)
        slow_down = f"limits scale_down: {servers(began - bottom)} in {span(down.per)}"
    return Pace(least, most, slow_down, slow_up)


def noted(limits: Limits, moves: Moves, change: int, now: float) -> Moves:
    """`moves` with a change of the number, and without those that no limit asks for any more."""
    known = (limits.scale_up, limits.scale_down)
    longest = max((limit.per for limit in known if limit is not None), default=0.0)
    kept = tuple((at, n) for at, n in moves if at > now - longest)
    return (*kept, (now, change)) if change and longest else kept


def _began(limit: ChangeLimit, moves: Moves, current: int, now: float) -> int:
    """What ran when the time began."""
    return max(0, current - sum(n for at, n in moves if at > now - limit.per))
