"""What the batcher sends, when, and what becomes of requests that end early."""

from __future__ import annotations

import pytest

from fleet_agent.queue.batch import Batch
from fleet_agent.queue.batcher import Batcher
from fleet_wire.refusal import Refusal


def parts(batch: Batch[int] | None) -> list[tuple[int, int, int]]:
    assert batch is not None
    return [(part.request, part.start, part.stop) for part in batch.parts]


def batcher(size: int = 4, delay: float = 0.0, queue: int = 10) -> Batcher[int, str]:
    return Batcher(size, delay, queue)


@pytest.mark.parametrize(
    ("counts", "batches"),
    [
        ([1], [[(1, 0, 1)]]),
        ([1, 1, 1], [[(1, 0, 1), (2, 0, 1), (3, 0, 1)]]),
        ([4, 1], [[(1, 0, 4)], [(2, 0, 1)]]),
        ([3, 3], [[(1, 0, 3), (2, 0, 1)], [(2, 1, 3)]]),
        ([9], [[(1, 0, 4)], [(1, 4, 8)], [(1, 8, 9)]]),
        ([2, 6, 1], [[(1, 0, 2), (2, 0, 2)], [(2, 2, 6)], [(3, 0, 1)]]),
    ],
)
def test_batches_are_full_and_in_order_of_arrival(counts, batches):
    queue = batcher()
    for number, count in enumerate(counts, 1):
        queue.add(number, count, now=0.0)
    for expected in batches:
        assert parts(queue.take(0.0).batch) == expected
    assert queue.take(0.0).batch is None
    assert queue.waiting_items == 0


def test_without_a_delay_a_single_item_goes_at_once():
    queue = batcher()
    assert queue.wake_at() is None
    queue.add(1, 1, now=5.0)
    assert queue.wake_at() == float("-inf")
    assert queue.take(5.0).batch is not None


def test_a_delay_waits_for_company_but_not_longer():
    queue = batcher(delay=0.010)
    queue.add(1, 1, now=5.0)
    assert queue.take(5.005).batch is None
    assert queue.wake_at() == pytest.approx(5.010)
    queue.add(2, 1, now=5.006)
    assert parts(queue.take(5.010).batch) == [(1, 0, 1), (2, 0, 1)]


def test_a_full_batch_does_not_wait_out_the_delay():
    queue = batcher(delay=10.0)
    queue.add(1, 3, now=0.0)
    assert queue.take(0.0).batch is None
    queue.add(2, 1, now=0.0)
    assert queue.take(0.0).batch is not None


def test_an_answer_is_joined_in_order_though_its_batches_return_out_of_order():
    queue = batcher(size=2)
    queue.add(1, 5, now=0.0)
    first, second, third = (queue.take(0.0).batch for _ in range(3))
    assert first and second and third
    assert queue.finish(third, ["e"], 1.0) == ([], 0)
    assert queue.finish(first, ["ab"], 1.0) == ([], 0)
    assert queue.finish(second, ["cd"], 1.0) == ([(1, ["ab", "cd", "e"])], 0)
    assert repr(queue) == "<Batcher 0 queued, 0 in flight, 0 items wait>"


def test_an_expired_request_is_never_sent():
    queue = batcher()
    queue.add(1, 1, now=0.0, deadline=1.0)
    queue.add(2, 1, now=0.0, deadline=3.0)
    taken = queue.take(1.0)
    assert taken.expired == (1,)
    assert parts(taken.batch) == [(2, 0, 1)]


def test_the_rest_of_an_expired_request_is_not_sent_and_its_running_part_is_dropped():
    queue = batcher()
    queue.add(1, 6, now=0.0, deadline=1.0)
    running = queue.take(0.0).batch
    assert running is not None
    taken = queue.take(2.0)
    assert (taken.batch, taken.expired) == (None, (1,))
    assert queue.finish(running, ["abcd"], 2.0) == ([], 4)
    assert queue.waiting_items == 0


def test_a_request_that_comes_too_late_is_refused():
    with pytest.raises(Refusal) as refused:
        batcher().add(1, 1, now=2.0, deadline=2.0)
    assert refused.value.status == 504


def test_a_cancelled_request_leaves_the_queue():
    queue = batcher()
    queue.add(1, 3, now=0.0)
    queue.add(2, 1, now=0.0)
    assert queue.cancel(1)
    assert not queue.cancel(1)
    assert parts(queue.take(0.0).batch) == [(2, 0, 1)]


