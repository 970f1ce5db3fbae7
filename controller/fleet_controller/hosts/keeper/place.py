"""This host's part of a fleet: where its files are, which processes are its own."""

from __future__ import annotations

import os
from typing import Any

from fleet_controller.hosts.keeper.files import read, read_json
from fleet_controller.hosts.keeper.processes import Process, all_processes, boot_id, process

MARKER = "FLEETCTL_AGENT"
ROOT_MARKER = "FLEETCTL_ROOT"


def marks(pid: int) -> dict[str, str]:
    wanted = (MARKER + "=", ROOT_MARKER + "=")
    pairs = (
        item.split("=", 1) for item in read(f"/proc/{pid}/environ").split("\0") if item.startswith(wanted)
    )
    return dict(pairs)


class Place:
    """This host's part of a fleet: where its files are and which processes are its own."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.shared = os.path.abspath(os.path.expanduser(args["directory"]))
        self.root = os.path.abspath(os.path.join(self.shared, *args["below"]))
        self._depth = len(args["below"])
        self.owner = "{}/{}/".format(args["fleet"], args["host"])
        self.run = os.path.join(self.root, "run")
        self.config = os.path.join(self.run, "config.json")
        self.run_file = os.path.join(self.run, "agent.json")
        self.log = os.path.join(self.run, "agent.log")

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def neighbours(self) -> list[str]:
        """The folders of all fleets and hosts of this user that share wheels and weights, this one among them."""
        found = [self.shared]
        for _ in range(self._depth):
            found = [
                os.path.join(top, name) for top in found if os.path.isdir(top) for name in os.listdir(top)
            ]
        return found

    def processes(self) -> list[Process]:
        """Every living process that an agent start of ours made: by marker, and by the sessions of those."""
        everyone = all_processes()
        sessions: dict[int, str] = {}
        own = []
        for one in everyone:
            seen = marks(one.pid)
            if seen.get(ROOT_MARKER) == self.root and seen.get(MARKER, "").startswith(self.owner):
                one.action = seen[MARKER][len(self.owner) :]
                own.append(one)
                sessions.setdefault(one.session, one.action)
        for one in everyone:
            # A session is made by our setsid and nobody else can enter it: its members are ours, marked or not.
            if one.action is None and one.session in sessions:
                one.action = sessions[one.session]
                own.append(one)
        return own

    def recorded(self) -> tuple[dict[str, Any], Process | None]:
        """The run file, and its process where that very process still lives."""
        run = read_json(self.run_file) or {}
        pid = run.get("pid")
        if not isinstance(pid, int) or run.get("boot_id") != boot_id():
            return run, None
        one = process(pid)
        if one is None or one.ticks != run.get("start_ticks"):
            return run, None
        one.action = str(run.get("action_id"))
        return run, one

    def agent(self, own: list[Process] | None = None) -> Process | None:
        """The agent's main process: the one of the run file, or one that has not written it yet."""
        one = self.recorded()[1]
        if one is not None:
            return one
        for other in self.processes() if own is None else own:
            words = read(f"/proc/{other.pid}/cmdline").split("\0")
            if other.pid == other.session and "fleet_agent" in words and self.config in words:
                return other
        return None
