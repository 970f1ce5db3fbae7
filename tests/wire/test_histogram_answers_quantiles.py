"""The latency histogram: within 1 % of the true quantile, and additive."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_wire.histogram import GAMMA, HistogramWire, LatencyHistogram, merged

LATENCIES = st.lists(st.floats(min_value=0.001, max_value=1e7), min_size=1, max_size=200)


def histogram(values: list[float]) -> LatencyHistogram:
    made = LatencyHistogram()
    for value in values:
        made.record(value)
    return made


@given(LATENCIES, st.floats(min_value=0, max_value=1))
def test_a_quantile_is_within_one_percent_of_the_nearest_rank(values: list[float], q: float) -> None:
    true = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = histogram(values).quantile(q)
    assert found is not None
    assert abs(found - true) <= true * (GAMMA - 1) / (GAMMA + 1) * 1.0001


@given(LATENCIES, LATENCIES)
def test_merging_is_the_same_as_recording_both(a: list[float], b: list[float]) -> None:
    together = histogram(a + b)
    sum_of_two = merged([histogram(a), histogram(b)])
    assert sum_of_two.counts == together.counts
    assert sum_of_two.count == together.count
    assert sum_of_two.sum_ms == pytest.approx(together.sum_ms)


@given(st.lists(st.floats(min_value=0, max_value=1e9), max_size=50))
def test_recording_many_at_once_is_the_same_as_one_by_one(values: list[float]) -> None:
    many = LatencyHistogram()
    many.record_all(values)
    one_by_one = histogram(values)
    assert (many.counts, many.count) == (one_by_one.counts, one_by_one.count)
    assert many.sum_ms == pytest.approx(one_by_one.sum_ms)


@given(LATENCIES, LATENCIES)
def test_the_difference_of_two_looks_is_what_came_between(a: list[float], b: list[float]) -> None:
    earlier = histogram(a)
    later = histogram(a + b)
    between = later.since(earlier)
    assert between.counts == histogram(b).counts
    assert between.count == len(b)


def test_after_a_restart_everything_is_new() -> None:
    restarted = histogram([5.0])
    assert restarted.since(histogram([1.0, 2.0, 3.0])).count == 1


@given(LATENCIES)
def test_it_survives_the_wire(values: list[float]) -> None:
    sent = histogram(values)
    received = LatencyHistogram.from_wire(HistogramWire.model_validate_json(sent.to_wire().model_dump_json()))
    assert received == sent


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (HistogramWire(gamma=1.5), "counts in"),
        (HistogramWire(count=3, buckets={1: 2}), "do not add up"),
        (HistogramWire(count=0, buckets={1: 1, 2: -1}), "do not add up"),
    ],
)
def test_a_histogram_that_cannot_be_true_is_refused(wire: HistogramWire, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LatencyHistogram.from_wire(wire)


def test_odd_values_are_clamped_and_nan_is_refused() -> None:
    made = histogram([-5.0, 0.0, 1e12, math.inf])
    assert made.count == 4
    assert math.isfinite(made.sum_ms)
    with pytest.raises(ValueError, match="NaN"):
        made.record(math.nan)


def test_an_empty_one_has_no_quantile() -> None:
    assert LatencyHistogram().quantile(0.5) is None
    assert LatencyHistogram().mean() is None
    with pytest.raises(ValueError, match=r"0\.\.1"):
        LatencyHistogram().quantile(1.5)
