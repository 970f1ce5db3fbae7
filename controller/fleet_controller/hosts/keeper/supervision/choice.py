"""Which form of supervision an agent gets, and which one it has."""

from __future__ import annotations

import json
import os

from fleet_controller.hosts.keeper.elevation import Elevation
from fleet_controller.hosts.keeper.files import read_json, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.supervision.contract import Supervision
from fleet_controller.hosts.keeper.supervision.plain import Plain
from fleet_controller.hosts.keeper.supervision.systemd import Systemd, system_runs, user_manager_lingers


def chosen(place: Place, wanted: str, root: Elevation) -> Supervision:
    """For a start. `wanted` as agent.supervisor has it. Raises Trouble where that can't be had."""
    if wanted == "process":
        return Plain(place)
    if not system_runs():
        if wanted == "auto":
            return Plain(place)
        raise unfit("systemd does not run on this host")
    if wanted in ("auto", "systemd"):
        try:
            root.way()
            return Systemd(place, root)
        except Trouble:
            if wanted == "systemd":
                raise
    if user_manager_lingers():
        return Systemd(place, None)
    if wanted == "auto":
        return Plain(place)
    raise unfit(
        "this user's systemd does not outlive a login, and lingering can't be switched on (root can:"
        " `loginctl enable-linger USER`)"
    )


def unfit(cause: str) -> Trouble:
    return Trouble("start", cause, "Set agent.supervisor to auto or process for this host")


def noted(place: Place) -> str:
    return os.path.join(place.run, "supervision.json")


def note(place: Place, supervision: Supervision) -> None:
    """What `present` finds from now on."""
    write(noted(place), json.dumps({"kind": supervision.kind}))


def present(place: Place, root: Elevation) -> Supervision:
    """The one that the agent there was started with."""
    kind = (read_json(noted(place)) or {}).get("kind")
    if kind == "systemd" and system_runs():
        return Systemd(place, root)
    if kind == "systemd-user" and system_runs():
        return Systemd(place, None)
    return Plain(place)
