"""The life of an engine: when it may take calls, when it has to be killed, and when it starts again. PURE.

starting -> ready <-> unwell -> (it ends, or is killed) -> waiting -> starting ...; failed when it never got ready in
three starts. `now` is in seconds of a clock that doesn't go back.

A sign of life is a good answer of the health path, or a piece of any answer: an engine that computes with all it has
may be slow to say that it is well.
"""

from __future__ import annotations

import math
from typing import Literal

State = Literal["off", "starting", "ready", "unwell", "waiting", "failed"]

BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 30.0
HEALTHY_AFTER_S = 60.0  # an engine that was well that long starts the back-off anew
STARTS = 3  # an engine that didn't get ready that often has failed
STOPPED_S = 1.0
UNWELL_AFTER_S = 5.0


class Life:
    """Tell it what happened; it says what follows."""

    def __init__(self, name: str, start_timeout_s: float, hang_timeout_s: float) -> None:
        self.state: State = "off"
        self.restarts = 0
        self.hangs = 0
        self._name = name
        self._start_timeout_s = start_timeout_s
        self._hang_timeout_s = hang_timeout_s
        self._started = 0.0
        self._ready_at: float | None = None
        self._alive_at = 0.0
        self._stopped_at: float | None = None
        self._ever_ready = False
        self._bad_starts = 0
        self._backoff = BACKOFF_FIRST_S
        self._why: str | None = None

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def ask_within_s(self) -> float:
        """How long one question to its health path may take, so that silence is known as such before it is too long."""
        return min(self._hang_timeout_s, self._start_timeout_s if self.state == "starting" else math.inf) / 2

    def started(self, now: float) -> None:
        self.state = "starting"
        self._started = self._alive_at = now
        self._ready_at = None
        self._stopped_at = None

    def answered(self, now: float) -> bool:
        """The health path says that all is well. True: it is ready from now on, and was not before."""
        self._alive_at = now
        became = self.state in ("starting", "unwell")
        if self.state == "starting":
            self._ready_at = now
            self._ever_ready = True
            self._bad_starts = 0
        if became:
            self.state = "ready"
            self._why = None
        return became

    def moved(self, now: float) -> None:
        """A piece of an answer came out of it."""
        self._alive_at = now

    def refused(self, now: float, why: str, silent: bool) -> None:
        """The health path says that it isn't well; or, `silent`, it says nothing."""
        if self.state == "starting":
            self._why = why
        elif self.state in ("ready", "unwell") and (
            not silent or now - self._alive_at >= min(UNWELL_AFTER_S, self._hang_timeout_s)
        ):
            self.state = "unwell"
            self._why = why

    def paused(self, now: float, stopped: bool) -> None:
        """Whether its process was stopped by a signal (SIGSTOP), so that it can't go on by itself."""
        if not stopped:
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at = now

    def doomed(self, now: float) -> str | None:
        """Why it has to be killed now, as "was killed, since ..."; None: let it be."""
        if self._stopped_at is not None and now - self._stopped_at >= STOPPED_S:
            return "was killed, since it had been stopped by a signal"
        why = self._why or "it does not answer"
        if self.state == "starting" and now - self._started >= self._start_timeout_s:
            return f"was killed, since it was not ready after {self._start_timeout_s:g} s ({why})"
        if self.state in ("ready", "unwell") and now - self._alive_at >= self._hang_timeout_s:
            return f"was killed, since it gave no sign of life for {self._hang_timeout_s:g} s ({why})"
        return None

    def ended(self, now: float, how: str, hung: bool = False) -> float | None:
        """It is gone, `how` ("ended with status 1"). Seconds until it may start again; None: it has failed."""
        self.restarts += 1
        self.hangs += hung
        while_starting = self._ready_at is None
        if self._ready_at is not None and now - self._ready_at >= HEALTHY_AFTER_S:
            self._backoff = BACKOFF_FIRST_S
        self._bad_starts += while_starting
        if self._bad_starts >= STARTS and not self._ever_ready:
            self.state = "failed"
            self._why = f"{how} before it was ready, {STARTS} times"
            return None
        self.state = "waiting"
        self._why = f"{how}{' before it was ready' if while_starting else ''}; it is being started again"
        delay, self._backoff = self._backoff, min(BACKOFF_MOST_S, self._backoff * 2)
        return delay

    def broken(self, why: str) -> None:
        """It can't be started at all, and trying again would change nothing."""
        self.state = "failed"
        self._why = why

    def stopped(self) -> None:
        """It was asked to end, and did."""
        self.state = "off"

    def reason(self, now: float) -> str | None:
        """Why it takes no calls; None: it does."""
        if self.state == "ready":
            return None
        if self.state == "off":
            return f"the engine of model {self._name} does not run"
        if self.state == "starting":
            so_far = f" ({self._why})" if self._why else ""
            return f"the engine of model {self._name} is starting, for {now - self._started:.0f} s so far{so_far}"
        if self.state == "unwell":
            return f"the engine of model {self._name} is not well: {self._why}"
        return f"the engine of model {self._name} {self._why}"
