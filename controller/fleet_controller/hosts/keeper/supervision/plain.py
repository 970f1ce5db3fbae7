"""The agent below a small program of ours (program.py), where there is no systemd for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from fleet_controller.hosts.keeper.files import read_json, remove, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, all_processes, below, boot_id, process
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.supervision.contract import Launch, State
from fleet_controller.hosts.keeper.supervision.ends import out_of_memory
from fleet_controller.hosts.keeper.supervision.group import Group
from fleet_controller.hosts.keeper.supervision.unit import CRASHES, HOPELESS, WINDOW_S

# Of the limits, those that only a control group can hold.
LIMITS = ("memory", "cpus", "tasks")
# The log begins anew at a start when it is larger.
LOG_LIMIT = 10 * 1024 * 1024
FIRST_S = 1.0
LONGEST_S = 30.0


class Plain:
    """The supervising program of this place."""

    def __init__(self, place: Place) -> None:
        self.kind = "process"
        self._place = place
        self._group = Group(place)
        self._program = os.path.join(place.run, "supervise.py")
        self._spec = os.path.join(place.run, "supervise.json")
        self._state = os.path.join(place.run, "supervised.json")
        self._record = os.path.join(place.run, "supervisor.json")

    def launch(self, what: Launch) -> list[str]:
        place = self._place
        made = self._group.make()
        unset = (
            self._group.limit(what.limits)
            if made
            else [key for key in LIMITS if what.limits.get(key) is not None]
        )
        out = out_of_memory(None if "memory" in unset else what.limits.get("memory"))
        limits: dict[str, Any] = {}
        if what.limits.get("open_files") is not None:
            limits["RLIMIT_NOFILE"] = what.limits["open_files"]
        if "memory" in unset:
            # Of one process, not of all together. RLIMIT_AS would count what CUDA reserves and never touches.
            limits["RLIMIT_DATA"] = what.limits["memory"]
            unset.remove("memory")
        spec = {
            "argv": what.argv,
            "env": what.env,
            "log": place.log,
            "log_limit": LOG_LIMIT,
            "run_file": place.run_file,
            "state": self._state,
            "rlimits": limits,
            "group": self._group.path if made else None,
            "out_of_memory": out,
            "crashes": CRASHES,
            "window_s": WINDOW_S,
            "hopeless": HOPELESS,
            "first_s": FIRST_S,
            "longest_s": LONGEST_S,
        }
        remove(self._state)
        write(self._program, what.program)
        write(self._spec, json.dumps(spec))
        log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            started = subprocess.Popen(
                [sys.executable, "-I", "-S", self._program, self._spec],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.run,
                env=what.env,
                start_new_session=True,
                close_fds=True,
            )
        except OSError as error:
            raise Trouble(
                "start", f"{sys.executable} cannot be run: {error}", "Check install.python"
            ) from None
        finally:
            os.close(log)
        now = process(started.pid)
        ticks = now.ticks if now is not None else 0
        write(self._record, json.dumps({"pid": started.pid, "ticks": ticks, "boot_id": boot_id()}))
        return [
            f"agent.limits.{key} does not hold: no control group can be made here without systemd"
            for key in unset
        ]

    def state(self) -> State:
        program = self._supervisor()
        told = read_json(self._state) or {}
        restarts, last = int(told.get("restarts", 0)), str(told.get("last", ""))
        if program is None:
            return State(False, restarts, last)
        return State(told.get("doing") != "over", restarts, last)

    def members(self) -> list[Process]:
        program = self._supervisor()
        found = self._group.members()
        if program is not None:
            known = {one.pid for one in found}
            found += [one for one in below(program.pid, all_processes()) if one.pid not in known]
        return found

    def ask_to_end(self) -> None:
        program = self._supervisor()
        if program is not None:
            program.send(signal.SIGTERM)

    def kill(self) -> None:
        """The program last: what its children leave behind is found only below it."""
        program = self._supervisor()
        if program is not None:
            # Frozen it starts nothing more, and is still the parent of all that is left.
            program.send(signal.SIGSTOP)
        left = self.members()
        for one in left:
            one.send(signal.SIGKILL)
        if program is not None and not left:
            program.send(signal.SIGKILL)

    def clear(self) -> None:
        program = self._supervisor()
        if program is not None:
            program.send(signal.SIGKILL)
        self._group.clear()
        for path in (self._record, self._state, self._spec, self._program):
            remove(path)

    def _supervisor(self) -> Process | None:
        record = read_json(self._record) or {}
        pid = record.get("pid")
        one = process(pid) if isinstance(pid, int) and record.get("boot_id") == boot_id() else None
        return one if one is not None and one.ticks == record.get("ticks") else None

    def program_pid(self) -> int:
        program = self._supervisor()
        return program.pid if program is not None else 0
