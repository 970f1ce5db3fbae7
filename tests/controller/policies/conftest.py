from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fleet_controller.policies import Decision, PolicyState, ScalingSpec, Signal, decide

T0 = 1_790_000_000.0


@dataclass
class Pool:
    """Decisions in a row: each tick hands the state through JSON, as a restart would. Hosts start after
    `startup_s`.
    """

    spec: ScalingSpec
    now: float = T0
    interval: float = 5.0
    startup_s: float = 0.0
    ready: int = 0
    state: PolicyState = field(default_factory=PolicyState)
    coming: list[float] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)

    def tick(self, **signal: object) -> Decision:
        """One look with these measurements, one decision, and the hosts it asks for."""
        self.ready += sum(at <= self.now for at in self.coming)
        self.coming = [at for at in self.coming if at > self.now]
        counts = {"ready": self.ready, "starting": len(self.coming)}
        look = Signal.model_validate({**counts, **signal})
        decision, state = decide(self.spec, self.state, look, self.now)
        self.state = PolicyState.from_json(state.to_json())
        assert self.state == state
        while self.ready + len(self.coming) < decision.desired:
            self.coming.append(self.now + self.startup_s)
        while self.coming and self.ready + len(self.coming) > decision.desired:
            self.coming.pop()
        self.ready = min(self.ready, decision.desired)
        self.decisions.append((self.now, decision))
        self.now += self.interval
        return decision

    def ticks(self, seconds: float, **signal: object) -> Decision:
        for _ in range(round(seconds / self.interval)):
            decision = self.tick(**signal)
        return decision


@pytest.fixture
def pool() -> Callable[..., Pool]:
    """pool(ready=2, startup_s=60, min_servers=1, ...): a pool whose other arguments are its scaling block."""

    def make(ready: int = 0, startup_s: float = 0.0, interval: float = 5.0, **scaling: object) -> Pool:
        spec = ScalingSpec.model_validate({"max_servers": 10, **scaling})
        return Pool(spec, ready=ready, startup_s=startup_s, interval=interval)

    return make
