"""Errand: what is this host, and what runs there of ours?"""

from __future__ import annotations

import os
from typing import Any

from fleet_controller.hosts.keeper.files import read, read_json
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import boot_id


def errand(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    agent = None
    run, one = place.recorded()
    if one is not None:
        agent = dict(run, alive=True)
    else:
        if os.path.isdir(place.run):
            one = place.agent()
        if one is not None:
            agent = {"pid": one.pid, "alive": True, "port": 0, "action_id": one.action, "release": ""}
            agent["release"] = str((read_json(place.config) or {}).get("release", ""))
        elif run:
            agent = dict(run, alive=False)
    machine = read("/etc/machine-id").strip() or read("/var/lib/dbus/machine-id").strip()
    return {"boot_id": boot_id(), "machine_id": machine, "agent": agent, "root": place.root}
