"""How large a batch the device's memory holds, learned from the batches that it didn't hold. PURE.

A batch that ran out of memory is computed in halves; from then on no batch is that large. Between what fitted and what
didn't, the limit is searched for: after some batches at the limit, one halfway up is tried, at the price of being
computed twice if it doesn't fit. Ten minutes after the last failure everything is tried again, since what took the
memory may be gone.
"""

from __future__ import annotations

_TRIES = 20  # batches at the limit before a larger one is tried
_FORGET_S = 600.0


class MemoryCap:
    """The largest batch to form, at most `most` items."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = most
        self._failed: int | None = None  # the smallest batch that didn't fit
        self._failed_at = 0.0
        self._fitted = 0

    def failed(self, size: int, now: float) -> None:
        """A batch of `size` items was too large; one of half its size was computed instead."""
        self._failed = size if self._failed is None else min(self._failed, size)
        self._failed_at = now
        self.size = max(1, min(self.size, size // 2) if self.size >= size else self.size)
        self._fitted = 0

    def fitted(self, size: int, now: float) -> None:
        """A batch of `size` items was computed in one go."""
        if self._failed is None or size < self.size:
            return
        if now - self._failed_at > _FORGET_S:
            self._failed = None
            self.size = self.most
            return
        self._fitted += 1
        if self._fitted >= _TRIES and self._failed - self.size > 1:
            self.size = (self.size + self._failed) // 2
            self._fitted = 0
