"""Errand: what is this host, and what runs there of ours?"""

from __future__ import annotations

import os
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.files import read, read_json
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import boot_id
from fleet_controller.hosts.keeper.supervision.choice import present


def errand(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    agent = None
    run, one = place.recorded()
    if os.path.isdir(place.run):
        state = present(place, elevation_of(args)).state()
        if one is not None:
            agent = dict(run, alive=True)
        elif (one := place.agent()) is not None or state.alive:
            # Not listening yet, or about to be started again by its supervisor.
            config = read_json(place.config) or {}
            agent = {"pid": one.pid if one is not None else 0, "alive": True, "port": 0}
            agent["action_id"] = str(config.get("action_id") if one is None else one.action)
            agent["release"] = str(config.get("release", ""))
        elif run:
            agent = dict(run, alive=False)
        if agent is not None:
            agent.update(restarts=state.restarts, last_end=state.last)
    machine = read("/etc/machine-id").strip() or read("/var/lib/dbus/machine-id").strip()
    return {"boot_id": boot_id(), "machine_id": machine, "agent": agent, "root": place.root}
