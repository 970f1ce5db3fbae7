"""Whether a host may get requests: decided from probe results and connect failures. PURE.

A host starts unproven and gets nothing before a probe has passed. `fall` failed probes in a row take it out; one
connect failure takes it out at once, because nothing listens there; `rise` passed probes in a row bring it back.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HealthRule:
    """`fall` and `rise` count probes in a row."""

    rise: int = 1
    fall: int = 2


@dataclass(slots=True)
class Health:
    """One host's health. Every method returns whether `healthy` changed. `error` says why it is out, or shaky."""

    rule: HealthRule
    healthy: bool = False
    error: str | None = "not probed yet"
    passes: int = 0
    failures: int = 0

    def passed(self) -> bool:
        """A probe passed."""
        self.failures = 0
        self.passes += 1
        if self.healthy or self.passes >= self.rule.rise:
            self.error = None
        return self._become(self.healthy or self.passes >= self.rule.rise)

    def failed(self, reason: str) -> bool:
        """A probe failed."""
        self.passes = 0
        self.failures += 1
        self.error = reason
        return self._become(self.healthy and self.failures < self.rule.fall)

    def connect_failed(self, reason: str) -> bool:
        """A request found nobody listening."""
        self.passes = 0
        self.failures += 1
        self.error = reason
        return self._become(False)

    def _become(self, healthy: bool) -> bool:
        changed = healthy != self.healthy
        self.healthy = healthy
        return changed
