"""How long a batch takes by its size is learned from the batches that ran."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.queue.curve import ServiceCurve


def test_sizes_up_to_four_have_points_of_their_own() -> None:
    curve = ServiceCurve()
    for size, _ in itertools.product((1, 2, 3, 4), range(5)):
        curve.observed(size, 0.01 * size)
    assert [round(size) for size, _ in curve.points()] == [1, 2, 3, 4]
    assert all(abs(seconds - 0.01 * size) < 1e-9 for size, seconds in curve.points())


def test_a_few_batches_say_nothing() -> None:
    curve = ServiceCurve()
    for _ in range(4):
        curve.observed(8, 0.1)
    assert curve.points() == []


def test_a_change_of_speed_is_followed() -> None:
    curve = ServiceCurve()
    for _ in range(500):
        curve.observed(16, 0.1)
    for _ in range(200):
        curve.observed(16, 0.2)
    [(size, seconds)] = curve.points()
    assert size == 16
    assert 0.19 < seconds <= 0.2


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0.0001, 100.0)), max_size=300))
def test_points_are_few_in_order_and_within_what_was_seen(seen: list[tuple[int, float]]) -> None:
    curve = ServiceCurve()
    for size, seconds in seen:
        curve.observed(size, seconds)
    points = curve.points()
    assert len(points) <= 50
    assert [size for size, _ in points] == sorted(size for size, _ in points)
    assert all(min(s for s, _ in seen) <= size <= max(s for s, _ in seen) + 1e-6 for size, _ in points)
