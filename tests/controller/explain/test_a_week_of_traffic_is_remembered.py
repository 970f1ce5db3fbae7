"""From a count that only grows to requests a minute, with restarts on either side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.explain.tally import Tally
from fleet_controller.journal import Journal, Mark, Minute
from fleet_controller.window import PoolSample
from fleet_wire.histogram import LatencyHistogram

T0 = 1_790_000_000.0 // 3600 * 3600


def count(at: float, arrivals: int, source: str = "1@0", started_at: float | None = None) -> PoolSample:
    return PoolSample(at, source, arrivals, 0, 0, 0, 0, LatencyHistogram(), started_at)


@given(
    looks=st.lists(st.tuples(st.floats(0.1, 299.0), st.integers(0, 10_000)), min_size=2, max_size=60),
    restart=st.integers(0, 59),
)
def test_the_minutes_add_up_to_what_was_counted(looks: list[tuple[float, int]], restart: int) -> None:
    """A controller that is restarted anywhere goes on from the mark and loses nothing."""
    kept: dict[int, int] = {}
    tally, mark, now, total = Tally(Mark("1@0", 0, T0)), Mark("1@0", 0, T0), T0, 0
    for number, (seconds, more) in enumerate([*looks, (60.0, 0), (60.0, 0)]):
        now, total = now + seconds, total + more
        if number == restart and now - mark.at < 300:
            tally = Tally(mark)
        over = tally.feed(now, count(now, total))
        if over is not None:
            mark = over[1]
            for minute in over[0]:
                assert minute.at % 60 == 0 and minute.requests >= 0 and minute.at not in kept
                kept[minute.at] = minute.requests
    assert sum(kept.values()) == total
    assert sorted(kept) == list(range(min(kept), max(kept) + 1, 60))
    assert mark.arrivals == total


def test_what_came_between_two_looks_is_shared_by_time() -> None:
    tally = Tally()
    assert tally.feed(T0 + 50, count(T0 + 50, 100)) is None
    assert tally.feed(T0 + 70, count(T0 + 70, 130)) == ([Minute(int(T0), 15)], Mark("1@0", 115, T0 + 60))


def test_a_balancer_that_restarts_counts_from_nothing() -> None:
    tally = Tally()
    tally.feed(T0, count(T0, 100))
    tally.feed(T0 + 10, count(T0 + 10, 110))
    tally.feed(T0 + 20, None)  # gone
    fresh = count(T0 + 30, 7, "2@15", started_at=T0 + 15)
    assert tally.feed(T0 + 30, fresh) is None
    over = tally.feed(T0 + 60, count(T0 + 60, 9, "2@15", started_at=T0 + 15))
    assert over is not None and over[0] == [Minute(int(T0), 19)]


@pytest.mark.parametrize(
    "sample",
    [
        count(T0 + 900, 500),  # nobody looked for a quarter of an hour
        count(T0 + 30, 500, "2@5", started_at=T0 - 1000),  # another balancer, which was there before
        count(T0 + 30, 50),  # a count that went back
    ],
)
def test_what_nobody_can_know_stays_unknown(sample: PoolSample) -> None:
    tally = Tally()
    tally.feed(T0, count(T0, 100))
    tally.feed(T0 + 10, count(T0 + 10, 110))
    over = tally.feed(sample.at, sample)
    assert over == ([Minute(int(T0), 10)], Mark(sample.source, sample.arrivals, sample.at))


def test_the_journal_keeps_a_row_an_hour_and_90_days(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'state.db'}")
    day = 86400
    for number in range(100):
        at = int(T0) + number * day
        journal.keep_traffic("one", [Minute(at, number), Minute(at + 120, 3)], Mark("s", number, at + 180))
    journal.keep_traffic("two", [Minute(int(T0), 1)], Mark("s", 1, T0))
    known = journal.traffic("one")
    assert len(known) == 2 * 90 and known[-1] == Minute(int(T0) + 99 * day + 120, 3)
    assert journal.traffic("one", since=T0 + 99 * day + 60) == [known[-1]]
    assert journal.traffic_mark("one") == Mark("s", 99, T0 + 99 * day + 180)
    assert journal.traffic("two") == [Minute(int(T0), 1)] and journal.traffic_mark("three") is None
    # a minute that was known in part is added to
    journal.keep_traffic("two", [Minute(int(T0), 4)], Mark("s", 5, T0))
    assert journal.traffic("two") == [Minute(int(T0), 5)]
    journal.close()
