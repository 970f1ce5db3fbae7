"""One model's generation without a worker: the test says what came of each step."""

from __future__ import annotations

import time

import pytest

from fleet_agent.generate.generation import Generation
from fleet_agent.generate.sequence import Wish
from fleet_agent.served.counters import Counters
from fleet_wire.agent import ModelConfig
from fleet_wire.refusal import Refusal


class Trace:
    def __init__(self):
        self.told = []

    def sent(self, size):
        self.told.append(("sent", size))

    def ended(self, refusal):
        self.told.append(("ended", None if refusal is None else refusal.code))

    def abandoned(self):
        self.told.append("abandoned")


class Lone:
    """A generation, and a worker that says what it is told to."""

    def __init__(self, **config):
        self.counters = Counters()
        self.generation = Generation(ModelConfig(name="chat", path="/", **config), self.counters)

    def ask(self, **more):
        trace = Trace()
        wish = Wish({}, max_tokens=3)
        return self.generation.submit(wish, lambda: None, trace=trace, **more), trace

    def step(self, outcome=("said", "x", None)):
        taken = self.generation.take("a")
        assert taken is not None
        step, (joins, runs, leaves) = taken
        self.generation.stepped(step, dict.fromkeys(runs, outcome), None)
        return len(joins), len(runs), len(leaves)


async def test_a_whole_answer():
    lone = Lone()
    sequence, trace = lone.ask()
    assert [lone.step(), lone.step(), lone.step()] == [(1, 1, 0), (0, 1, 0), (0, 1, 0)]
    assert [text async for text in sequence.read()] == ["xxx"]
    assert (sequence.finish, sequence.tokens) == ("length", 3)
    assert lone.step() == (0, 0, 1)  # the worker forgets it
    assert not lone.generation.busy
    assert trace.told == [("sent", 1), ("ended", None)]
    assert lone.counters.completed == 1
    assert lone.counters.generated.tokens == 3
    assert (lone.counters.generated.first.count, lone.counters.generated.between.count) == (1, 2)


async def test_one_that_is_refused_and_one_that_is_abandoned():
    lone = Lone()
    refused, first = lone.ask()
    lone.step(("refused", "internal", "broken"))
    with pytest.raises(Refusal, match="broken"):
        [text async for text in refused.read()]
    gone, second = lone.ask()
    lone.generation.abandon(gone)
    assert not lone.generation.busy
    assert first.told == [("sent", 1), ("ended", "internal")]
    assert second.told == ["abandoned"]
    assert (lone.counters.errors, lone.counters.abandoned, lone.counters.completed) == (1, 1, 0)


async def test_one_that_finds_no_room_and_one_that_is_too_late():
    lone = Lone(max_batch_size=1, max_queue_size=1)
    lone.ask()
    with pytest.raises(Refusal) as full:
        lone.ask()
    assert full.value.code == "overloaded"
    lone.step()
    late, trace = lone.ask(deadline=time.monotonic() + 0.01)
    with pytest.raises(Refusal) as over:
        [text async for text in late.read()]
    assert over.value.code == "deadline_exceeded"
    assert trace.told == [("ended", "deadline_exceeded")]
    assert (lone.counters.overloaded, lone.counters.expired) == (1, 1)


async def test_the_worker_s_end_takes_what_runs_and_not_what_waits():
    lone = Lone(max_batch_size=1)
    runs, _ = lone.ask()
    waits, _ = lone.ask()
    lone.step()
    lone.generation.lost("a", "was killed")
    with pytest.raises(Refusal, match="may be sent again"):
        [text async for text in runs.read()]
    assert [lone.step(), lone.step(), lone.step()] == [(1, 1, 0), (0, 1, 0), (0, 1, 0)]
    assert [text async for text in waits.read()] == ["xxx"]
