"""What time it is, and how to wait: the one place where the control loop asks the system.

The fleet's time runs on when somebody sets the machine's clock: cooldowns, windows and retries must neither end nor
freeze because of that. It follows the wall clock again slowly enough that nothing is decided by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

# Share of the time that passes by which the fleet's time may run faster or slower to meet the wall clock.
SLEW = 0.05
# What NTP and rounding do is no jump.
JUMP_S = 5.0


class Clock(Protocol):
    """`now` in Unix seconds, `monotonic` in seconds from some start, for what lasts.

    `apart`: seconds by which the machine's clock is ahead of `now`; 0 where nobody set it.
    """

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    def apart(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class SteadyClock:
    """The system's clock without its jumps. Time during which the machine was suspended has passed (CLOCK_BOOTTIME)."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()
        self._seen = steady()
        self._offset = wall() - self._seen

    def now(self) -> float:
        """Unix seconds; from call to call never back, and never further than the time that passed (and 5 % of it)."""
        with self._lock:
            steady = self._steady()
            most = SLEW * max(0.0, steady - self._seen)
            apart = self._wall() - steady - self._offset
            self._offset += max(-most, min(most, apart))
            self._seen = steady
            return steady + self._offset

    def apart(self) -> float:
        """Seconds by which the wall clock is ahead of the fleet's time; 0 for what is no jump."""
        with self._lock:
            apart = self._wall() - self._steady() - self._offset
        return apart if abs(apart) > JUMP_S else 0.0

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
