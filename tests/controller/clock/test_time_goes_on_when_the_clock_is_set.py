"""The fleet's time neither jumps nor stands still when somebody sets the machine's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.clock import JUMP_S, SLEW, SteadyClock


class System:
    """A machine's clocks: `wall` can be set, `up` only runs."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.up = 1000.0

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.up)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_an_hour_that_did_not_pass_does_not_pass(jump: float) -> None:
    system = System()
    clock = system.clock()
    before = clock.now()
    system.passes(5.0)
    system.wall += jump
    assert clock.now() - before == pytest.approx(5.0, abs=5.0 * SLEW + 1e-6)
    assert clock.apart() == pytest.approx(jump, abs=1.0)


def test_a_suspended_machine_has_slept_that_long() -> None:
    system = System()
    clock = system.clock()
    before = clock.now()
    system.passes(8 * 3600.0)  # CLOCK_BOOTTIME counts the sleep
    assert clock.now() - before == pytest.approx(8 * 3600.0)
    assert clock.apart() == 0.0


def test_it_follows_the_wall_clock_in_the_end() -> None:
    system = System()
    clock = system.clock()
    system.wall += 60.0
    for _ in range(300):
        system.passes(5.0)
        clock.now()
    assert clock.now() == pytest.approx(system.wall, abs=JUMP_S)
    assert clock.apart() == 0.0


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(-5000.0, 5000.0)), max_size=50))
def test_time_never_runs_back_nor_far_ahead(steps: list[tuple[float, float]]) -> None:
    system = System()
    clock = system.clock()
    last = clock.now()
    for seconds, jump in steps:
        system.passes(seconds)
        system.wall += jump
        now = clock.now()
        assert seconds * (1 - SLEW) - 1e-3 <= now - last <= seconds * (1 + SLEW) + 1e-3
        last = now
