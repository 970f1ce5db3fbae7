"""How many key exchanges are under way at once, over all hosts and through each jump host.

A key exchange is some 20 ms of this machine's processor, and all hosts behind a jump host share its one connection.
A place is taken only once the server has greeted, so hosts that do not answer hold none, and waiting for one ends
after PATIENCE_S whatever the others do: a bound that smooths, and never one that blocks.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

HANDSHAKES = 16
HANDSHAKES_PER_JUMP = 8
PATIENCE_S = 2.0
# Who finds the gate busy comes in at a moment of his own.
JITTER_S = 0.05


class Gate:
    """Places for key exchanges; one gate for a fleet. Safe for threads."""

    def __init__(self, everywhere: int = HANDSHAKES, per_jump: int = HANDSHAKES_PER_JUMP) -> None:
        self._everywhere = threading.Semaphore(everywhere)
        self._per_jump = per_jump
        self._jumps: dict[object, threading.Semaphore] = {}
        self._lock = threading.Lock()

    @contextmanager
    def place(self, jump: object | None) -> Iterator[None]:
        """`jump`: the jump host that the connection goes through, if any. The narrower place is taken first."""
        with ExitStack() as taken:
            until = time.monotonic() + PATIENCE_S
            for places in self._of(jump):
                if not places.acquire(blocking=False):
                    time.sleep(random.uniform(0.0, JITTER_S))
                    if not places.acquire(timeout=max(0.0, until - time.monotonic())):
                        continue  # somebody is stuck in there: go past him
                taken.callback(places.release)
            yield

    def _of(self, jump: object | None) -> list[threading.Semaphore]:
        if jump is None:
            return [self._everywhere]
        with self._lock:
            return [self._jumps.setdefault(jump, threading.Semaphore(self._per_jump)), self._everywhere]
