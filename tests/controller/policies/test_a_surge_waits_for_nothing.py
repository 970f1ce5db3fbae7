"""panic: a surge that the ready servers can't carry waits for neither cooldown nor stabilization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.policies import Decision, PolicyState, ScalingSpec, Signal, decide

T0 = 1_790_000_000.0
UTILIZATION = {"target_utilization": 0.7}
SURGE = {"ready": 2, "utilization": 1.0, "arrivals_per_s": 60, "capacity_rps_per_server": 10, "queued": 100}
# 60/s / (10/s x 0.7) is the load of 9 servers; two complete 20/s, so more than 40 waiting shows it


def once(scaling: dict[str, Any], state: PolicyState | None = None, **signal: Any) -> Decision:
    spec = ScalingSpec.model_validate({"max_servers": 50, **scaling})
    known = state or PolicyState(desired=2, first_at=T0 - 900, last_at=T0 - 5)
    return decide(spec, known, Signal.model_validate({**SURGE, **signal}), T0)[0]


@pytest.mark.parametrize(
    ("scaling", "signal", "desired", "winner"),
    [
        (UTILIZATION, {}, 8, "panic"),  # four times the ready ones at most
        (UTILIZATION, {"arrivals_per_s": 40}, 6, "panic"),
        (UTILIZATION, {"arrivals_per_s": 28}, 4, "panic"),  # exactly twice
        (UTILIZATION, {"arrivals_per_s": 20}, 3, "utilization"),  # 3 servers' load on 2 is no panic
        (UTILIZATION, {"queued": 40}, 3, "utilization"),  # they keep up with what waits
        (UTILIZATION, {"queued": 41}, 8, "panic"),
        (UTILIZATION, {"queued": None}, 3, "utilization"),  # what is not known is no surge
        (UTILIZATION, {"arrivals_per_s": None}, 3, "utilization"),
        (UTILIZATION, {"capacity_rps_per_server": None}, 3, "utilization"),
        (UTILIZATION, {"age_s": 31}, 2, None),  # blind
        (UTILIZATION, {"ready": 0}, 4, "panic"),
        ({**UTILIZATION, "panic": {"enabled": False}}, {}, 3, "utilization"),
        ({**UTILIZATION, "panic": {"threshold": 5}}, {}, 3, "utilization"),
        ({**UTILIZATION, "panic": {"threshold": 1.4}}, {"arrivals_per_s": 20}, 3, "panic"),
        ({**UTILIZATION, "max_servers": 5}, {}, 5, "panic"),
        ({"queue": {"target_per_server": 8}}, {}, 8, "panic"),  # a server's time counts at 0.7
        ({**UTILIZATION, "latency": {"target_ms": 200}}, {}, 3, "utilization"),  # has a forecast
        ({**UTILIZATION, "predictive": {"enabled": True}}, {}, 8, "predictive"),
        ({"steps": [{"when": "queued > 10", "add": 1}]}, {}, 3, "steps[0]"),  # says itself how many
        ({}, {}, 2, "bounds"),
    ],
)
def test_when_it_is_a_surge(
    scaling: dict[str, Any], signal: dict[str, Any], desired: int, winner: str | None
) -> None:
    scaling = {"min_servers": 2, **scaling}
    decision = once(scaling, **signal)
    assert (decision.desired, decision.winner) == (desired, winner)
    surge = [r for r in decision.recommendations if r.policy == "panic"]
    assert bool(surge) == (winner == "panic")


def test_it_waits_for_nothing_and_says_so() -> None:
    slow = {"cooldown": {"scale_up": "10m"}, "stabilization": {"scale_up": "5m"}}
    just = PolicyState(
        desired=2,
        first_at=T0 - 900,
        last_at=T0 - 5,
        last_up_at=T0 - 5,
        lows=((T0 - 5, 2),),
        highs=((T0 - 5, 2),),
    )
    held = once({**UTILIZATION, **slow, "panic": {"enabled": False}}, just)
    assert (held.desired, len(held.blocked_by)) == (2, 2)
    decision = once({**UTILIZATION, **slow}, just)
    assert (decision.desired, decision.blocked_by) == (8, ())
    assert decision.reason == "panic: 60 requests/s with 100 waiting would keep 9 servers busy, 2 ready"


def test_a_larger_recommendation_waits_for_nothing_either() -> None:
    just = PolicyState(desired=2, first_at=T0 - 900, last_at=T0 - 5, last_up_at=T0 - 5)
    steps = {"steps": [{"when": "queued > 50", "add": 10}]}
    decision = once({**UTILIZATION, **steps}, just)
    assert (decision.desired, decision.winner) == (12, "steps[0]")
    assert decision.reason.endswith(
        "; panic: 60 requests/s with 100 waiting would keep 9 servers busy, 2 ready"
    )


def test_a_limit_holds_in_panic_too() -> None:
    decision = once({**UTILIZATION, "limits": {"scale_up": {"servers": 3}}})
    assert (decision.desired, decision.blocked_by) == (5, ("limits scale_up: 3 servers in 60 s",))


def test_nothing_is_removed_until_the_window_is_over(pool: Callable[..., Any]) -> None:
    calm_off = {"cooldown": {"scale_up": 0, "scale_down": 0}, "stabilization": {"scale_down": 0}}
    p = pool(ready=2, max_servers=20, panic={"window": "40s"}, **UTILIZATION, **calm_off)
    p.tick(utilization=0.7)
    surge = {key: value for key, value in SURGE.items() if key != "ready"}
    assert p.tick(**surge).desired == 8
    quiet = {"utilization": 0.1, "arrivals_per_s": 4, "queued": 0, "capacity_rps_per_server": 10}
    decision = p.tick(**quiet)
    assert (decision.desired, decision.blocked_by) == (8, ("panic: 35 s left",))
    p.now += 7200  # the clock is set: what had 35 s to go still has
    assert p.ticks(35, **quiet).desired == 8
    assert p.tick(**quiet).desired == 2


def surge_of(**scaling: Any) -> tuple[int, float]:
    """A server completes 10/s, starts take 60 s, a controller looks every 5 s: load goes from 10/s to 80/s within a
    tick and stays. (requests waiting at worst, seconds until nothing waits any more)
    """
    spec = ScalingSpec.model_validate({"min_servers": 2, "max_servers": 40, **UTILIZATION, **scaling})
    state, ready, coming = PolicyState(), 2, list[float]()
    came, waiting, worst, since = [10.0] * 3, 0.0, 0.0, 0.0
    for tick in range(400):
        now = T0 + 5 * tick
        ready += sum(at <= now for at in coming)
        coming = [at for at in coming if at > now]
        rate = 80.0 if tick > 60 else 10.0
        came = [*came[1:], rate]
        done = min(waiting + rate * 5, ready * 50.0)
        waiting += rate * 5 - done
        worst = max(worst, waiting)
        since = 5.0 * (tick - 60) if waiting else since
        look = Signal(
            ready=ready, starting=len(coming), arrivals_per_s=sum(came) / 3, rps=done / 5,
            utilization=done / (ready * 50.0), queued=waiting, capacity_rps_per_server=10,
        )  # fmt: skip
        decision, state = decide(spec, state, look, now)
        assert decision.winner != "panic" or decision.desired <= 12, "80/s keep 12 busy"
        coming += [now + 60.0] * max(0, decision.desired - ready - len(coming))
        ready = min(ready, decision.desired)
    assert state.desired == 12
    return round(worst), since


def test_a_surge_is_carried_in_a_fraction_of_the_time() -> None:
    worst, since = surge_of()
    without, far_longer = surge_of(panic={"enabled": False})
    assert (worst, since) < (without / 2, far_longer / 2), (worst, since, without, far_longer)
