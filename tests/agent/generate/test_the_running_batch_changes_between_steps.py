"""The scheduler: who joins, who leaves, who waits. No device, no clock."""

from __future__ import annotations

import pytest

from fleet_agent.generate.scheduler import Scheduler, Step
from fleet_wire.refusal import Refusal


def taken(scheduler: Scheduler, now: float = 0.0, place: str = "a") -> Step:
    step, late = scheduler.take(place, now)
    assert step is not None
    assert late == []
    return step


def filled(most: int, *sequences: int, queue: int = 1024) -> Scheduler:
    scheduler = Scheduler(most, queue)
    for sequence in sequences:
        scheduler.add(sequence, 0.0)
    return scheduler


def test_a_sequence_joins_the_running_batch_before_the_next_step():
    scheduler = filled(4, 1)
    first = taken(scheduler)
    scheduler.add(2, 0.5)
    scheduler.finish(first, [], 1.0)
    second = taken(scheduler, 1.0)
    assert (first.joins, first.runs) == ((1,), (1,))
    assert (second.joins, second.runs) == ((2,), (1, 2))


def test_a_short_one_that_came_later_is_over_first_and_its_place_goes_to_the_next():
    scheduler = filled(2, 1, 2, 3)
    step = taken(scheduler)
    assert step.runs == (1, 2)
    scheduler.finish(step, [2], 1.0)
    step = taken(scheduler, 1.0)
    assert (step.joins, step.runs, step.leaves) == ((3,), (1, 3), ())


def test_what_is_ended_from_outside_is_forgotten_with_the_next_step():
    scheduler = filled(2, 1, 2)
    step = taken(scheduler)
    assert scheduler.end(1)
    scheduler.finish(step, [], 1.0)
    step = taken(scheduler, 1.0)
    assert (step.runs, step.leaves) == ((2,), (1,))
    assert not scheduler.end(1)


def test_the_last_one_that_leaves_is_forgotten_by_a_step_without_runs():
    scheduler = filled(2, 1)
    scheduler.finish(taken(scheduler), [], 1.0)
    scheduler.over(1, 1.0)
    assert scheduler.busy
    step = taken(scheduler, 1.0)
    assert (step.runs, step.leaves) == ((), (1,))
    scheduler.finish(step, [], 1.0)
    assert not scheduler.busy
    assert scheduler.take("a", 2.0) == (None, [])


def test_one_that_the_worker_ended_while_its_client_left_is_forgotten_once():
    scheduler = filled(2, 1)
    step = taken(scheduler)
    scheduler.end(1)
    scheduler.finish(step, [1], 1.0)
    assert not scheduler.busy


def test_two_steps_at_one_place_never_overlap():
    scheduler = filled(2, 1)
    taken(scheduler)
    with pytest.raises(ValueError, match="under way"):
        scheduler.take("a", 0.0)


def test_each_place_has_its_own_sequences():
    scheduler = filled(1, 1, 2, 3)
    assert taken(scheduler, place="a").runs == (1,)
    assert taken(scheduler, place="b").runs == (2,)
    assert scheduler.queued == 1


def test_a_lost_place_loses_its_sequences_and_no_others():
    scheduler = filled(1, 1, 2, 3)
    taken(scheduler, place="a")
    taken(scheduler, place="b")
    assert scheduler.lost("a") == [1]
    assert (scheduler.running, scheduler.queued) == (1, 1)
    assert taken(scheduler, 1.0, "a").runs == (3,)


def test_a_held_sequence_keeps_its_place_and_is_not_stepped():
    scheduler = filled(2, 1, 2)
    scheduler.finish(taken(scheduler), [], 1.0)
    scheduler.hold(1, True)
    step = taken(scheduler, 1.0)
    assert step.runs == (2,)
    scheduler.finish(step, [2], 2.0)
    assert scheduler.take("a", 2.0) == (None, [])
    scheduler.hold(1, False)
    assert taken(scheduler, 3.0).runs == (1,)


def test_nobody_joins_a_place_that_takes_none():
    scheduler = filled(2, 1)
    scheduler.finish(taken(scheduler), [], 1.0)
    scheduler.add(2, 1.0)
    step, _ = scheduler.take("a", 1.0, joining=False)
    assert step is not None
    assert step.runs == (1,)
    assert scheduler.holds("a")


def test_higher_priority_joins_first_and_every_tenth_place_is_for_who_waits_longest():
    scheduler = Scheduler(1)
    scheduler.add(0, 0.0, priority=0)
    for number in range(1, 20):
        scheduler.add(number, float(number), priority=5)
    order = []
    for turn in range(11):
        step = taken(scheduler, 20.0 + turn)
        order += step.joins
        scheduler.finish(step, step.runs, 20.5 + turn)
    assert order == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 10]


def test_what_is_late_never_begins_and_stops_where_it_is():
    scheduler = Scheduler(1)
    scheduler.add(1, 0.0, deadline=1.5)
    scheduler.add(2, 0.0, deadline=1.5)
    scheduler.finish(taken(scheduler), [], 1.0)
    step, late = scheduler.take("a", 2.0)
    assert late == [1, 2]
    assert step is not None
    assert (step.runs, step.leaves) == ((), (1,))


def test_a_full_queue_refuses_with_the_time_that_it_needs():
    scheduler = filled(1, 1, queue=1)
    step = taken(scheduler)
    scheduler.finish(step, [1], 4.0)  # a sequence stays for 4 s
    scheduler.add(2, 4.0)
    taken(scheduler, 4.0)
    scheduler.add(3, 4.0)
    with pytest.raises(Refusal) as refused:
        scheduler.add(4, 4.0)
    assert refused.value.code == "overloaded"
    assert refused.value.retry_after_s == 8.0


def test_a_deadline_that_no_place_can_meet_is_refused_at_once():
    scheduler = filled(1, 1)
    step = taken(scheduler)
    scheduler.finish(step, [1], 4.0)
    scheduler.add(2, 4.0)
    taken(scheduler, 4.0)
    with pytest.raises(Refusal) as refused:
        scheduler.add(3, 4.5, deadline=5.5)
    assert refused.value.code == "unavailable"
    scheduler.add(4, 4.5, deadline=20.0)
    scheduler.add(5, 9.0, deadline=9.5)  # no step for two seconds: nothing is believed
    with pytest.raises(Refusal) as refused:
        scheduler.add(6, 9.0, deadline=9.0)
    assert refused.value.code == "deadline_exceeded"


def test_a_smaller_limit_lets_nobody_join_until_enough_have_left():
    scheduler = filled(3, 1, 2, 3, 4)
    step = taken(scheduler)
    scheduler.max_batch_size = 2
    scheduler.finish(step, [3], 1.0)
    step = taken(scheduler, 1.0)
    assert step.runs == (1, 2)
    scheduler.finish(step, [1], 2.0)
    assert taken(scheduler, 2.0).runs == (2, 4)
