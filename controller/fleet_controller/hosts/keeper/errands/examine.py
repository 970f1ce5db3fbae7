"""Errand: what this host can say of itself. It looks, and changes nothing."""

from __future__ import annotations

from typing import Any

from fleet_controller.hosts.keeper.facts.alone import gather
from fleet_controller.hosts.keeper.facts.clock import clock
from fleet_controller.hosts.keeper.facts.nvidia import apps, driver, gpus, has_device, kernel_log, rows
from fleet_controller.hosts.keeper.facts.place import abandoned, disk, port, releases
from fleet_controller.hosts.keeper.facts.python import pythons, torch
from fleet_controller.hosts.keeper.facts.system import (
    identity,
    limits,
    memory,
    rights,
    service,
    ssh_server,
    system,
)
from fleet_controller.hosts.keeper.place import Place

# A fact that takes longer is unknown. What takes long: importing torch from a cold disk, nvidia-smi of eight GPUs
# without persistence mode, the hashes of a large release.
QUICK_S = 5.0
PYTHON_S = 25.0
SMI_S = 25.0
RELEASES_S = 30.0
TORCH_S = 60.0


def errand(args: dict[str, Any]) -> dict[str, Any]:
    here = Place(args)
    return gather(
        {
            "system": (system, QUICK_S),
            "identity": (identity, QUICK_S),
            "rights": (lambda: rights(args), 2 * QUICK_S),
            "memory": (memory, QUICK_S),
            "limits": (limits, QUICK_S),
            "service": (service, QUICK_S),
            "ssh": (ssh_server, QUICK_S),
            "clock": (clock, QUICK_S),
            "disk": (lambda: disk(here), QUICK_S),
            "abandoned": (lambda: abandoned(here), QUICK_S),
            "releases": (lambda: releases(here), RELEASES_S),
            "port": (lambda: port(here, int(args["port"])), QUICK_S),
            "python": (lambda: pythons(args), PYTHON_S),
            "driver": (driver, QUICK_S),
            "gpus": (gpus, SMI_S),
            "rows": (rows, SMI_S),
            "apps": (lambda: apps(here), SMI_S),
            "kernel_log": (lambda: kernel_log(args), SMI_S),
            "torch": (lambda: torch(here, args, has_device(driver())), TORCH_S),
        }
    )
