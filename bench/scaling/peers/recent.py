"""A peer's own short memory: values over a window, and recommendations over a window."""

from __future__ import annotations

from collections import deque


class Recent:
    """(time, value) of the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._kept: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> None:
        self._kept.append((now, value))
        while self._kept and self._kept[0][0] <= now - self.seconds:
            self._kept.popleft()

    def clear(self) -> None:
        self._kept.clear()

    @property
    def values(self) -> list[float]:
        return [value for _, value in self._kept]

    def mean(self) -> float | None:
        return sum(self.values) / len(self._kept) if self._kept else None

    def full(self, now: float, slack: float = 5.0) -> bool:
        """Whether the window is covered."""
        return bool(self._kept) and self._kept[0][0] <= now - self.seconds + slack
