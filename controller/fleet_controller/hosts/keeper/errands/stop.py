"""Errand: end the agent and everything it started, and prove it."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from fleet_controller.hosts.keeper.ending import end, gathered, prove_closed
from fleet_controller.hosts.keeper.files import Lock, read_json, remove, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import boot_id


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """End the agent and everything it started, and prove it. A second call goes on waiting, it does not hurry."""
    place = Place(args)
    if not os.path.isdir(place.run):
        return {"was_running": False, "killed": [], "port": 0}
    asked = os.path.join(place.run, "stopping.json")
    grace = args["grace_s"]
    with Lock(os.path.join(place.run, "lock"), grace + 15):
        own = place.processes()
        agent = place.agent(own)
        run = read_json(place.run_file) or {}
        if agent is not None:
            if all(one.pid != agent.pid for one in own):
                own.append(agent)
            mine = {"pid": agent.pid, "ticks": agent.ticks, "boot_id": boot_id()}
            before = read_json(asked) or {}
            since = time.monotonic()
            if all(before.get(name) == value for name, value in mine.items()):
                since = before["at"]  # a second SIGTERM would cut off what the agent still answers
            else:
                write(asked, json.dumps(dict(mine, at=since)))
                agent.send(signal.SIGTERM)
            pause = 0.01
            while agent.alive() and time.monotonic() < since + grace:
                time.sleep(pause)
                pause = min(pause * 1.3, 0.2)
        until = time.monotonic() + 1.0
        left = [one for one in gathered(place, own) if one.alive()]
        while left and (agent is None or not agent.alive()) and time.monotonic() < until:
            time.sleep(0.02)  # what the agent started ends with it, just after it
            left = [one for one in gathered(place, own) if one.alive()]
        killed = end(own, place)
        port = run.get("port")
        if isinstance(port, int) and run.get("boot_id") == boot_id():
            prove_closed(port)
        for path in (place.run_file, asked, os.path.join(place.run, "token")):
            remove(path)
    return {"was_running": agent is not None or bool(own), "killed": killed, "port": port or 0}
