"""The sequences of one served model: queued, stepped, answered, counted. In the engine's event loop.

`Scheduler` decides who takes part in a step; here is what becomes of what the worker says: pieces go to their sequence,
one that is over leaves. A sequence whose client reads too slowly is held, and given up after `_STALLED_S`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from fleet_agent.generate.figures import Figures
from fleet_agent.generate.scheduler import Scheduler, Step
from fleet_agent.generate.sequence import Finish, Sequence, Trace, Wish
from fleet_agent.queue.cap import MemoryCap
from fleet_agent.queue.curve import ServiceCurve
from fleet_wire.agent import ModelConfig
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal

log = logging.getLogger("fleet_agent.generation")

_STALLED_S = 60.0
# How much one answer counts in the mean of tokens per answer.
_MEMORY = 0.05


class Tally(Protocol):
    """What the engine counts for every model; see served.Counters."""

    completed: int
    errors: int
    bad: int
    expired: int
    abandoned: int
    items: int
    latency: LatencyHistogram
    inference: LatencyHistogram
    generated: Figures

    def turned_away(self, refusal: Refusal) -> None:
        """Counts a request that the queue didn't take."""


class Generation:
    """What a model generates. It costs nothing where nobody asks for any."""

    def __init__(self, config: ModelConfig, tally: Tally) -> None:
        self.figures = tally.generated
        self.curve = ServiceCurve()  # of steps, by the sequences in them
        self.cap = MemoryCap(config.max_batch_size)
        self._name = config.name
        self._tally = tally
        self._scheduler = Scheduler(config.max_batch_size, config.max_queue_size)
        self._sequences: dict[int, Sequence] = {}
        self._ids = itertools.count(1)
        self._tokens_each: float | None = None

    @property
    def busy(self) -> bool:
        """There are sequences, or what a worker still keeps of some."""
        return self._scheduler.busy

    @property
    def limit(self) -> int:
        """How many sequences may run at once on a device."""
        return self.cap.size

    @property
    def queued(self) -> int:
        return self._scheduler.queued

    @property
    def in_flight(self) -> int:
        return self._scheduler.running

    def submit(
        self,
        wish: Wish,
        pump: Callable[[], None],
        deadline: float | None = None,
        priority: int = 0,
        trace: Trace | None = None,
    ) -> Sequence:
        """Queue a sequence; `deadline` is in time.monotonic() seconds. `pump` is called when a free device may have
        something to do. Raises Refusal."""
        now = time.monotonic()
        number = next(self._ids)
        try:
            self._scheduler.add(number, now, deadline, priority)
        except Refusal as refusal:
            self._tally.turned_away(refusal)
            if trace is not None:
                trace.ended(refusal)
            raise

        def room() -> None:
            self._go_on(sequence)
            pump()

        sequence = Sequence(number, wish, now, room, trace)
        self._sequences[number] = sequence
        if deadline is not None:
            loop = asyncio.get_running_loop()
            sequence.timer = loop.call_later(deadline - now, self._expire, number)
        pump()
        return sequence

    def abandon(self, sequence: Sequence) -> None:
        """Its client is gone: it takes part in no further step."""
        if self._sequences.pop(sequence.id, None) is not None:
            self._tally.abandoned += 1
            self._close(sequence)
            if sequence.trace is not None:
                sequence.trace.abandoned()
            sequence.end(Refusal("request_timeout", "the client is gone"))

    def holds(self, place: str) -> bool:
        """The worker there has sequences of this model."""
        return self._scheduler.holds(place)

    def take(self, place: str, joining: bool = True) -> tuple[Step, tuple[Any, ...]] | None:
        """The next step for a free device, and what the worker has to know of it: (joins with their requests, runs,
        leaves). None: nothing to do. Nobody begins where `joining` is False."""
        now = time.monotonic()
        step, late = self._scheduler.take(place, now, joining)
        for number in late:
            self._expire(number)
        if step is None:
            return None
        joins = [(number, self._sequences[number].wish.request) for number in step.joins]
        self._tally.items += len(joins)
        for number in step.joins:
            trace = self._sequences[number].trace
            if trace is not None:
                trace.sent(step.size)
        return step, (joins, step.runs, step.leaves)

    def stepped(self, step: Step, outcomes: dict[int, tuple[Any, ...]], out_of_memory: int | None) -> None:
        """A step came back; `outcomes` by sequence, see crossing/. Raises ValueError where one is missing."""
        now = time.monotonic()
        if set(outcomes) != set(step.runs):
            raise ValueError(f"step {step.id} came back without the outcomes of its sequences")
        ended = [number for number, outcome in outcomes.items() if outcome[0] != "said"]
        self._scheduler.finish(step, ended, now)
        if step.runs:
            self._learn(step, now, out_of_memory)
        for number, outcome in outcomes.items():
            sequence = self._sequences.get(number)
            if sequence is not None:
                self._hear(sequence, outcome, now)

    def lost(self, place: str, why: str) -> None:
        """The worker there is gone, and with it what it knew of its sequences. Those that wait go on waiting."""
        message = f"the worker {why} while it computed this answer; the request may be sent again"
        for number in self._scheduler.lost(place):
            sequence = self._sequences.pop(number, None)
            if sequence is not None:
                self._refuse(sequence, Refusal("unavailable", message, 1.0))

    def stop(self, refusal: Refusal) -> None:
        """End everything that is here."""
        for sequence in list(self._sequences.values()):
            self._drop(sequence, refusal)

    def points(self) -> list[tuple[float, float]]:
        """The service curve as the controller reads it: (answers at once, seconds until they are whole)."""
        if self._tokens_each is None:
            return []
        return [(size, seconds * max(1.0, self._tokens_each)) for size, seconds in self.curve.points()]

    def _learn(self, step: Step, now: float, out_of_memory: int | None) -> None:
        self.figures.steps += 1
        self.figures.stepped += step.size
        self._tally.inference.record((now - step.formed_at) * 1000.0)
        if out_of_memory is not None:
            before = self.cap.size
            self.cap.failed(out_of_memory, now)
            if self.cap.size != before:  # as long as more than that run, every step fails once
                message = "model %s: memory doesn't hold %d sequences; at most %d run at once now"
                log.warning(message, self._name, out_of_memory, self.cap.size)
        else:
            self.cap.fitted(step.size, now)
            self.curve.observed(step.size, now - step.formed_at)
        self._scheduler.max_batch_size = self.cap.size

    def _hear(self, sequence: Sequence, outcome: tuple[Any, ...], now: float) -> None:
        kind, *rest = outcome
        if kind == "refused":
            code, message = rest
            self._drop(sequence, Refusal(code, message, 1.0 if code == "unavailable" else None))
            return
        prompt_tokens = rest[-1]
        if prompt_tokens is not None:
            sequence.prompt_tokens = prompt_tokens
        if kind == "end":
            sequence.say(sequence.stops.rest())
            self._finish(sequence, "stop", now)
            return
        sequence.tokens += 1
        self.figures.tokens += 1
        if sequence.said_at is None:
            self.figures.first.record((now - sequence.started) * 1000.0)
        else:
            self.figures.between.record((now - sequence.said_at) * 1000.0)
        sequence.said_at = now
        text, stopped = sequence.stops.push(rest[0])
        sequence.say(text)
        if stopped:
            self._finish(sequence, "stop", now)
        elif sequence.tokens >= sequence.wish.max_tokens:
            sequence.say(sequence.stops.rest())
            self._finish(sequence, "length", now)
        elif sequence.full:
            self._hold(sequence)

    def _finish(self, sequence: Sequence, finish: Finish, now: float) -> None:
        del self._sequences[sequence.id]
        self._scheduler.over(sequence.id, now)
        self._close(sequence)
        if sequence.trace is not None:
            sequence.trace.ended(None)
        self._tally.completed += 1
        self._tally.latency.record((now - sequence.started) * 1000.0)
        each = self._tokens_each
        self._tokens_each = sequence.tokens if each is None else each + _MEMORY * (sequence.tokens - each)
        sequence.end(finish)

    def _expire(self, number: int) -> None:
        sequence = self._sequences.get(number)
        if sequence is None:
            return
        self._tally.expired += 1
        waited = (time.monotonic() - sequence.started) * 1000.0
        self._drop(
            sequence, Refusal("deadline_exceeded", f"not answered within the request's {waited:.0f} ms")
        )

    def _hold(self, sequence: Sequence) -> None:
        self._scheduler.hold(sequence.id, True)
        refusal = Refusal("request_timeout", f"nothing of this answer was read for {_STALLED_S:.0f} s")
        sequence.stalled = asyncio.get_running_loop().call_later(_STALLED_S, self._drop, sequence, refusal)

    def _go_on(self, sequence: Sequence) -> None:
        if sequence.stalled is not None:
            sequence.stalled.cancel()
            sequence.stalled = None
        self._scheduler.hold(sequence.id, False)

    def _drop(self, sequence: Sequence, refusal: Refusal) -> None:
        if self._sequences.pop(sequence.id, None) is not None:
            self._refuse(sequence, refusal)

    def _refuse(self, sequence: Sequence, refusal: Refusal) -> None:
        self._close(sequence)
        if sequence.trace is not None:
            sequence.trace.ended(refusal)
        if refusal.status >= 500:
            self._tally.errors += 1
        else:
            self._tally.bad += 1
        sequence.end(refusal)

    def _close(self, sequence: Sequence) -> None:
        self._scheduler.end(sequence.id)
        for timer in (sequence.timer, sequence.stalled):
            if timer is not None:
                timer.cancel()
