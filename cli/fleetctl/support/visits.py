"""What each host adds to a support bundle: what it says of itself, what runs there, the end of its agent's log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleetctl.sidebyside import Done, SideBySide
from fleetctl.support.pack import Pack

LOG_LINES = 5000
EXAMINE_S = 30.0
AT_ONCE = 32


@dataclass
class Visit:
    """What was had of a host, and what not."""

    facts: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def visit(pack: Pack, machines: Machines, names: Sequence[str], within_s: float) -> None:
    """Look at the hosts, all at once; who is not done in time is said to be missing."""

    def work(name: str, _say: Callable[[object], None]) -> Visit:
        machine, seen = machines.machine(name), Visit()
        looks: dict[str, Callable[[], Any]] = {
            "probe": lambda: asdict(machine.probe()),
            "examine": lambda: machine.examine(EXAMINE_S),
            "power": lambda: asdict(machine.power_status()),
        }
        for what, look in looks.items():
            try:
                seen.facts[what] = look()
            except HostFailure as failure:
                seen.missing[f"{what}.json"] = str(failure)
        try:
            seen.log = machine.follow(None, lines=LOG_LINES).lines
        except HostFailure as failure:
            seen.missing["agent.log"] = str(failure)
        return seen

    left = set(names)
    side = SideBySide(lambda name: machines.machine(name).reach(), work, AT_ONCE)
    for name, done in side.run(names, time.monotonic() + within_s):
        assert isinstance(done, Done)
        left.discard(name)
        if done.result is None:
            pack.lack(f"hosts/{name}", str(done.failure))
            continue
        for what, value in done.result.facts.items():
            pack.add_json(f"hosts/{name}/{what}.json", value)
        if done.result.log:
            pack.add(f"hosts/{name}/agent.log", "\n".join([*done.result.log, ""]))
        elif "agent.log" not in done.result.missing:
            pack.lack(f"hosts/{name}/agent.log", "there is none there yet")
        for what, why in done.result.missing.items():
            pack.lack(f"hosts/{name}/{what}", why)
    for name in left:
        pack.lack(f"hosts/{name}", f"not done within {within_s:.0f} s")
