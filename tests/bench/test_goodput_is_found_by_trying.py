"""The search for the highest rate that keeps a promise ends close below it, from wherever it starts."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.agent.goodput import search


@given(st.floats(1, 1e5), st.floats(0.05, 20))
def test_it_ends_within_five_percent_below_the_knee(knee: float, off: float) -> None:
    found = search(lambda rate: rate <= knee, knee * off, tries=40)
    assert knee / 1.0501 <= found <= knee


def test_it_tries_no_more_than_it_may() -> None:
    tried: list[float] = []
    search(lambda rate: bool(tried.append(rate)), 100.0, tries=4)
    assert len(tried) == 4


def test_nothing_that_holds_is_zero() -> None:
    assert search(lambda rate: False, 100.0, tries=6) == 0.0
