"""How many requests may be sent a second time, so that a failing fleet does not get its own retries as load. PURE.

A share of the requests seen plus some per second, as in Finagle and Linkerd ("retry budget": 20 % and 10/s). Both are
earned into a balance that is forgotten with a time constant of `memory_s`: a quiet night saves nothing up beyond
`memory_s` x `per_s`, and a steady load of R requests/s holds `memory_s` x (`per_s` + `share` x R) in reserve, so that
what was in flight on a host that dies can be sent again at once.

Not for connect failures: nothing had been sent, so they add no load.
"""

from __future__ import annotations

import math

RETRY_SHARE = 0.2
RETRIES_PER_S = 10.0
MEMORY_S = 10.0


class Budget:
    """Over any T seconds with N requests it allows at most memory_s x per_s + share x N + per_s x T and what was earned
    of the requests in the `memory_s` before. Requests are counted by who asks: seeing one costs nothing here."""

    __slots__ = ("_at", "_balance", "_seen", "memory_s", "per_s", "share")

    def __init__(
        self, share: float = RETRY_SHARE, per_s: float = RETRIES_PER_S, memory_s: float = MEMORY_S
    ) -> None:
        self.share = share
        self.per_s = per_s
        self.memory_s = memory_s
        self._balance = per_s  # one second's worth to begin with
        self._at: float | None = None
        self._seen = 0

    def allows(self, now: float, seen: int) -> bool:
        """Take one retry; False where the budget is spent. `seen`: requests so far, a counter that only grows."""
        self._earn(now, seen)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

    def _earn(self, now: float, seen: int) -> None:
        if self._at is None:
            self._at = now
        elapsed = max(0.0, now - self._at)
        new = max(0, seen - self._seen)
        self._seen = seen
        self._at = now
        if elapsed <= 1e-9:
            self._balance += self.share * new
            return
        # What came in since the last look came in evenly: its income minus what was forgotten meanwhile.
        kept = math.exp(-elapsed / self.memory_s)
        income = self.per_s + self.share * new / elapsed
        self._balance = self._balance * kept + income * self.memory_s * (1.0 - kept)

    def __repr__(self) -> str:
        return f"<Budget {self.share:.0%} + {self.per_s:g}/s, {self._balance:.1f} left>"
