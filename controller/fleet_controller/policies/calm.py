"""What keeps the number of servers from flapping: cooldowns and stabilization windows.

Stabilization as in Kubernetes HPA `behavior`: up takes the least, down the largest of the window's
recommendations. Cooldowns as in AWS: going up ignores the last way down; going down waits for both.
"""

from __future__ import annotations

from fleet_controller.policies import arrivals
from fleet_controller.policies.decision import PolicyState
from fleet_controller.spec.scaling import ScalingSpec

FORESEEN_S = 60.0  # the same where a forecast decides
STABLE_S = 300.0  # stabilization of scale_down where the file names none (Kubernetes HPA)
JUMP_S = 1800.0  # a gap between two decisions that only a clock or a long outage makes

History = tuple[tuple[float, int], ...]


def caught_up(state: PolicyState, now: float) -> PolicyState:
    """The state with its times moved along when the clock was set back or jumped: what had 12 s to go
    still has.
    """
    if state.last_at is None or 0 <= now - state.last_at <= JUMP_S:
        return state
    by = now - state.last_at
    return state.model_copy(
        update={
            "first_at": _moved(state.first_at, by),
            "last_at": now,
            "last_up_at": _moved(state.last_up_at, by),
            "last_down_at": _moved(state.last_down_at, by),
            "idle_since": _moved(state.idle_since, by),
            "panic_at": _moved(state.panic_at, by),
            "moves": tuple((at + by, n) for at, n in state.moves),
            "held": {key: at + by for key, at in state.held.items()},
            "highs": tuple((at + by, n) for at, n in state.highs),
            "lows": tuple((at + by, n) for at, n in state.lows),
            **_memories(state, by),
        }
    )


def _memories(state: PolicyState, by: float) -> dict[str, object]:
    known: dict[str, object] = {}
    if state.arrivals is not None:
        known["arrivals"] = arrivals.moved(state.arrivals, by)
    if state.profile is not None:
        known["profile"] = state.profile.model_copy(
            update={"since": state.profile.since + by, "looked": state.profile.looked + by}
        )
    if state.budget is not None:
        known["budget"] = state.budget.model_copy(update={"at": state.budget.at + by})
    return known


def _moved(at: float | None, by: float) -> float | None:
    return None if at is None else at + by


def up_left(spec: ScalingSpec, state: PolicyState, now: float) -> float:
    """Seconds until the pool may grow again."""
    return _left(state.last_up_at, spec.cooldown.scale_up, now)


def down_left(spec: ScalingSpec, state: PolicyState, now: float, foreseen: bool = False) -> float:
    """Seconds until the pool may shrink again: both directions count, or it would undo what it has just
    done. With a forecast (`foreseen`) only growth does, where the file names no pause: it knows how far to
    shrink at once.
    """
    after = spec.cooldown.scale_down
    if foreseen and "scale_down" not in spec.cooldown.model_fields_set:
        return _left(state.last_up_at, after, now)
    return max(_left(state.last_up_at, after, now), _left(state.last_down_at, after, now))


def cooldown_remaining_s(spec: ScalingSpec, state: PolicyState, now: float) -> float:
    """Seconds until the pool may move in either direction, as `status` shows it."""
    return max(up_left(spec, state, now), down_left(spec, state, now))


def _left(since: float | None, seconds: float, now: float) -> float:
    return 0.0 if since is None else max(0.0, since + seconds - now)


def down_window(spec: ScalingSpec) -> float:
    """Seconds for which a recommendation keeps the pool from shrinking below it."""
    named = spec.stabilization.scale_down
    return STABLE_S if named is None else named


def remembered(
    highs: History, lows: History, wanted: int, spec: ScalingSpec, now: float
) -> tuple[History, History]:
    """Both histories with `wanted` added; only entries that can still be a maximum (a minimum) are kept."""
    up, down = spec.stabilization.scale_up, down_window(spec)
    highs = (*tuple((at, n) for at, n in highs if n > wanted and at > now - down), (now, wanted))
    lows = (*tuple((at, n) for at, n in lows if n < wanted and at > now - up), (now, wanted))
    return highs, lows


def stabilized(current: int, highs: History, lows: History) -> int:
    """`highs` and `lows` hold this moment's recommendation too; their first entries are the extremes."""
    return min(max(current, lows[0][1]), highs[0][1])
