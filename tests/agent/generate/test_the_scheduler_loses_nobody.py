"""Whatever happens in whatever order: everybody gets their own pieces, everybody comes to an end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_agent.generate.scheduler import Scheduler, Step
from fleet_wire.refusal import Refusal

ACTION = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9), st.integers(1, 6)),
    st.tuples(st.just("take"), st.sampled_from("ab"), st.just(0)),
    st.tuples(st.just("finish"), st.sampled_from("ab"), st.just(0)),
    st.tuples(st.just("gone"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("lost"), st.sampled_from("ab"), st.just(0)),
    st.tuples(st.just("hold"), st.integers(0, 30), st.integers(0, 1)),
)


class World:
    """A worker per place that does what it is told, and counts the steps that each sequence had."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.scheduler = Scheduler(most, 8)
        self.now = 0.0
        self.length: dict[int, int] = {}
        self.had: dict[int, int] = {}
        self.where: dict[int, str] = {}
        self.over: set[int] = set()
        self.states: dict[str, set[int]] = {"a": set(), "b": set()}
        self.steps: dict[str, Step] = {}

    def add(self, priority: int, length: int) -> None:
        number = len(self.length)
        try:
            self.scheduler.add(number, self.now, None, priority)
        except Refusal:
            return
        self.length[number] = length
        self.had[number] = 0

    def take(self, place: str) -> None:
        if place in self.steps:
            return
        step, late = self.scheduler.take(place, self.now)
        assert not late
        if step is None:
            return
        states = self.states[place]
        assert states >= set(step.leaves), "only what is known is forgotten"
        states -= set(step.leaves)
        for sequence in step.joins:
            assert sequence not in self.where, "joins once"
            self.where[sequence] = place
            states.add(sequence)
        assert states >= set(step.runs), "only what has begun here is stepped"
        assert len(states) <= self.most
        self.steps[place] = step

    def finish(self, place: str) -> None:
        step = self.steps.pop(place, None)
        if step is None:
            return
        ended = []
        for sequence in step.runs:
            self.had[sequence] += 1
            if self.had[sequence] == self.length[sequence]:
                ended.append(sequence)
        self.states[place] -= set(ended)
        self.over |= set(ended)
        self.scheduler.finish(step, ended, self.now)

    def gone(self, number: int) -> None:
        known = number in self.length and number not in self.over
        assert self.scheduler.end(number) == known
        if known:
            self.over.add(number)

    def lost(self, place: str) -> None:
        lost = self.scheduler.lost(place)
        assert set(lost) == {n for n in self.states[place] if n not in self.over}
        self.over |= set(lost)
        self.states[place].clear()
        self.steps.pop(place, None)

    def hold(self, number: int, held: int) -> None:
        self.scheduler.hold(number, bool(held))


@settings(max_examples=80, deadline=None)
@given(most=st.integers(1, 4), actions=st.lists(ACTION, max_size=80))
def test_every_sequence_gets_its_steps_and_an_end(most, actions):
    world = World(most)
    for name, one, two in actions:
        world.now += 1.0
        if name in ("add", "hold"):
            getattr(world, name)(one, two)
        else:
            getattr(world, name)(one)
    for number in world.length:
        world.scheduler.hold(number, False)
    # From here nobody new comes: all that are left come to their end, in a bounded number of steps.
    for _ in range(7 * (len(world.length) + 2)):
        world.now += 1.0
        for place in ("a", "b"):
            world.take(place)
            world.finish(place)
    assert world.over == set(world.length)
    assert not world.scheduler.busy
    assert world.states == {"a": set(), "b": set()}


@settings(max_examples=50, deadline=None)
@given(most=st.integers(1, 3), low=st.integers(0, 8))
def test_a_stream_of_urgent_ones_does_not_starve_the_others(most, low):
    world = World(most)
    world.add(low, 1)
    for _ in range(12):
        for _ in range(most):
            world.add(9, 1)
        world.now += 1.0
        world.take("a")
        world.finish("a")
    assert 0 in world.over
