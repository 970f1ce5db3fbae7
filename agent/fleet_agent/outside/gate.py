"""Who may go to an engine now, who waits, and who is refused. PURE.

So many calls are in the engine at a time, so many wait here; among these the higher priority goes first, and every
tenth place to whoever waits longest. A call whose turn would come after its deadline is refused at once, by how long a
place was held lately. `now` and deadlines are seconds of one clock.
"""

from __future__ import annotations

from fleet_agent.queue.batcher import PRIORITIES
from fleet_wire.refusal import Refusal

_EVERY = 10
_WEIGHT = 0.1  # of the newest in the mean time that a place is held


class Hopeless(Refusal):
    """The queue takes longer than the request has."""


class Gate:
    """`most_in` calls at a time go in, `most_waiting` wait. Calls are known by numbers that only grow."""

    def __init__(self, name: str, most_in: int, most_waiting: int) -> None:
        self.most_in = most_in
        self.inside = 0
        self._name = name
        self._most_waiting = most_waiting
        self._lines: dict[int, dict[int, None]] = {priority: {} for priority in PRIORITIES}
        self._places: dict[int, int] = {}
        self._given = 0
        self._held_s: float | None = None

    @property
    def waiting(self) -> int:
        return len(self._places)

    def enter(self, call: int, now: float, deadline: float | None = None, priority: int = 0) -> bool:
        """True: it may go in, and holds a place until `leave`. False: it waits. Raises Refusal,
        Hopeless for one whose turn would come too late."""
        if deadline is not None and now >= deadline:
            raise Refusal("deadline_exceeded", "the request's time was over before it could begin")
        if self.inside < self.most_in:
            self.inside += 1
            return True
        if self.waiting >= self._most_waiting:
            raise Refusal(
                "overloaded", f"the queue of model {self._name} is full ({self._most_waiting} requests)", 1.0
            )
        if deadline is not None and self._held_s is not None:
            before = sum(len(line) for rank, line in self._lines.items() if rank >= priority)
            wait = (before + 1) * self._held_s / self.most_in
            if now + wait > deadline:
                message = (
                    f"the queue of model {self._name} takes about {wait:.2f} s, longer than the request has"
                )
                raise Hopeless("unavailable", message, max(1.0, wait))
        self._lines[priority][call] = None
        self._places[call] = priority
        return False

    def leave(self, held_s: float | None) -> int | None:
        """A call gives its place back, after so long (None: it says nothing about how long calls take). The call that
        holds it now, if one waited."""
        if held_s is not None:
            self._held_s = (
                held_s if self._held_s is None else self._held_s + _WEIGHT * (held_s - self._held_s)
            )
        if not self._places:
            self.inside -= 1
            return None
        self._given += 1
        line = self._longest() if self._given % _EVERY == 0 else self._highest()
        call = next(iter(line))
        self.cancel(call)
        return call

    def cancel(self, call: int) -> bool:
        """A waiting call goes away; False: it doesn't wait."""
        priority = self._places.pop(call, None)
        if priority is None:
            return False
        del self._lines[priority][call]
        return True

    def _highest(self) -> dict[int, None]:
        return next(self._lines[rank] for rank in sorted(self._lines, reverse=True) if self._lines[rank])

    def _longest(self) -> dict[int, None]:
        return min((line for line in self._lines.values() if line), key=lambda line: next(iter(line)))
