"""Ends processes and proves that they are gone."""

from __future__ import annotations

import signal
import time

from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, holder, listeners
from fleet_controller.hosts.keeper.speech import Trouble


def gathered(place: Place, own: list[Process]) -> list[Process]:
    """`own` plus what has appeared since, in place."""
    known = {(one.pid, one.ticks) for one in own}
    own += [one for one in place.processes() if (one.pid, one.ticks) not in known]
    return own


def end(own: list[Process], place: Place | None = None) -> list[str]:
    """Kill these (and what appears meanwhile), and prove it. Returns the names of those that had to be killed."""
    killed: dict[tuple[int, int], str] = {}
    until = time.monotonic() + 10
    while True:
        left = [one for one in (gathered(place, own) if place is not None else own) if one.alive()]
        if not left:
            return list(killed.values())
        if time.monotonic() >= until:
            raise Trouble(
                "stop",
                "still there after SIGKILL: {}".format("; ".join(one.name() for one in left[:5])),
                "Such a process hangs in the kernel (often a GPU driver); reboot or power-cycle the host",
            )
        for one in left:
            killed.setdefault((one.pid, one.ticks), one.name())
            one.send(signal.SIGKILL)
        time.sleep(0.02)


def prove_closed(port: int) -> None:
    until = time.monotonic() + 2
    while True:
        held = listeners(port)
        if not held:
            return
        if time.monotonic() >= until:
            raise Trouble(
                "port",
                f"the agent is gone, but port {port} is still open, held by {holder(held)}",
                "Stop that process; it may be a child of the agent that hid itself",
            )
        time.sleep(0.05)
