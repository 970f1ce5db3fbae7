"""The batch limit that memory teaches, and whose turn it is on a shared device."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.queue.cap import MemoryCap
from fleet_agent.queue.turns import Turns


@given(most=st.integers(2, 64), holds=st.integers(1, 64))
def test_the_limit_is_found_exactly_and_stays(most: int, holds: int) -> None:
    cap = MemoryCap(most)
    failures = 0
    for batch in range(600):
        if cap.size > holds:
            failures += 1
            size = cap.size
            while size > holds:
                smallest, size = size, size // 2
            cap.failed(smallest, now=batch)
        else:
            cap.fitted(cap.size, now=batch * 0.1)
    assert cap.size == min(most, holds)
    assert failures <= 8


def test_after_ten_quiet_minutes_everything_is_tried_again() -> None:
    cap = MemoryCap(32)
    cap.failed(32, now=0.0)
    cap.fitted(16, now=599.0)
    assert cap.size == 16
    cap.fitted(16, now=601.0)
    assert cap.size == 32


def test_models_get_equal_time_whatever_their_batches_take() -> None:
    turns = Turns(["slow", "fast"])
    spent = {"slow": 0.0, "fast": 0.0}
    for _ in range(1000):
        name = turns.order()[0]
        seconds = 1.0 if name == "slow" else 0.1
        turns.used(name, seconds)
        spent[name] += seconds
    assert abs(spent["slow"] - spent["fast"]) <= 1.0


def test_who_was_idle_has_no_claim_on_the_past() -> None:
    turns = Turns(["idle", "busy"])
    for _ in range(100):
        turns.used("busy", 1.0)
    first = []
    for _ in range(10):
        first.append(turns.order()[0])
        turns.used(first[-1], 1.0)
    assert 4 <= first.count("busy") <= 6
