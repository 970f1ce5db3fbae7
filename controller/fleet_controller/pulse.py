"""Pulse: who has shown no sign of life for too long. What hangs for ever must not hang the fleet.

Each part of the controller says until when it will be heard of again: the loop at each turn, a look at the fleet, an
action at everything it does. A thread that hangs (in a file system that is gone, in a bug of ours) can't be ended from
outside, but a whole process can: see watchdog.py.
"""

from __future__ import annotations

import threading

from fleet_controller.clock import Clock

# What none of our own time-outs reaches. The loop itself may build a release of many GB.
LOOP_S = 600.0
LOOK_S = 600.0
ACTION_S = 900.0


class Pulse:
    """The parts that are at work, and when each must be heard of again. Safe for threads.

    `patience` stretches or shortens what each of them says.
    """

    def __init__(self, clock: Clock, patience: float = 1.0) -> None:
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[str, tuple[float, float]] = {}

    def within(self, part: str, seconds: float) -> None:
        """`part` lives, and is heard of again within `seconds`, or has hung."""
        seconds *= self._patience
        with self._lock:
            self._due[part] = (self._clock.monotonic() + seconds, seconds)

    def again(self, part: str) -> None:
        """`part` lives, and has as long as before. One that never said how long it has is not watched."""
        with self._lock:
            known = self._due.get(part)
            if known is not None:
                self._due[part] = (self._clock.monotonic() + known[1], known[1])

    def ends(self, part: str) -> None:
        """`part` is done."""
        with self._lock:
            self._due.pop(part, None)

    def late(self) -> str | None:
        """A sentence about the part that is overdue the longest; None while all are well."""
        now = self._clock.monotonic()
        with self._lock:
            overdue = [(due, part, seconds) for part, (due, seconds) in self._due.items() if due < now]
        if not overdue:
            return None
        _, part, seconds = min(overdue)
        return f"{part} has shown no sign of life for {seconds:.0f} s"
