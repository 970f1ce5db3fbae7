"""A control group (cgroup v2) of our own for an agent without systemd, where this user may make one.

Nothing leaves it by forking, changing its session or emptying its environment.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from fleet_controller.hosts.keeper.files import read
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, process

PERIOD_US = 100_000


class Group:
    """The group of this place's agent. `path` is where it is, or would be; "" where there is no cgroup v2."""

    def __init__(self, place: Place) -> None:
        mounts = read("/proc/self/mounts").splitlines()
        mount = next((line.split()[1] for line in mounts if line.split()[2:3] == ["cgroup2"]), "")
        lines = read("/proc/self/cgroup").splitlines()
        own = next((line[3:] for line in lines if line.startswith("0::")), "/")
        above = mount if os.geteuid() == 0 else mount + own.rstrip("/")
        name = hashlib.sha256(place.root.encode()).hexdigest()[:16]
        self.path = os.path.join(above, f"fleetctl-{name}") if mount else ""

    def make(self) -> bool:
        """False where this user may not."""
        if not self.path:
            return False
        try:
            os.makedirs(self.path, exist_ok=True)
            with open(os.path.join(self.path, "cgroup.procs"), "r+"):
                return True
        except OSError:
            return False

    def limit(self, limits: dict[str, Any]) -> list[str]:
        """Set memory (bytes), cpus and tasks where the kernel lets us; returns the keys of those that it does not."""
        memory, cpus, tasks = limits.get("memory"), limits.get("cpus"), limits.get("tasks")
        wanted = {
            "memory": ("memory.max", f"{memory or 0:.0f}"),
            "cpus": ("cpu.max", f"{(cpus or 0) * PERIOD_US:.0f} {PERIOD_US}"),
            "tasks": ("pids.max", f"{tasks or 0:.0f}"),
        }
        unset = []
        for key, (file, text) in wanted.items():
            if limits.get(key) is None:
                continue
            try:
                if not os.path.exists(os.path.join(self.path, file)):
                    self._enable(file.split(".")[0])
                with open(os.path.join(self.path, file), "w") as out:
                    out.write(text)
            except OSError:
                unset.append(key)
        return unset

    def _enable(self, controller: str) -> None:
        with open(os.path.join(os.path.dirname(self.path), "cgroup.subtree_control"), "w") as out:
            out.write("+" + controller)

    def members(self) -> list[Process]:
        """Every living process in it."""
        pids = read(os.path.join(self.path, "cgroup.procs")).split() if self.path else []
        found = (process(int(pid)) for pid in pids if pid != "0")
        return [one for one in found if one is not None]

    def clear(self) -> None:
        if self.path:
            try:
                os.rmdir(self.path)
            except OSError:
                pass  # it was never made, or another user made it
