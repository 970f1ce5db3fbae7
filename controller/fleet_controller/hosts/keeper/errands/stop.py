"""Errand: end the agent and everything it started, and prove it: processes, device memory, port."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.ending import Own, end, prove_closed
from fleet_controller.hosts.keeper.files import Lock, read_json, remove, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import boot_id
from fleet_controller.hosts.keeper.room import prove_free
from fleet_controller.hosts.keeper.supervision.choice import noted, present

# What the agent started ends with it, just after it.
LINGER_S = 1.0


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """End the agent and everything it started, and prove it. A second call goes on waiting, it does not hurry."""
    place = Place(args)
    if not os.path.isdir(place.run):
        return {"was_running": False, "killed": [], "port": 0, "notes": []}
    grace = args["grace_s"]
    with Lock(os.path.join(place.run, "lock"), grace + 15):
        supervision = present(place, elevation_of(args))
        supervised = supervision.state().alive
        own = Own(place, supervision)
        agent = place.agent(own.living())
        run = read_json(place.run_file) or {}
        running = bool(own.living()) or supervised
        if agent is not None:
            own.add(agent)
        if running:
            since = ask(place, supervision if supervised else None, agent)
            pause = 0.01
            while time.monotonic() < since + grace and (
                agent.alive() if agent is not None else supervision.state().alive
            ):
                time.sleep(pause)
                pause = min(pause * 1.3, 0.2)
            until = time.monotonic() + LINGER_S
            while (agent is None or not agent.alive()) and own.agents_living() and time.monotonic() < until:
                time.sleep(0.02)
        killed = end(own, supervision)
        # Before what may fail: a supervisor that was frozen would be waited for by the next try.
        supervision.clear()
        config = read_json(place.config) or {}
        notes = prove_free(place, own.seen, str(config.get("device", "cpu")))
        port = run.get("port")
        if isinstance(port, int) and run.get("boot_id") == boot_id():
            prove_closed(port)
        for path in (place.run_file, asked(place), os.path.join(place.run, "token"), noted(place)):
            remove(path)
    return {"was_running": running, "killed": killed, "port": port or 0, "notes": notes}


def ask(place: Place, supervision: Any, agent: Any) -> float:
    """SIGTERM, once for one agent: a second one would cut off what it still answers. Since when it is asked."""
    mine = {"boot_id": boot_id()}
    if agent is not None:
        mine.update(pid=agent.pid, ticks=agent.ticks)
    before = read_json(asked(place)) or {}
    if agent is not None and all(before.get(name) == value for name, value in mine.items()):
        return float(before["at"])
    now = time.monotonic()
    write(asked(place), json.dumps(dict(mine, at=now)))
    if supervision is not None:
        supervision.ask_to_end()
    elif agent is not None:
        agent.send(signal.SIGTERM)
    return now


def asked(place: Place) -> str:
    return os.path.join(place.run, "stopping.json")
