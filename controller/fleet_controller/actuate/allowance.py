"""Allowance: how many hosts may be stopped before the next look, by plan and by inspections together.

An inspection that finds an agent hanging ends it. A fault of ours can make all of them look so at once, so the bound
that holds for plan holds for both together: a tenth of the running hosts in one interval, and none while half of them
are silent.
"""

from __future__ import annotations

import threading
from collections import Counter


class Allowance:
    """Renewed and granted by the loop at each look, used by inspections in their threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: Counter[str] = Counter()
        self._used: Counter[str] = Counter()

    def renew(self) -> None:
        """There was a new look: nothing is used yet, and nothing allowed until it is granted."""
        with self._lock:
            self._left.clear()
            self._used.clear()

    def grant(self, pool: str, stops: int) -> None:
        """So many more until the next look."""
        with self._lock:
            self._left[pool] = stops

    def spend(self, pool: str) -> None:
        """Plan stops one."""
        with self._lock:
            self._used[pool] += 1
            self._left[pool] = max(0, self._left[pool] - 1)

    def take(self, pool: str) -> bool:
        """One for an inspection; False where none is left."""
        with self._lock:
            allowed = self._left[pool] > 0
            self._left[pool] -= allowed
            self._used[pool] += allowed
            return allowed

    def used(self, pool: str) -> int:
        """Stops since the last look."""
        with self._lock:
            return self._used[pool]
