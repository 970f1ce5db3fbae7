"""Errand: make folders of ours for what is about to be sent."""

from __future__ import annotations

from typing import Any

from fleet_controller.hosts.keeper.files import folder


def errand(args: dict[str, Any]) -> dict[str, Any]:
    for path in args["folders"]:
        folder(path)
    return {}
