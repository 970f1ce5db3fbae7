"""How many requests may go a second time, and when: tables, and hypothesis for the bound that is promised."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.failure.budget import Budget
from fleet_balancer.failure.hedge import LEAST, WINDOW, Hedge
from fleet_balancer.failure.outcome import outcome_of

arrivals = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 500), st.integers(0, 200)), min_size=1, max_size=40
)


@given(arrivals)
def test_retries_stay_within_a_fifth_of_requests_and_ten_a_second(
    steps: list[tuple[float, int, int]],
) -> None:
    """Whatever the arrivals and however often it is asked. The first second's worth is lent."""
    budget = Budget()
    now = seen = taken = 0.0
    for pause, requests, wanted in steps:
        now += pause
        seen += requests
        taken += sum(budget.allows(now, int(seen)) for _ in range(wanted))
        assert taken <= 0.2 * seen + 10.0 * now + 10.0 + 1e-6


def test_a_storm_gets_a_fifth_and_ten_a_second() -> None:
    budget = Budget()
    taken = 0
    for tenth in range(1, 601):  # 60 s of 300 requests/s, 100 of which want a second try
        taken += sum(budget.allows(tenth / 10, tenth * 30) for _ in range(10))
    assert 0.9 * (60 * 60 + 600) <= taken <= 60 * 60 + 600 + 10


def test_a_quiet_night_saves_nothing_up() -> None:
    budget = Budget()
    assert budget.allows(0.0, 0)
    assert sum(budget.allows(36_000.0, 5) for _ in range(1000)) <= 10 * 10 + 1


def test_what_was_in_flight_on_a_busy_host_can_go_again_at_once() -> None:
    budget = Budget()
    for second in range(60):
        assert budget.allows(float(second), second * 1000)
    assert sum(budget.allows(60.0, 60_000) for _ in range(1000)) == 1000


def test_the_clock_may_stand_still_or_step_back() -> None:
    budget = Budget()
    assert [budget.allows(now, 0) for now in (5.0, 5.0, 4.0, 5.0)] == [True] * 4


def test_a_hedge_goes_at_the_p95_once_enough_was_seen() -> None:
    hedge = Hedge()
    hedge.learn(range(1, LEAST))
    assert hedge.after_ms is None
    hedge.learn([LEAST])
    assert hedge.after_ms == math.ceil(0.95 * LEAST)
    hedge.learn([7.0] * WINDOW)
    assert hedge.after_ms == 7.0
    assert repr(hedge) == "<Hedge after 7.0 ms>"


def test_hedges_have_a_budget_of_their_own() -> None:
    hedge = Hedge()
    taken = sum(hedge.allows(s / 10, s * 100) for s in range(1, 601) for _ in range(50))
    assert 0.9 * 6060 <= taken <= 6062  # 10 % of 60,000 + 1/s in 60 s


@pytest.mark.parametrize(
    ("status", "retry_after", "own_deadline", "outcome"),
    [
        (200, False, False, "completed"),
        (304, False, False, "completed"),
        (400, False, False, "rejected"),
        (429, True, False, "rejected"),
        (499, False, False, "rejected"),
        (500, False, False, "error"),
        (500, True, True, "error"),
        (501, False, False, "excused"),
        (502, False, False, "error"),
        (503, False, False, "error"),
        (503, True, False, "busy"),
        (504, False, False, "error"),
        (504, False, True, "excused"),
        (505, False, False, "excused"),
        (599, False, False, "error"),
    ],
)
def test_what_an_answer_says_about_the_host(
    status: int, retry_after: bool, own_deadline: bool, outcome: str
) -> None:
    assert outcome_of(status, retry_after=retry_after, own_deadline=own_deadline) == outcome
