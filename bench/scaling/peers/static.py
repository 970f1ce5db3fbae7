"""As many hosts as the peak needs, always."""

from __future__ import annotations

from fleet_controller.policies import Decision
from fleet_controller.window import Signal


class StaticPeak:
    def __init__(self, hosts: int) -> None:
        self.hosts = hosts

    def __call__(self, signal: Signal, now: float) -> Decision:
        return Decision(desired=self.hosts, reason="static")
