"""Whatever happens to a batcher: every request ends once, answer i belongs to request i, no item runs twice."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet_agent.queue.batch import Batch, Finished
from fleet_agent.queue.batcher import Batcher
from fleet_wire.refusal import Refusal

Items = list[tuple[int, int]]  # (request, item)
SIZE, QUEUE = 5, 6


class Life(RuleBasedStateMachine):
    """Adds, cancels, takes, finishes in any order while time passes, against a plain record of what must be."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[int, Items] = Batcher(SIZE, 0.3, QUEUE)
        self.now = 0.0
        self.counts: dict[int, int] = {}
        self.deadlines: dict[int, float] = {}
        self.open: set[int] = set()
        self.running: list[Batch[int]] = []
        self.computed: set[tuple[int, int]] = set()

    @rule(count=st.integers(1, 13), timeout=st.none() | st.floats(0.01, 2.0), priority=st.integers(0, 9))
    def add(self, count: int, timeout: float | None, priority: int) -> None:
        request = len(self.counts) + 1
        deadline = None if timeout is None else self.now + timeout
        full = self.batcher.queued >= QUEUE
        try:
            self.batcher.add(request, count, self.now, deadline, priority)
        except Refusal as refusal:
            assert full and refusal.status == 429
            return
        assert not full
        self.counts[request] = count
        self.open.add(request)
        if deadline is not None:
            self.deadlines[request] = deadline

    @rule(seconds=st.floats(0.0, 1.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.open)))
        assert self.batcher.cancel(request)
        self.open.remove(request)

    @rule()
    def take(self) -> None:
        wake = self.batcher.wake_at()
        waiting = self.batcher.waiting_items
        taken = self.batcher.take(self.now)
        for request in taken.expired:
            assert self.deadlines[request] <= self.now
            self.open.remove(request)
        if taken.batch is None:
            assert not waiting or taken.expired or (wake is not None and wake > self.now)
            return
        assert wake is not None and wake <= self.now
        assert 1 <= taken.batch.size <= SIZE
        assert taken.batch.size == SIZE or not self.batcher.waiting_items
        for part in taken.batch.parts:
            assert part.request in self.open
            assert self.deadlines.get(part.request, self.now + 1) > self.now
            for item in range(part.start, part.stop):
                assert (part.request, item) not in self.computed
                self.computed.add((part.request, item))
        self.running.append(taken.batch)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), bad=st.sets(st.integers(0, SIZE - 1), max_size=2))
    def finish(self, data: st.DataObject, bad: set[int]) -> None:
        batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.over(*self.batcher.finish(batch, self.outcomes(batch, bad), self.now), batch)

    def outcomes(self, batch: Batch[int], bad: set[int]) -> list[Items | Refusal]:
        return [
            Refusal("internal", "bad")
            if index in bad
            else [(part.request, i) for i in range(part.start, part.stop)]
            for index, part in enumerate(batch.parts)
        ]

    def over(self, finished: list[Finished[int, Items]], unwanted: int, batch: Batch[int]) -> None:
        assert unwanted == sum(part.size for part in batch.parts if part.request not in self.open)
        for request, outcome in finished:
            self.open.remove(request)
            if not isinstance(outcome, Refusal):
                answer = [item for part in outcome for item in part]
                assert answer == [(request, i) for i in range(self.counts[request])]

    @invariant()
    def counts_agree(self) -> None:
        assert self.batcher.queued + self.batcher.in_flight == len(self.open)
        assert 0 <= self.batcher.queued <= QUEUE
        assert sum(self.batcher._items.values()) == self.batcher.waiting_items

    def teardown(self) -> None:
        """Left alone, everything ends."""
        self.now += 10.0
        while self.running or self.batcher.waiting_items:
            self.take()
            if self.running:
                batch = self.running.pop()
                self.over(*self.batcher.finish(batch, self.outcomes(batch, set()), self.now), batch)
        assert not self.open


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
