"""The composition: what every policy wants becomes one number and one sentence.

1. The bounds of now: min_servers and max_servers, as schedules change them. They hold always, data or no
data.
2. Without fresh data nothing moves inside the bounds.
3. The largest recommendation wins; fewer servers need the consent of every policy that has an opinion.
4. Stabilization windows, cooldowns and limits hold it back; a wake from zero and a bound don't wait, a surge
(panic.py) waits only for the limits. Pure and deterministic: the same arguments give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet_controller.policies import (
    arrivals,
    budget,
    calm,
    idle,
    latency,
    pace,
    panic,
    predictive,
    profile,
    queue,
    schedule,
    steps,
    utilization,
)
from fleet_controller.policies.decision import (
    Bounds,
    Decision,
    Look,
    PolicyState,
    Recommendation,
    Timers,
)
from fleet_controller.policies.words import servers, span
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import Signal

STALE_AFTER_S = 30.0


@dataclass(frozen=True)
class _Choice:
    """What came out on top, before anything holds it back. `at_once`: neither cooldown nor stabilization
    applies. `panic`: a surge is on.
    """

    wanted: int
    reason: str
    winner: str | None
    at_once: bool = False
    panic: bool = False


def decide(
    spec: ScalingSpec,
    state: PolicyState,
    signal: Signal,
    now: float,
    *,
    stale_after_s: float = STALE_AFTER_S,
) -> tuple[Decision, PolicyState]:
    """How many servers the pool should run from `now` (Unix seconds) on, and the state to hand in the next
    time.

    A signal older than `stale_after_s` moves nothing (a few controller intervals is a good value). The
    schedules must be valid (spec.load sees to it); cronsim.CronSimError and zoneinfo.ZoneInfoNotFoundError
    come through.
    """
    state = calm.caught_up(state, now)
    running = signal.ready + signal.starting
    first = state.desired is None
    current = running if state.desired is None else state.desired
    fresh = signal.age_s <= stale_after_s
    timers = Timers(now, dict(state.held))
    look = Look(signal, current, now, timers)
    idle_at = idle.idle_since(state.idle_since, look, fresh) if spec.idle.scale_to_zero else None
    limits = _bounds(spec, idle_at, now)
    memory = (
        _learned(spec, state, signal, now) if fresh else _Memory(state.arrivals, state.profile, state.budget)
    )
    recommendations = _recommendations(spec, state, look, limits, memory, idle_at) if fresh else ()
    foreseen = any(r.policy == "predictive" and r.desired is not None for r in recommendations)
    choice = _choice(spec, look, recommendations, idle_at, limits, fresh)

    highs, lows = (((now, current),), ((now, current),)) if first else (state.highs, state.lows)
    highs, lows = calm.remembered(highs, lows, choice.wanted, spec, now)
    desired, blocked = _held_back(spec, state, limits, choice, current, highs, lows, now, fresh, foreseen)
    reason, winner = _said(limits, choice, blocked, current, desired, first, signal)

    moved = desired != limits.clip(current) if first else desired != current
    decided = Decision(
        desired=desired,
        reason=reason,
        winner=winner,
        recommendations=recommendations,
        blocked_by=blocked,
        bounds=limits,
    )
    return decided, state.model_copy(
        update={
            "desired": desired,
            "first_at": now if state.first_at is None else state.first_at,
            "last_at": now,
            "last_up_at": now if moved and desired > current else state.last_up_at,
            "last_down_at": now if moved and desired < current else state.last_down_at,
            "moves": pace.noted(spec.limits, state.moves, desired - current if moved else 0, now),
            "panic_at": now if choice.panic else state.panic_at,
            "held": timers.kept if fresh else state.held,
            "highs": highs,
            "lows": lows,
            "idle_since": idle_at,
            "arrivals": memory.arrivals,
            "profile": memory.profile,
            "budget": memory.budget,
        }
    )


def set_desired(state: PolicyState, count: int, now: float, reason: str = "") -> PolicyState:
    """The state after a person asked for `count` servers at `now`.

    Counts as a scaling event, so that both cooldowns run before a policy moves it again; in a pool without
    policies it stays until the next one is asked for. Raises ValueError for a negative count. `reason` is
    for the journal.
    """
    if count < 0:
        raise ValueError(f"a pool cannot run {count} servers{f' ({reason})' if reason else ''}")
    state = calm.caught_up(state, now)
    return state.model_copy(
        update={
            "desired": count,
            "operator": count,
            "first_at": now if state.first_at is None else state.first_at,
            "last_at": now,
            "last_up_at": now,
            "last_down_at": now,
            "highs": ((now, count),),
            "lows": ((now, count),),
            "idle_since": None,
            "moves": (),
        }
    )


def has_policies(spec: ScalingSpec) -> bool:
    """Whether anything but bounds, schedules and people moves this pool."""
    targets = (spec.latency, spec.target_utilization, spec.queue)
    return any(t is not None for t in targets) or bool(spec.steps) or foresees(spec)


def foresees(spec: ScalingSpec) -> bool:
    """Whether the pool scales ahead of its load: where fleet.yaml doesn't say, with a latency target it does."""
    said = spec.predictive.enabled
    return spec.latency is not None if said is None else said


