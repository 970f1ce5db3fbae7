"""Ends everything of an agent and proves that it is gone."""

from __future__ import annotations

import signal
import time

from fleet_controller.hosts.keeper.culprit import described, holder_of, writes_our_log
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, all_processes, holder, listeners
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.supervision.contract import Supervision

KILL_S = 10.0


class Own:
    """All processes that were ever seen to be the agent's: by marker and session, by its supervision, by its log."""

    def __init__(self, place: Place, supervision: Supervision) -> None:
        self._place = place
        self._supervision = supervision
        self.seen: list[Process] = []
        self.gather()
        self.gather_writers()

    def gather(self) -> list[Process]:
        """Add what has appeared since; all that were ever seen."""
        self._add(self._place.processes())
        self._add(self._supervision.members())
        return self.seen

    def gather_writers(self) -> None:
        """Add those that hide otherwise but write to the agent's log. Looks at every process's open files."""
        self._add([one for one in all_processes() if writes_our_log(one, self._place)])

    def living(self) -> list[Process]:
        """Those that live now, the supervising program among them."""
        return [one for one in self.gather() if one.alive()]

    def agents_living(self) -> list[Process]:
        """Those that live now, without the supervising program: it ends after them."""
        living = self.living()
        if not living:
            return []
        # Asked after who lives, so that one that came in between is known; who has ended since needs no name.
        program = self._supervision.program_pid()
        return [one for one in living if one.pid != program and one.alive()]

    def add(self, one: Process) -> None:
        self._add([one])

    def _add(self, found: list[Process]) -> None:
        known = {(one.pid, one.ticks) for one in self.seen}
        self.seen += [one for one in found if (one.pid, one.ticks) not in known]


def end(own: Own, supervision: Supervision) -> list[str]:
    """Kill what is left (and what appears meanwhile), and prove it. Returns the names of those that were killed."""
    killed: dict[tuple[int, int], str] = {}
    until = time.monotonic() + KILL_S
    while True:
        left = own.agents_living()
        if not left:
            own.gather_writers()
            left = own.agents_living()
        if not left and not supervision.state().alive:
            return list(killed.values())
        if time.monotonic() >= until:
            names = "; ".join(described(one) for one in left[:5])
            raise Trouble(
                "stop",
                f"still there after SIGKILL: {names}" if left else "its supervisor does not let it go",
                "Such a process hangs in the kernel (often a GPU driver) or is another user's; end it by hand, reboot"
                " or power-cycle the host",
            )
        for one in left:
            killed.setdefault((one.pid, one.ticks), one.name())
        supervision.kill()
        for one in left:
            one.send(signal.SIGKILL)
        time.sleep(0.02)


def prove_closed(port: int) -> None:
    until = time.monotonic() + 2
    while True:
        held = listeners(port)
        if not held:
            return
        if time.monotonic() >= until:
            one = holder_of(port, all_processes())
            who = described(one) if one is not None else holder(held)
            raise Trouble(
                "port",
                f"the agent is gone, but port {port} is still open, held by {who}",
                "Stop that process; it may be a child of the agent that hid itself",
            )
        time.sleep(0.05)
