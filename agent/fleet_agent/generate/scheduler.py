"""Which sequences of a model take part in the next step on a device. PURE: `now` is an argument (seconds).

Iteration-level scheduling (Orca: Yu, Jeong, Kim, Kim, Chun; OSDI 2022): the running batch is put together anew before
each step. A sequence joins between two steps as soon as there is a place, and leaves between two steps as soon as it is
over, so a short answer never waits for a long one that came earlier. A sequence stays at its place, the device that
holds its state, until it is over. `max_batch_size` is how many sequences a place holds at once.

One that is held (nobody reads what it says) keeps its place and takes part in no step. Admission is bounded as in the
batcher: by number, and by the predicted wait for a place where the request has a deadline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleet_agent.generate.line import Line
from fleet_wire.refusal import Refusal

# How much one sequence, or one step, counts in the running means.
_MEMORY = 0.2
# Seconds without a step after which predictions are not believed: one request may find out how it is now.
_BELIEVED_S = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step at one place. `runs` take part in it, `joins` of them for the first time; `leaves` are over since the
    last step there and are forgotten before it."""

    id: int
    place: str
    joins: tuple[int, ...]
    runs: tuple[int, ...]
    leaves: tuple[int, ...]
    formed_at: float

    @property
    def size(self) -> int:
        return len(self.runs)


@dataclass(slots=True)
class _Sequence:
    deadline: float | None
    place: str | None = None  # None: it waits for one
    joined: float = 0.0
    held: bool = False


class _Place:
    """A device, as far as this model goes."""

    def __init__(self) -> None:
        self.running: dict[int, _Sequence] = {}
        self.leaving: list[int] = []
        self.step: Step | None = None


