"""Errand: which Python this host makes environments with, and for which wheels that is."""

from __future__ import annotations

from typing import Any

from fleet_controller.hosts.keeper.interpreter import facts_of


def errand(args: dict[str, Any]) -> dict[str, Any]:
    return facts_of(args["python"])
