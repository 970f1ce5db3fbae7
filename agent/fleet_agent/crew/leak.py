"""Decides when a worker has answered or grown enough to be replaced by a new one. PURE.

For models that leak memory, and for libraries that fragment it. Off unless the configuration says otherwise. What a
worker holds is compared with what it held right after its models were loaded and warmed.
"""

from __future__ import annotations

from fleet_wire.agent import RecycleConfig

REQUESTS = "requests"
MEMORY = "memory"


class LeakGuard:
    """Of one worker at a time; `restarted` when it is a new one."""

    def __init__(self, config: RecycleConfig) -> None:
        self._config = config
        self.answered = 0  # requests, by this worker
        self.held: int | None = None  # bytes, as last heard
        self._before: int | None = None

    def restarted(self) -> None:
        self.answered = 0
        self.held = None
        self._before = None

    def rebase(self) -> None:
        """A model was loaded or unloaded: what is held next counts as the beginning."""
        self._before = None

    def holds(self, held: int) -> None:
        """The worker told how many bytes it holds."""
        self.held = held
        if self._before is None:
            self._before = held

    @property
    def due(self) -> str | None:
        """Why the worker is to be replaced, or None."""
        most = self._config.after_requests
        if most is not None and self.answered >= most:
            return REQUESTS
        growth = self._config.memory_growth_bytes
        if growth is None or self._before is None or self.held is None:
            return None
        return MEMORY if self.held - self._before >= growth else None

    def __repr__(self) -> str:
        grown = None if self._before is None or self.held is None else self.held - self._before
        return f"<LeakGuard {self.answered} answered, grown by {grown}>"
