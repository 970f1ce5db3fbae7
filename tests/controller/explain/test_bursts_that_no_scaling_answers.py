"""Load that grows faster than hosts start: it is told, with the floor that would carry it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.explain.bursts import Bursts, bursts
from fleet_controller.records import Minute

ALLOWED = 0.05


def minutes(*requests: int) -> list[Minute]:
    return [Minute(60 * n, count) for n, count in enumerate(requests)]


def servers(rate: float) -> int:
    return max(1, math.ceil(rate / 10))


def test_a_load_that_climbs_slowly_is_held_by_scaling() -> None:
    climbing = minutes(*(600 + 10 * n for n in range(120)))
    assert bursts(climbing, servers, 60.0, 1, ALLOWED) is None


def test_bursts_from_nothing_need_a_floor() -> None:
    spiky = minutes(*([60] * 9 + [3000]) * 12)  # a minute of 50/s every ten: 5 servers
    assert bursts(spiky, servers, 60.0, 1, ALLOWED) == Bursts(12, 120, 36000 / 42480, 5)
    assert bursts(spiky, servers, 60.0, 5, ALLOWED) is None
    # what the target lets be late needs no floor
    assert bursts(spiky, servers, 60.0, 1, 0.9) is None


def test_the_floor_leaves_the_rarest_burst_to_the_allowed_share() -> None:
    one_more = minutes(*([600] * 9 + [3000]) * 12, 600, 600, 600, 600, 600, 600, 3600)
    found = bursts(one_more, servers, 60.0, 1, ALLOWED)
    assert found is not None and found.floor == 5  # 6 for the last one alone: 3600 of 105,000


def test_too_little_is_known() -> None:
    assert bursts(minutes(*[60, 3000] * 20), servers, 60.0, 1, ALLOWED) is None
    assert bursts(minutes(*[0] * 100), servers, 60.0, 1, ALLOWED) is None


def test_after_a_gap_nothing_is_held_against_anybody() -> None:
    before = minutes(*[60] * 60)
    after = [Minute(86400 + 60 * n, 3000) for n in range(60)]
    assert bursts([*before, *after], servers, 60.0, 1, ALLOWED) is None


@given(
    counts=st.lists(st.integers(0, 9000), min_size=60, max_size=150),
    late_s=st.floats(0, 600),
    low=st.integers(0, 9),
    allowed=st.floats(0.0, 0.5),
)
def test_with_the_floor_that_is_named_nothing_is_left_to_say(
    counts: list[int], late_s: float, low: int, allowed: float
) -> None:
    found = bursts(minutes(*counts), servers, late_s, low, allowed)
    if found is not None:
        assert found.floor > low and found.share > allowed
        assert bursts(minutes(*counts), servers, late_s, found.floor, allowed) is None
