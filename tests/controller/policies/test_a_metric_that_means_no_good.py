"""Whatever a metric does, the number does not flap: each policy alone and all together, against metrics that jump."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fleet_controller.policies import PolicyState, ScalingSpec, Signal, decide

T0 = 1_790_000_000.0
TICK_S = 5.0
EXAMPLES = 6  # for each policy
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a failure takes minutes
KINDS: dict[str, dict[str, Any]] = {
    "latency": {"latency": {"percentile": 95, "target_ms": 200}, "predictive": {"enabled": False}},
    "latency with its forecast": {"latency": {"percentile": 95, "target_ms": 200}},
    "utilization": {"target_utilization": 0.5, "panic": {"enabled": False}},
    "utilization with panic": {"target_utilization": 0.5},
    "queue": {"queue": {"target_per_server": 8}},
    "steps": {"steps": [{"when": "p95_ms > 300", "add": 2}, {"when": "p95_ms < 100", "add": -1}]},
    "utilization with a forecast": {"target_utilization": 0.5, "predictive": {"enabled": True}},
    "limits": {
        "target_utilization": 0.5,
        "limits": {"scale_up": {"servers": 1}, "scale_down": {"percent": 50}},
    },
    "all": {
        "latency": {"percentile": 95, "target_ms": 200},
        "target_utilization": 0.5,
        "queue": {"target_per_server": 8},
        "steps": [{"when": "queued > 100", "add": 3}],
    },
}


def looks(load: list[float]) -> list[dict[str, Any]]:
    """A load of 0..1 as all metrics at once see it."""
    return [
        {
            "utilization": used, "p50_ms": 200 * used, "p95_ms": 20 + 500 * used, "p99_ms": 30 + 700 * used,
            "queued": round(200 * max(0.0, used - 0.5)), "in_flight": 10 * used, "arrivals_per_s": 100 * used,
            "rps": 100 * used, "completed": round(6000 * used), "late_share": max(0.0, used - 0.4),
            "capacity_rps_per_server": 20.0, "startup_s": 60.0,
        }
        for used in load
    ]  # fmt: skip


def moves(kind: str, window: float, load: list[float]) -> list[tuple[float, int]]:
    """(seconds, servers added or removed) for every change of the number; what it asks for is ready at once."""
    spec = ScalingSpec.model_validate(
        {
            "min_servers": 1, "max_servers": 20, "cooldown": {"scale_up": 0, "scale_down": 0},
            "stabilization": {"scale_down": window}, **KINDS[kind],
        }
    )  # fmt: skip
    state, running, found = PolicyState(), 4, []
    for tick, look in enumerate(looks(load)):
        decision, state = decide(spec, state, Signal(ready=running, **look), T0 + TICK_S * tick)
        if decision.desired != running:
            found.append((TICK_S * tick, decision.desired - running))
        running = decision.desired
    return found


levels = st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.35, 0.45, 0.5, 0.55, 0.62, 0.7, 0.9, 1.0])
dwells = st.lists(st.tuples(levels, st.integers(1, 30)), min_size=4, max_size=12)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES)
@given(st.sampled_from([60.0, 300.0]), dwells)
def test_what_was_added_stays_for_a_whole_window(
    kind: str, window: float, dwells: list[tuple[float, int]]
) -> None:
    """So there is at most one change from growing to shrinking in a window, whatever the metric does in it."""
    grew = float("-inf")
    for at, change in moves(kind, window, [used for used, ticks in dwells for _ in range(ticks)]):
        if change > 0:
            grew = at
        else:
            assert at - grew >= window


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES)
@given(st.sampled_from([60.0, 300.0]), levels, levels, st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_a_metric_that_flaps_within_the_window_turns_it_at_most_once(
    kind: str, window: float, one: float, other: float, first: float, second: float
) -> None:
    """Faults C06: to and fro between any two levels, each for less than half of the window, for five windows.

    A forecast with no policy beside it that measures the present (no latency, utilization or queue) is not among them:
    what it expects of a square wave may rise once in longer than a window.
    """
    wave = [one] * max(1, int(first * window / TICK_S)) + [other] * max(1, int(second * window / TICK_S))
    made = moves(kind, window, wave * max(1, int(5 * window / TICK_S / len(wave))))
    turns = [later for (_, a), (later, b) in itertools.pairwise(made) if a * b < 0]
    assert all(later - earlier >= window for earlier, later in itertools.pairwise(turns)), (made, turns)
