"""Holder: who holds the operator lock, and whether they are still there. PURE.

On the same machine a process is there or it is not. Of another machine there is a sign of life every few seconds.
Clocks of two machines differ, so a sign that looks old is watched for a while before its holder is believed dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

# A sign of life each BEAT_S; who gave none for LEASE_S and none while being watched for WATCH_S is dead.
BEAT_S = 5.0
LEASE_S = 20.0
WATCH_S = 12.0

Verdict = Literal["alive", "dead", "silent"]


class Holder(BaseModel):
    """A command at work. `machine` names it for people; `place` is where its `pid` means something: one boot of one
    machine, and one container of it. `ticks` tells the process from a later one with its pid."""

    model_config = ConfigDict(frozen=True)

    id: str
    user: str
    machine: str
    place: str
    pid: int
    ticks: int
    command: str
    since: float
    beat: float

    def verdict(self, place: str, now: float, runs: Callable[[int, int], bool]) -> Verdict:
        """As seen from `place`; `runs` tells of a process there. "silent": to be watched."""
        if self.place == place:
            return "alive" if runs(self.pid, self.ticks) else "dead"
        return "alive" if abs(now - self.beat) <= LEASE_S else "silent"

    def told(self, now: float, clock: Callable[[float], str], age: Callable[[float], str]) -> str:
        """Who it is, what they do and since when, and what to do about it."""
        return (
            f"{self.user}@{self.machine} is at work: `{self.command}` (process {self.pid}) since {clock(self.since)} "
            f"({age(max(0.0, now - self.since))}). Wait until it is over, or end it there with Ctrl-C or "
            f"`kill -INT {self.pid}`: the controller goes on with what it began"
        )
