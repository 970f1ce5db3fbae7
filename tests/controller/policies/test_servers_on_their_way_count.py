"""Tables: what was asked for counts while it starts; separate cooldowns; the tolerance band."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.policies import PolicyState, ScalingSpec, Signal, decide

T0 = 1_790_000_000.0
OVER = {
    "utilization": 1.0, "p50_ms": 300, "p95_ms": 390, "p99_ms": 500, "completed": 600, "queued": 100, "in_flight": 20,
    "arrivals_per_s": 44, "rps": 20, "capacity_rps_per_server": 10, "startup_s": 240,
}  # fmt: skip


@pytest.mark.parametrize(
    ("scaling", "answer"),
    [
        ({"latency": {"target_ms": 200}, "predictive": {"enabled": False}}, 4),
        ({"target_utilization": 0.5, "panic": {"enabled": False}}, 4),
        ({"target_utilization": 0.5}, 8),  # panic: at most four times the ready ones
        ({"queue": {"target_per_server": 8}}, 7),  # the same, 44/s / (10/s x 0.7)
        ({"queue": {"target_per_server": 8}, "panic": {"enabled": False}}, 4),
        ({"steps": [{"when": "p95_ms > 300", "add": 2}]}, 4),
    ],
)
def test_a_long_start_is_not_answered_twice(
    pool: Callable[..., Any], scaling: dict[str, Any], answer: int
) -> None:
    """The same look for four minutes, while what it asked for starts; no cooldown hides a second answer."""
    p = pool(ready=2, startup_s=240, max_servers=50, cooldown={"scale_up": 0}, **scaling)
    p.tick(ready=2, starting=0)
    for _ in range(47):
        decision = p.tick(**OVER)
        assert p.ready == 2
    assert (decision.desired, len(p.coming)) == (answer, answer - 2)


@pytest.mark.parametrize(
    ("up", "down", "last_up", "last_down", "used", "desired"),
    [
        # up waits after the last way up, and for nothing else
        (30, 300, 29, None, 1.0, 4),
        (30, 300, 30, None, 1.0, 8),
        (30, 300, None, 1, 1.0, 8),
        (0, 300, 0, 0, 1.0, 8),
        # down waits after the last change in either direction
        (30, 300, 299, None, 0.1, 4),
        (30, 300, None, 299, 0.1, 4),
        (30, 300, 300, 300, 0.1, 1),
        (600, 0, 1, 1, 0.1, 1),
    ],
)
def test_each_direction_has_its_own_cooldown(
    up: float, down: float, last_up: float | None, last_down: float | None, used: float, desired: int
) -> None:
    spec = ScalingSpec.model_validate(
        {
            "max_servers": 9, "target_utilization": 0.5, "stabilization": {"scale_down": 0},
            "cooldown": {"scale_up": up, "scale_down": down},
        }
    )  # fmt: skip
    ago = {
        "last_up_at": None if last_up is None else T0 - last_up,
        "last_down_at": None if last_down is None else T0 - last_down,
    }
    state = PolicyState(desired=4, first_at=T0 - 9999, last_at=T0 - 5, **ago)
    decision, _ = decide(spec, state, Signal(ready=4, utilization=used), T0)
    assert decision.desired == desired


@pytest.mark.parametrize(
    ("tolerance", "used", "desired"),
    [
        (None, 0.549, 10),  # 0.1 without it, as Kubernetes HPA
        (None, 0.551, 12),
        (None, 0.451, 10),
        (None, 0.449, 9),
        (0.3, 0.649, 10),
        (0.3, 0.651, 14),
        (0.3, 0.349, 7),
        (0, 0.51, 11),
        (0, 0.49, 10),
        (0, 0.44, 9),
    ],
)
def test_within_the_tolerance_nothing_changes(tolerance: float | None, used: float, desired: int) -> None:
    written = {} if tolerance is None else {"tolerance": tolerance}
    spec = ScalingSpec.model_validate(
        {"max_servers": 50, "target_utilization": 0.5, "stabilization": {"scale_down": 0}, **written}
    )
    state = PolicyState(desired=10, first_at=T0 - 9999, last_at=T0 - 5)
    decision, _ = decide(spec, state, Signal(ready=10, utilization=used), T0)
    assert decision.desired == desired


@pytest.mark.parametrize(
    ("tolerance", "queued", "desired"), [(0.1, 22, 2), (0.1, 23, 3), (0, 21, 3), (0.5, 30, 2)]
)
def test_the_queue_has_the_same_band(tolerance: float, queued: int, desired: int) -> None:
    spec = ScalingSpec.model_validate(
        {"max_servers": 50, "queue": {"target_per_server": 10}, "tolerance": tolerance}
    )
    state = PolicyState(desired=2, first_at=T0 - 9999, last_at=T0 - 5)
    assert decide(spec, state, Signal(ready=2, queued=queued), T0)[0].desired == desired