def _bounds(spec: ScalingSpec, idle_at: float | None, now: float) -> Bounds:
    """Asleep, the floor is 0, unless a schedule in force set one."""
    limits = schedule.bounds(spec, now)
    if idle_at is None or now - idle_at < spec.idle.after or limits.low_source != "min_servers":
        return limits
    return limits.model_copy(update={"low": 0, "low_source": "idle"})


@dataclass(frozen=True)
class _Memory:
    """What the forecast goes by: what came in, what a server can carry, how many requests were late."""

    arrivals: arrivals.Arrivals | None
    profile: profile.Profile | None
    budget: budget.Budget | None


def _learned(spec: ScalingSpec, state: PolicyState, signal: Signal, now: float) -> _Memory:
    seen, target = state.arrivals, spec.latency
    if foresees(spec) and signal.arrivals_per_s is not None:
        seen = arrivals.seen(seen, signal.arrivals_per_s, now)
    if target is None:
        return _Memory(seen, None, None)
    return _Memory(
        seen,
        profile.learn(state.profile, target, signal, now),
        budget.spent(state.budget, target, signal, now),
    )


def _recommendations(
    spec: ScalingSpec,
    state: PolicyState,
    look: Look,
    limits: Bounds,
    memory: _Memory,
    idle_at: float | None,
) -> tuple[Recommendation, ...]:
    found: list[Recommendation] = []
    if not foresees(spec) and (surge := panic.recommend(spec, look.signal)) is not None:
        found.append(surge)
    can = predictive.capacity(spec, memory.profile, look.signal) if foresees(spec) else None
    if spec.latency is not None:
        found.append(latency.recommend(spec.latency, look, can))
    if spec.target_utilization is not None:
        found.append(utilization.recommend(spec.target_utilization, look, spec.tolerance))
    if spec.queue is not None:
        found.append(queue.recommend(spec.queue, look, spec.tolerance))
    found.extend(steps.recommend(spec.steps, look))
    if foresees(spec):
        patient = spec.stabilization.scale_down is None
        ahead = predictive.recommend(memory.arrivals, can, memory.budget, look, patient)
        if ahead.desired is not None or spec.predictive.enabled:
            found.append(ahead)
    if not has_policies(spec):
        found.append(_asked_for(spec, state, look, limits))
    if spec.idle.scale_to_zero:
        found.append(idle.recommend(spec.idle, idle_at, look))
    elif look.current == 0 and look.busy and has_policies(spec):
        found.append(idle.recommend(spec.idle, None, look))
    return tuple(found)


def _asked_for(spec: ScalingSpec, state: PolicyState, look: Look, limits: Bounds) -> Recommendation:
    """A pool without policies runs what a person asked for, or its floor; one server where it may sleep
    but isn't idle.
    """
    if state.operator is not None:
        reason = f"{servers(state.operator)} asked for by hand"
        return Recommendation(policy="operator", desired=state.operator, reason=reason)
    if spec.idle.scale_to_zero and limits.low == 0 and look.current > 0:
        return Recommendation(policy="bounds", desired=1, reason=f"{servers(1)} until the pool is idle")
    return Recommendation(policy="bounds", desired=limits.low, reason=_floor(limits))


def _choice(
    spec: ScalingSpec,
    look: Look,
    recommendations: tuple[Recommendation, ...],
    idle_at: float | None,
    limits: Bounds,
    fresh: bool,
) -> _Choice:
    current = look.current
    if not fresh:
        age = span(min(look.signal.age_s, 1e7))
        return _Choice(current, f"no news from the pool for {age}, stays at {current}", None)
    slept = limits.low_source == "idle" and idle_at is not None
    asleep = next((r for r in recommendations if r.policy == "idle" and r.desired == 0), None)
    if slept and asleep is not None:
        return _Choice(0, asleep.reason, asleep.policy, at_once=True)
    opinions = [
        (r.desired, r) for r in recommendations if r.desired is not None and (r.desired or r is not asleep)
    ]
    if not opinions:
        return _Choice(current, f"no policy asks for a change, stays at {current}", None)
    wanted, best = max(opinions, key=lambda opinion: opinion[0])
    woken = current == 0 and wanted > 0
    surge = next((r for r in recommendations if r.policy == "panic"), None)
    reason = best.reason if surge is None or surge is best else f"{best.reason}; {surge.reason}"
    at_once = woken or not has_policies(spec)
    return _Choice(wanted, reason, best.policy, at_once=at_once, panic=surge is not None)