class Scheduler:
    """The waiting and the running sequences of one model."""

    def __init__(self, max_batch_size: int, max_queue_size: int = 1024) -> None:
        """Raises ValueError for sizes under 1."""
        if max_batch_size < 1 or max_queue_size < 1:
            raise ValueError("max_batch_size and max_queue_size are at least 1")
        self.max_batch_size = max_batch_size
        self.max_queue_size = max_queue_size
        self._sequences: dict[int, _Sequence] = {}
        self._line = Line()
        self._places: dict[str, _Place] = {}
        self._steps = 0
        self._stay_s: float | None = None  # how long a sequence keeps its place
        self._step_s: float | None = None
        self._finished_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Scheduler {self.queued} wait, {self.running} run>"

    @property
    def queued(self) -> int:
        return len(self._line)

    @property
    def running(self) -> int:
        return len(self._sequences) - len(self._line)

    @property
    def busy(self) -> bool:
        """There are sequences, or states of some that have to be forgotten."""
        return bool(self._sequences) or any(place.leaving for place in self._places.values())

    def add(self, sequence: int, now: float, deadline: float | None = None, priority: int = 0) -> None:
        """Let a sequence wait for a place; `sequence` is the caller's number for it.

        Raises Refusal `overloaded` (too many wait), `unavailable` (no place in time, with when to come back) or
        `deadline_exceeded`; ValueError for a number in use.
        """
        if sequence in self._sequences:
            raise ValueError(f"sequence {sequence} is already known")
        if len(self._line) >= self.max_queue_size:
            message = f"{self.queued} requests wait already (max_queue_size {self.max_queue_size})"
            raise Refusal("overloaded", message, max(1.0, self._wait_s(self.queued)))
        if deadline is not None:
            self._check_deadline(now, deadline, priority)
        self._line.add(sequence, now, priority)
        self._sequences[sequence] = _Sequence(deadline)

    def end(self, sequence: int) -> bool:
        """It is over, for whatever reason: it takes part in no further step. False: not known."""
        entry = self._sequences.pop(sequence, None)
        if entry is None:
            return False
        if entry.place is None:
            self._line.remove(sequence)
        else:
            place = self._places[entry.place]
            del place.running[sequence]
            place.leaving.append(sequence)
        return True

    def hold(self, sequence: int, held: bool) -> None:
        """From the next step on without it, or with it again. One that doesn't run is passed over."""
        entry = self._sequences.get(sequence)
        if entry is not None and entry.place is not None:
            entry.held = held

    def holds(self, place: str) -> bool:
        """There are sequences at the place, or states of some that it has to forget."""
        there = self._places.get(place)
        return there is not None and bool(there.running or there.leaving or there.step)

    def take(self, place: str, now: float, joining: bool = True) -> tuple[Step | None, list[int]]:
        """The next step at a place that is free now, and the sequences whose deadline has passed: they are over.

        Nobody joins where `joining` is False. A step may have no runs, only leaves. None: there is nothing to do.
        Raises ValueError while a step is under way at the place.
        """
        there = self._places.setdefault(place, _Place())
        if there.step is not None:
            raise ValueError(f"step {there.step.id} is under way at {place}")
        late = [n for n, entry in there.running.items() if _late(entry, now)]
        for sequence in late:
            self.end(sequence)
        joins: list[int] = []
        while joining and len(self._line) and len(there.running) < self.max_batch_size:
            sequence = self._line.next()
            entry = self._sequences[sequence]
            if _late(entry, now):
                del self._sequences[sequence]
                late.append(sequence)
                continue
            entry.place, entry.joined = place, now
            there.running[sequence] = entry
            joins.append(sequence)
        runs = tuple(n for n, entry in there.running.items() if not entry.held)
        if not runs and not there.leaving:
            return None, late
        self._steps += 1
        there.step = Step(self._steps, place, tuple(joins), runs, tuple(there.leaving), now)
        there.leaving = []
        return there.step, late

    def finish(self, step: Step, ended: Iterable[int], now: float) -> None:
        """A step is over, and `ended` with it: the place has forgotten those already. Raises ValueError for a step that
        isn't under way."""
        place = self._places[step.place]
        if place.step is not step:
            raise ValueError(f"step {step.id} is not under way at {step.place}")
        place.step = None
        if step.runs:
            self._step_s = _mean(self._step_s, now - step.formed_at)
            self._finished_at = now
        for sequence in ended:
            entry = self._sequences.pop(sequence, None)
            if entry is None:
                # Meanwhile it was ended from outside; there is no state of it left to forget.
                if sequence in place.leaving:
                    place.leaving.remove(sequence)
                continue
            del place.running[sequence]
            self._stay_s = _mean(self._stay_s, now - entry.joined)

    def over(self, sequence: int, now: float) -> None:
        """`end`, of one that said all it was asked for: how long that took is learned."""
        entry = self._sequences.get(sequence)
        if entry is not None and entry.place is not None:
            self._stay_s = _mean(self._stay_s, now - entry.joined)
        self.end(sequence)

    def lost(self, place: str) -> list[int]:
        """The place has forgotten everything: the sequences that were there, which are over."""
        there = self._places.pop(place, None)
        if there is None:
            return []
        for sequence in there.running:
            del self._sequences[sequence]
        return list(there.running)

    def predicted_s(self, now: float, priority: int = 0) -> float | None:
        """Seconds until a sequence that is added now would say something; None where that can't be known."""
        if self._step_s is None or now - self._finished_at > _BELIEVED_S:
            return None
        return self._wait_s(self._line.ahead_of(priority)) + self._step_s

    def _wait_s(self, ahead: int) -> float:
        """Until there is a place for who has `ahead` before it: with all places taken, one falls vacant every
        (stay / places) seconds."""
        places = max(1, len(self._places)) * self.max_batch_size
        missing = ahead + 1 + self.running - places
        return 0.0 if missing <= 0 else missing * (self._stay_s or 0.0) / places

    def _check_deadline(self, now: float, deadline: float, priority: int) -> None:
        left = deadline - now
        if left <= 0:
            raise Refusal("deadline_exceeded", "the deadline had passed before the request was queued")
        needed = self.predicted_s(now, priority)
        if needed is not None and needed > left:
            message = f"an answer would begin in {needed * 1000:.0f} ms, the request has {left * 1000:.0f} ms"
            raise Refusal("unavailable", message, max(0.0, needed - left))


def _late(entry: _Sequence, now: float) -> bool:
    return entry.deadline is not None and entry.deadline <= now


def _mean(known: float | None, new: float) -> float:
    return new if known is None else known + _MEMORY * (new - known)
