"""Properties over random specs, states and signals."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fleet_controller.policies import (
    Decision,
    PolicyState,
    ScalingSpec,
    Signal,
    decide,
    has_policies,
    set_desired,
)

T0 = 1_790_000_000.0
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining a failure takes minutes


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


STEPS = ["p95_ms > 400", "utilization < 0.3", "queued >= 20", "rps <= 1", "errors > 3"]
seconds = st.sampled_from([0.0, 5.0, 30.0, 300.0])
limits = st.sampled_from(
    [{"servers": 1}, {"percent": 50, "per": 300}, {"servers": 2, "percent": 100, "per": 5}]
)


@st.composite
def specs(draw: st.DrawFn) -> ScalingSpec:
    low = draw(st.integers(0, 5))
    steps = st.fixed_dictionaries(
        {"when": st.sampled_from(STEPS), "for": seconds, "add": st.integers(-3, 3).filter(bool)}
    )
    hours = st.fixed_dictionaries(
        {
            "cron": st.sampled_from(["0 * * * *", "*/7 * * * *", "30 2 * * sun", "0 8 * * mon-fri"]),
            "timezone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
        }
    )
    changes = st.sampled_from(
        [{"min_servers": 3}, {"max_servers": 2}, {"servers": 4}, {"min_servers": 1, "max_servers": 8}]
    )
    schedules = [
        {**draw(hours), **draw(changes), "duration": draw(maybe(st.sampled_from([60, 3600])))}
        for _ in range(draw(st.integers(0, 2)))
    ]
    return ScalingSpec.model_validate(
        {
            "min_servers": low,
            "max_servers": low + draw(st.integers(0, 8)),
            "latency": draw(maybe(st.just({"target_ms": 200}))),
            "target_utilization": draw(maybe(st.sampled_from([0.3, 0.7, 1.0]))),
            "queue": draw(maybe(st.just({"target_per_server": 8}))),
            "steps": draw(st.lists(steps, max_size=2)),
            "schedules": schedules,
            "predictive": {"enabled": draw(st.booleans())},
            "cooldown": {"scale_up": draw(seconds), "scale_down": draw(seconds)},
            "stabilization": {"scale_up": draw(seconds), "scale_down": draw(seconds)},
            "idle": {"scale_to_zero": draw(st.booleans()), "after": draw(seconds)},
            "limits": {"scale_up": draw(maybe(limits)), "scale_down": draw(maybe(limits))},
            "tolerance": draw(st.sampled_from([0.0, 0.1, 0.5])),
        }
    )


number = st.floats(0, 2000) | st.sampled_from([0.0, math.nan, math.inf, -math.inf, -1.0, 1e-300, 1e300])
signals = st.builds(
    Signal,
    ready=st.integers(0, 12),
    starting=st.integers(0, 5),
    utilization=maybe(st.floats(0, 1.2) | number),
    age_s=st.sampled_from([0.0, 29.0, 31.0, math.nan, math.inf]),
    completed=st.integers(0, 500),
    **{
        name: maybe(number)
        for name in (
            "rps", "arrivals_per_s", "in_flight", "queued", "p50_ms", "p95_ms", "p99_ms", "percentile_ms",
            "startup_s", "capacity_rps_per_server",
        )
    },
)  # fmt: skip
steps_of_time = st.floats(0, 700) | st.sampled_from([5.0, 5.0, 60.0, -3600.0, 7200.0])
histories = st.lists(st.tuples(signals, steps_of_time, maybe(st.integers(0, 6))), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None, phases=PHASES)
@given(specs(), histories)
def test_bounds_cooldowns_staleness_and_round_trips(
    spec: ScalingSpec, history: list[tuple[Signal, float, int | None]]
) -> None:
    state, now = PolicyState(), T0
    last_up = last_down = -math.inf  # in time that passed without a jump
    clock = 0.0
    for signal, step, asked in history:
        if asked is not None:
            state = set_desired(state, asked, now)
            last_up = last_down = clock
        now += step
        clock += step if 0 <= step <= 1800 else 0.0
        decision, after = decide(spec, state, signal, now)
        again, same = decide(
            spec, PolicyState.from_json(state.to_json()), Signal.from_json(signal.to_json()), now
        )
        assert (again, same) == (decision, after), "the same input gives the same answer, through JSON too"
        assert Decision.from_json(decision.to_json()) == decision
        limits = decision.bounds
        assert 0 <= limits.low <= decision.desired <= limits.high
        if not spec.schedules:
            assert decision.desired <= spec.max_servers
            assert (
                decision.desired >= spec.min_servers
                or decision.winner == "idle"
                or limits.low_source == "idle"
            )
        assert decision.reason and "None" not in decision.reason and "nan" not in decision.reason.split()
        before = state.desired
        if before is not None:
            held = limits.clip(before)
            if signal.age_s > 30:
                assert decision.desired == held, "blind, only the bounds move it"
            by_policy = decision.winner not in (None, "idle", "operator", "bounds")
            surge = any(r.policy == "panic" for r in decision.recommendations)
            if by_policy and decision.desired > held > 0 and before > 0 and not surge:
                assert clock - last_up >= spec.cooldown.scale_up - 1e-3
            if by_policy and decision.desired < held:
                assert clock - max(last_up, last_down) >= spec.cooldown.scale_down - 1e-3
                assert not surge
        if before is not None and decision.desired > before:
            last_up = clock
        if before is not None and decision.desired < before:
            last_down = clock
        state = after


@settings(max_examples=300, deadline=None, phases=PHASES)
@given(
    specs().filter(lambda s: not any(rule.add < 0 or "<" in rule.when for rule in s.steps)),
    st.integers(1, 8), st.integers(0, 3), st.integers(0, 12),
    st.lists(st.floats(0, 1), min_size=5, max_size=5), st.lists(st.floats(0, 1), min_size=5, max_size=5),
)  # fmt: skip
def test_more_load_never_asks_for_fewer(
    spec: ScalingSpec, ready: int, starting: int, current: int, base: list[float], more: list[float]
) -> None:
    def look(load: list[float]) -> Signal:
        used, p95, queued, flying, coming = load
        return Signal(
            ready=ready, starting=starting, utilization=min(1.0, used), p95_ms=1000 * p95, queued=100 * queued,
            in_flight=100 * flying, arrivals_per_s=300 * coming, rps=300 * coming, completed=100,
            capacity_rps_per_server=40,
        )  # fmt: skip

    state = PolicyState(desired=current, first_at=T0 - 9999, last_at=T0 - 5)
    less, _ = decide(spec, state, look(base), T0)
    greater, _ = decide(spec, state, look([a + b for a, b in zip(base, more, strict=True)]), T0)
    assert greater.desired >= less.desired


@settings(max_examples=100, deadline=None, phases=PHASES)
@given(specs(), st.integers(0, 9))
def test_without_any_data_nothing_moves_but_the_bounds(spec: ScalingSpec, current: int) -> None:
    asked_for = current
    state = PolicyState(desired=current, operator=asked_for, first_at=T0)
    for tick in range(20):
        decision, state = decide(spec, state, Signal(ready=current), T0 + 60 * tick)
        stays = decision.bounds.clip(current)
        # without any policy a pool goes back to what the operator asked for once a schedule lets it
        back = stays if has_policies(spec) else decision.bounds.clip(asked_for)
        assert decision.desired in (stays, back)
        current = decision.desired