def test_a_full_queue_refuses_and_says_when_to_come_back():
    queue = batcher(size=1, queue=2)
    queue.add(1, 1, now=0.0)
    batch = queue.take(0.0).batch
    assert batch is not None
    queue.finish(batch, ["a"], 3.0)  # a batch takes three seconds
    queue.add(2, 1, now=3.0)
    queue.add(3, 1, now=3.0)
    with pytest.raises(Refusal) as refused:
        queue.add(4, 1, now=3.0)
    assert (refused.value.status, refused.value.retry_after_s) == (429, pytest.approx(6.0))


def test_a_refused_part_ends_its_request_and_no_other():
    queue = batcher()
    queue.add(1, 2, now=0.0)
    queue.add(2, 6, now=0.0)
    batch = queue.take(0.0).batch
    assert batch is not None
    bad = Refusal("bad_request", "instance 0")
    assert queue.finish(batch, ["ab", bad], 1.0) == ([(1, ["ab"]), (2, bad)], 0)
    assert queue.take(1.0).batch is None


def test_outcomes_must_match_parts():
    queue = batcher()
    queue.add(1, 1, now=0.0)
    batch = queue.take(0.0).batch
    assert batch is not None
    with pytest.raises(ValueError, match="2 outcomes for a batch of 1 parts"):
        queue.finish(batch, ["a", "b"], 0.0)


def test_queued_and_in_flight_count_requests():
    queue = batcher()
    for number in (1, 2, 3):
        queue.add(number, 3, now=0.0)
    assert (queue.queued, queue.in_flight) == (3, 0)
    queue.take(0.0)  # all of 1, a third of 2
    assert (queue.queued, queue.in_flight) == (1, 2)


@pytest.mark.parametrize("settings", [(0, 0.0, 1), (1, -0.1, 1), (1, 0.0, 0)])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="at least"):
        Batcher(*settings)


def timed(size: int = 4, each: float = 0.1, fixed: float = 0.0) -> Batcher[int, str]:
    """Its batches are known to take `fixed` seconds and `each` per item."""
    return Batcher(size, 0.0, 100, lambda items: fixed + each * items)


def ran(queue: Batcher[int, str], now: float) -> None:
    """A batch came back just now, so that predictions are believed."""
    queue.add(10_000, 1, now)
    batch = queue.take(now + 1.0).batch
    assert batch is not None
    queue.finish(batch, ["x"], now)


def test_higher_priority_goes_first_and_nobody_starves():
    queue = batcher(size=1, queue=1000)
    queue.add(1, 1, now=0.0)
    for number in range(2, 32):
        queue.add(number, 1, now=1.0, priority=5)
    order = [part[0] for _ in range(31) for part in parts(queue.take(2.0).batch)]
    assert order[:9] == list(range(2, 11))
    assert order[9] == 1


def test_a_request_that_cannot_make_it_is_refused_at_once_with_when_to_come_back():
    queue = timed()
    ran(queue, 10.0)
    for number in range(1, 9):
        queue.add(number, 1, now=10.0)
    with pytest.raises(Refusal) as refused:
        queue.add(9, 1, now=10.0, deadline=10.7, busy_s=0.2)
    assert (refused.value.status, refused.value.retry_after_s) == (503, pytest.approx(0.4))
    queue.add(9, 1, now=10.0, deadline=11.25, busy_s=0.2)  # a tenth more than predicted
    queue.add(10, 1, now=10.0, deadline=10.7, priority=1)  # only those of its priority are before it


def test_old_predictions_refuse_nobody():
    queue = timed()
    ran(queue, 10.0)
    queue.add(1, 8, now=15.0)
    queue.add(2, 1, now=15.0, deadline=15.1)
    assert queue.queued == 2


def test_a_batch_is_as_small_as_its_deadlines_ask_for():
    queue = timed()
    ran(queue, 10.0)
    queue.add(1, 1, now=10.0, deadline=10.25)
    queue.add(2, 1, now=10.0)
    queue.add(3, 2, now=10.0)
    assert [part[0] for part in parts(queue.take(10.0).batch)] == [1, 2]


def test_what_cannot_make_it_any_more_is_not_computed():
    queue = timed()
    ran(queue, 10.0)
    queue.add(1, 1, now=10.0, deadline=10.3)
    queue.add(2, 1, now=10.0)
    taken = queue.take(10.25)
    assert taken.expired == (1,)
    assert parts(taken.batch) == [(2, 0, 1)]


def test_right_after_a_batch_nothing_waits_for_company_either():
    queue = timed()
    ran(queue, 10.0)
    queue.add(1, 1, now=10.0)
    assert queue.take(10.01).batch is not None


def test_an_idle_device_waits_for_nobody():
    queue = timed()
    ran(queue, 10.0)
    queue.add(1, 1, now=10.5)
    assert queue.take(10.5).batch is not None
