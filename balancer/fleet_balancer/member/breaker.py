"""One host's circuit breaker: closed (in use), open (ejected), half-open (one request at a time, as a trial). PURE.

This is the ejection of one host; how many may be ejected at once is the pool's matter (ejection.py). Times as in
Envoy's outlier detection: `base_s` x n, where n is how often in a row. n falls by one for each `base_s` in which the
host was in use without being ejected again, and counts to MOST_TIMES.
"""

from __future__ import annotations

from typing import Literal

from fleet_wire.balancer import Ejection

BreakerState = Literal["closed", "open", "half_open"]

MOST_TIMES = 10
# Trials in a row that must pass before a host gets its full share again.
TRIALS = 3
# A host that answers "busy" this many times `consecutive_5xx` without serving anything in between is set aside for
# BUSY_S: by its few requests in flight it looks idle, and would be sent everything. Never for longer and never longer
# the next time: it is full, not broken, and to take it out for half a minute would only fill up the others.
BUSY_FACTOR = 2
BUSY_S = 1.0


class Breaker:
    """`until`: seconds on the caller's clock, where it is open. `times`: ejections in a row. `reason` is for people."""

    __slots__ = ("busies", "failures", "passes", "reason", "rule", "since", "state", "times", "until")

    def __init__(self, rule: Ejection, now: float) -> None:
        self.rule = rule
        self.state: BreakerState = "closed"
        self.failures = 0
        self.busies = 0
        self.passes = 0
        self.times = 0
        self.until = 0.0
        self.since = now
        self.reason = ""

    def failed(self) -> bool:
        """The host failed a request. True where it has failed enough to be ejected; only open() ejects it."""
        if self.state == "open":
            return False  # sent before it was ejected: nothing new
        self.passes = 0
        self.failures += 1
        return self.state == "half_open" or self.failures >= self.rule.consecutive_5xx

    def was_busy(self) -> bool:
        """The host declined a request. True where it declines everything; see BUSY_FACTOR."""
        if self.state == "open":
            return False
        self.busies += 1
        return self.state == "half_open" or self.busies >= BUSY_FACTOR * self.rule.consecutive_5xx

    def succeeded(self, now: float) -> bool:
        """The host served a request. True where that closed the breaker."""
        self.failures = self.busies = 0
        if self.state != "half_open":
            return False
        self.passes += 1
        if self.passes < TRIALS:
            return False
        self.close(now)
        return True

    def open(self, now: float, reason: str, *, busy: bool = False) -> float:
        """Eject the host; for how many seconds. `busy`: set aside, see BUSY_FACTOR."""
        if busy:
            seconds = BUSY_S
        else:
            self.times = min(self.times + 1, MOST_TIMES)
            seconds = self.rule.base_s * self.times
        self.state = "open"
        self.until = now + seconds
        self.since = now
        self.reason = reason
        self.failures = self.busies = self.passes = 0
        return seconds

    def close(self, now: float) -> None:
        """In use again. How often it was ejected is not forgotten yet."""
        self.state = "closed"
        self.since = now
        self.failures = self.busies = self.passes = 0

    def advance(self, now: float) -> bool:
        """Time passed. True where the host may be tried again."""
        if self.state == "open" and now >= self.until:
            self.state = "half_open"
            self.passes = 0
            return True
        if self.state == "closed" and self.times:
            while self.times and now - self.since >= self.rule.base_s:
                self.times -= 1
                self.since += self.rule.base_s
        return False

    def forget(self) -> None:
        """As if nothing had ever happened."""
        self.state = "closed"
        self.failures = self.busies = self.passes = self.times = 0

    def restore(self, state: str, left_s: float, times: int, reason: str, now: float) -> None:
        """Take up what was saved; what makes no sense is read as the nearest that does."""
        self.times = min(max(0, times), MOST_TIMES)
        self.reason = reason
        self.since = now
        if state in ("open", "half_open"):
            longest = self.rule.base_s * max(1, self.times)
            self.state = "open"
            self.until = now + min(max(0.0, left_s), longest)

    @property
    def blank(self) -> bool:
        """Nothing is wrong, and nothing remembered."""
        return self.state == "closed" and not (self.failures or self.busies or self.times)

    def __repr__(self) -> str:
        until = f" until {self.until:g}" if self.state == "open" else ""
        return f"<Breaker {self.state}{until} times={self.times} failures={self.failures}>"
