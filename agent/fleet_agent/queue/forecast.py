"""How long what waits will take, by what batches take: as far as that can be believed. PURE."""

from __future__ import annotations

from collections.abc import Callable

# How much one batch counts in the running mean of batch durations.
_MEMORY = 0.2
# Seconds without a batch after which predictions are not believed: one request may find out how it is now.
_BELIEVED_S = 2.0
# A request needs so much more time than is predicted, or it is refused: under overload the queue is always as long as
# the prediction allows, and every batch that is a little slow would make somebody late who could have gone elsewhere.
MARGIN = 1.1


class Forecast:
    """`seconds(size)`: how long a batch of that size takes, None where that isn't known."""

    def __init__(self, seconds: Callable[[int], float | None]) -> None:
        self._seconds = seconds
        self._batch_s: float | None = None
        self._finished_at = float("-inf")

    def took(self, seconds: float, now: float) -> None:
        """A batch is done, so long after it was formed."""
        self._batch_s = (
            seconds if self._batch_s is None else self._batch_s + _MEMORY * (seconds - self._batch_s)
        )
        self._finished_at = now

    def until_done(self, items: int, most: int, now: float) -> float | None:
        """Seconds of so many items in batches of `most`; None where that can't be known."""
        if now - self._finished_at > _BELIEVED_S:
            return None
        full = self._seconds(most)
        if full is None:
            return None
        batches, rest = divmod(items, most)
        last = (self._seconds(rest) or 0.0) if rest else 0.0
        return batches * full + last

    def usual_s(self, items: int, most: int) -> float:
        """The same by the recent batches' duration, whatever their size; at least 1 s."""
        return max(1.0, -(-items // most) * (self._batch_s or 0.0))

    def most_within(self, left: float, most: int, now: float) -> int:
        """The largest batch, up to `most`, that is answered within `left` seconds; 0: none."""
        if left <= 0:
            return 0
        if now - self._finished_at > _BELIEVED_S:
            return most
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            needed = self._seconds(middle)
            if needed is None or needed <= left:
                low = middle
            else:
                high = middle - 1
        return low
