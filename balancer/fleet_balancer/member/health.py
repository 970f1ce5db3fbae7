"""Whether a host's probes let it get requests, and when it is asked again. PURE: `now` is an argument (seconds).

A host starts unproven and gets nothing before a probe has passed. `fall` failed probes in a row take it out; one
connect failure takes it out at once, because nothing listens there; `rise` passed probes in a row bring it back.

What its answers to requests say about it is another matter: see breaker.py.
"""

from __future__ import annotations

from dataclasses import dataclass

# Seconds between two probes of a host that was in use a moment ago.
SOONEST_S = 0.1
# A host that is out is asked again after this share of the time that it has been out: a restart of 1 s costs at most
# 0.25 s more, and a host that is gone for good is soon asked no more often than the others.
RECHECK_SHARE = 0.25


@dataclass(frozen=True)
class HealthRule:
    """`fall` and `rise` count probes in a row."""

    rise: int = 1
    fall: int = 2


@dataclass(slots=True)
class Health:
    """One host's health. Every method returns whether `healthy` changed. `error` says why it is out, or shaky.

    `since`: when `healthy` last changed. `proven`: it was healthy at some time.
    """

    rule: HealthRule
    healthy: bool = False
    error: str | None = "not probed yet"
    passes: int = 0
    failures: int = 0
    since: float = 0.0
    proven: bool = False

    def passed(self, now: float = 0.0) -> bool:
        """A probe passed."""
        self.failures = 0
        self.passes += 1
        if self.healthy or self.passes >= self.rule.rise:
            self.error = None
        return self._become(self.healthy or self.passes >= self.rule.rise, now)

    def failed(self, reason: str, now: float = 0.0) -> bool:
        """A probe failed."""
        self.passes = 0
        self.failures += 1
        self.error = reason
        return self._become(self.healthy and self.failures < self.rule.fall, now)

    def connect_failed(self, reason: str, now: float = 0.0) -> bool:
        """A request found nobody listening."""
        self.passes = 0
        self.failures += 1
        self.error = reason
        return self._become(False, now)

    def pause_s(self, now: float, interval_s: float) -> float:
        """Seconds until the next probe: `interval_s` where all is well, sooner where something may change soon."""
        if self.healthy:
            return interval_s if not self.failures else min(SOONEST_S, interval_s)
        if self.passes:
            return min(SOONEST_S, interval_s)
        return min(max(SOONEST_S, RECHECK_SHARE * (now - self.since)), interval_s)

    def _become(self, healthy: bool, now: float) -> bool:
        changed = healthy != self.healthy
        self.healthy = healthy
        if changed:
            self.since = now
            self.proven = self.proven or healthy
        return changed
