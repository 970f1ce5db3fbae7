"""What every form of supervision can be asked."""

from __future__ import annotations

from typing import Any, Protocol

from fleet_controller.hosts.keeper.processes import Process


class Launch:
    """What is to run. `limits`: memory (bytes), cpus, tasks, open_files; None: none.

    `needed` and `writable`: paths that the agent reads and writes, for a form that hides the others.
    """

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        limits: dict[str, Any],
        drain_s: float,
        port: int,
        needed: list[str],
        writable: list[str],
        program: str,
    ) -> None:
        self.argv = argv
        self.env = env
        self.limits = limits
        self.drain_s = drain_s
        self.port = port
        self.needed = needed
        self.writable = writable
        self.program = program


class State:
    """`alive`: it runs, or will run again by itself. `last`: how it ended last, in words."""

    def __init__(self, alive: bool, restarts: int = 0, last: str = "") -> None:
        self.alive = alive
        self.restarts = restarts
        self.last = last


class Supervision(Protocol):
    """One agent's supervision. Every method raises Trouble."""

    kind: str

    def launch(self, what: Launch) -> list[str]:
        """Begin. Returns what could not be done as asked, in words."""

    def state(self) -> State:
        """As it is now."""

    def program_pid(self) -> int:
        """The pid of a program of ours beside the agent, that ends by itself after it; 0: none."""

    def members(self) -> list[Process]:
        """Every living process below it that this form can know."""

    def ask_to_end(self) -> None:
        """SIGTERM for the agent, once, and no restart from here on."""

    def kill(self) -> None:
        """SIGKILL for everything below it, and no restart from here on."""

    def clear(self) -> None:
        """Take away what it left on the host; nothing of it lives."""