def _held_back(
    spec: ScalingSpec,
    state: PolicyState,
    limits: Bounds,
    choice: _Choice,
    current: int,
    highs: calm.History,
    lows: calm.History,
    now: float,
    fresh: bool,
    foreseen: bool,
) -> tuple[int, tuple[str, ...]]:
    """The number after bounds, stabilization and cooldowns, and what of these kept it from the choice."""
    blocked: list[str] = []
    if choice.wanted > limits.high:
        blocked.append(f"{_short(limits.high_source)} {limits.high}")
    if choice.wanted < limits.low:
        blocked.append(f"{_short(limits.low_source)} {limits.low}")
    here, goal = limits.clip(current), limits.clip(choice.wanted)
    if not fresh:
        return here, (*blocked, "no fresh data")
    if choice.at_once:
        newcomer = state.first_at is None or now - state.first_at < calm.down_window(spec)
        if goal < here and newcomer and choice.winner == "bounds":
            began = now if state.first_at is None else state.first_at
            left = began + calm.down_window(spec) - now
            return here, (*blocked, f"stabilization scale_down: {span(left)} left")
        return goal, tuple(blocked)
    if foreseen and spec.stabilization.scale_down is None:
        # a forecast looks further ahead than a window looks back: this much only calms it
        highs = tuple(entry for entry in highs if entry[0] > now - calm.FORESEEN_S)
    steady = limits.clip(calm.stabilized(current, highs, lows))
    if goal < here and steady > goal:
        left = max(at for at, n in highs if n > choice.wanted) + calm.down_window(spec) - now
        blocked.append(f"stabilization scale_down: {span(left)} left")
    if goal > here and steady < goal and not choice.panic:
        left = max(at for at, n in lows if n < choice.wanted) + spec.stabilization.scale_up - now
        blocked.append(f"stabilization scale_up: {span(left)} left")
    urgent = choice.winner == "predictive"  # it counts what is on its way: nothing is answered twice
    if choice.panic:
        steady, urgent = max(steady, goal), True
    if goal > here and not urgent and (left := calm.up_left(spec, state, now)) > 0:
        blocked.append(f"cooldown scale_up: {span(left)} left")
        return here, tuple(blocked)
    if goal < here and (left := calm.down_left(spec, state, now, foreseen)) > 0:
        blocked.append(f"cooldown scale_down: {span(left)} left")
        return here, tuple(blocked)
    if goal < here and (left := panic.left_s(spec, now if choice.panic else state.panic_at, now)) > 0:
        blocked.append(f"panic: {span(left)} left")
        return here, tuple(blocked)
    allowed = pace.pace(spec.limits, state.moves, current, now)
    paced = limits.clip(min(max(steady, allowed.least), allowed.most))
    if paced != steady:
        blocked.append(allowed.slow_up if paced < steady else allowed.slow_down)
    return paced, tuple(blocked)


def _said(
    limits: Bounds,
    choice: _Choice,
    blocked: tuple[str, ...],
    current: int,
    desired: int,
    first: bool,
    signal: Signal,
) -> tuple[str, str | None]:
    """The sentence, and who won."""
    if desired == limits.clip(current) != current:  # a bound moved it, and nothing moved it further
        if desired > current:
            return _floor(limits), _short(limits.low_source)
        return f"{limits.high_source} allows {servers(limits.high)}", _short(limits.high_source)
    if desired != current:
        at_limit = f", {blocked[0]}" if blocked and blocked[0].startswith(_short(limits.high_source)) else ""
        at_limit = at_limit if desired == limits.high < choice.wanted else ""
        slowed = next((f", {block}" for block in blocked if block.startswith("limits ")), "")
        return f"{choice.reason}{at_limit or slowed}", choice.winner
    if choice.wanted != current:
        return f"{choice.reason}; stays at {current}: {', '.join(blocked)}", choice.winner
    if first:
        return (
            f"first look, {signal.ready} ready and {signal.starting} starting: {choice.reason}",
            choice.winner,
        )
    return choice.reason, choice.winner


def _floor(limits: Bounds) -> str:
    return f"{limits.low_source} asks for {servers(limits.low)}"


def _short(source: str) -> str:
    return "schedule" if source.startswith("schedule") else source
