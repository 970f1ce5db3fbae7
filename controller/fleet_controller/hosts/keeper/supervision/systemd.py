"""The agent as a unit of systemd, or of a user's own systemd."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time

from fleet_controller.hosts.keeper.elevation import PATH, Elevation, done
from fleet_controller.hosts.keeper.files import folder, read, remove, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, all_processes
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.supervision.contract import Launch, State
from fleet_controller.hosts.keeper.supervision.ends import noted_words, number, out_of_memory
from fleet_controller.hosts.keeper.supervision.unit import (
    UnitSpec,
    environment_text,
    quoted,
    unit_name,
    unit_text,
)

SECONDS = 30.0
SHOWN = (
    "LoadState,ActiveState,SubState,MainPID,NRestarts,Result,ExecMainCode,ExecMainStatus,ControlPID,ControlGroup,"
    "MemoryMax"
)
# Of a login's environment, what belongs to the login.
OF_THE_LOGIN = ("SSH_", "XDG_SESSION_", "DBUS_", "SUDO_")
NOT_FOR_UNITS = frozenset(
    [
        "_",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "TERM",
        "MAIL",
        "LS_COLORS",
        "INVOCATION_ID",
        "NOTIFY_SOCKET",
        "XDG_RUNTIME_DIR",
    ]
)
SIGNALLED = ("2", "3")  # ExecMainCode: CLD_KILLED, CLD_DUMPED


class Systemd:
    """The unit `name` of this place's agent. `root` None: a unit of this user's own manager."""

    def __init__(self, place: Place, root: Elevation | None) -> None:
        self.kind = "systemd-user" if root is None else "systemd"
        self._place = place
        self.root = root
        self.name = unit_name(*place.owner.split("/")[:2])
        self._environment = os.path.join(place.run, "environment")
        self._ended = os.path.join(place.run, "ended")
        self._group = os.path.join(place.run, "group")
        self._file = os.path.join(self._units(), self.name)

    def _units(self) -> str:
        # Gone after a reboot, and that is meant: who serves then is the controller's to decide.
        return (
            "/run/systemd/system"
            if self.root is not None
            else os.path.join(runtime_folder(), "systemd", "user")
        )

    def launch(self, what: Launch) -> list[str]:
        spec = UnitSpec(
            "fleetctl agent of host {1} in fleet {0}".format(*self._place.owner.split("/")[:2]),
            what.argv,
            self._environment,
            self._ended,
            self._place.run,
            getpass.getuser() if self.root is not None else "",
            what.drain_s,
            what.limits,
            what.needed,
            what.writable,
            what.port,
            contained=os.path.exists("/run/systemd/container"),
        )
        try:
            text = unit_text(spec) + self._mark() + "\n"
        except ValueError as error:
            raise Trouble(
                "start", f"no systemd unit can be written: {error}", "Choose another install.directory"
            ) from None
        self._refuse_another()
        env = {
            name: value
            for name, value in what.env.items()
            if not name.startswith(OF_THE_LOGIN) and name not in NOT_FOR_UNITS
        }
        write(self._environment, environment_text(env))
        remove(self._ended)
        if self.root is None:
            folder(self._units())
            write(self._file, text, 0o644)
        else:
            part = os.path.join(self._place.run, "unit")
            write(part, text)
            self._must(
                self.root.run(["install", "-D", "-m", "0644", "--", part, self._file]), "writing the unit"
            )
            remove(part)
        self._must(self._change("daemon-reload"), "reading the unit")
        self._change("reset-failed", self.name)
        self._must(self._change("start", "--no-block", self.name), "starting the unit")
        return self._unfit(what)

    def _mark(self) -> str:
        """By this line a unit says whose it is: another folder of this machine may hold the same fleet and host."""
        return f"# root: {quoted(self._place.root)}"

    def _ours(self) -> bool:
        return self._mark() in read(self._file).splitlines()

    def _refuse_another(self) -> None:
        """What another folder's unit runs is not ours to replace."""
        there = read(self._file)
        if (
            there
            and not self._ours()
            and self._shown().get("ActiveState") not in ("inactive", "failed", None)
        ):
            other = there.strip().splitlines()[-1].replace("# root: ", "")
            raise Trouble(
                "conflict",
                f"unit {self.name} already runs here from {other}",
                "Stop that one first, or give one of the fleets or hosts another name",
            )

    def _unfit(self, what: Launch) -> list[str]:
        """A user manager has only the controllers that root left to it."""
        if self.root is not None or not any(what.limits.get(one) for one in ("memory", "cpus", "tasks")):
            return []
        slice_of_user = f"/sys/fs/cgroup/user.slice/user-{os.getuid()}.slice"
        delegated = read(f"{slice_of_user}/user@{os.getuid()}.service/cgroup.controllers")
        words = {"memory": "memory", "cpus": "cpu", "tasks": "pids"}
        missing = [
            key for key, word in words.items() if what.limits.get(key) and word not in delegated.split()
        ]
        return [
            f"agent.limits.{key} does not hold: root did not delegate it to this user's systemd"
            for key in missing
        ]

    def state(self) -> State:
        if not self._ours():
            return State(False)
        shown = self._shown()
        active = shown.get("ActiveState")
        alive = active in ("active", "activating", "reloading", "deactivating")
        return State(alive, int(shown.get("NRestarts") or 0), ended(shown, read(self._ended)))

    def program_pid(self) -> int:
        """Of the shell that notes how the agent ended."""
        return int(self._shown().get("ControlPID") or 0) if self._ours() else 0

    def members(self) -> list[Process]:
        """By its control group, whose name is kept: systemd forgets it while a process that hangs is still in it."""
        group = (self._shown().get("ControlGroup") or "") if self._ours() else ""
        if group not in ("", "/"):
            if group != read(self._group):
                write(self._group, group)
        else:
            group = read(self._group)
        return [one for one in all_processes() if within(one.pid, group)] if group else []

    def ask_to_end(self) -> None:
        self._must(self._change("stop", "--no-block", self.name), "stopping the unit")

    def kill(self) -> None:
        # Its own end first, or it would be started again; --kill-who is --kill-whom since 252, and both are understood.
        if self.state().alive:
            self._must(self._change("stop", "--no-block", self.name), "stopping the unit")
            self._change("kill", "--signal=KILL", self.name)

    def clear(self) -> None:
        if self._ours():
            self._change("reset-failed", self.name)
            if self.root is None:
                remove(self._file)
            else:
                self._must(self.root.run(["rm", "-f", "--", self._file]), "removing the unit")
            self._change("daemon-reload")
        for path in (self._environment, self._ended, self._group):
            remove(path)

    def _shown(self) -> dict[str, str]:
        argv = [*self._systemctl(), "show", "--property", SHOWN, "--", self.name]
        result = done(argv, b"", SECONDS, self._env())
        if result.returncode and self.root is not None:
            result = self.root.run(argv, SECONDS)  # without D-Bus only root may ask
        self._must(result, "asking for the unit")
        lines = result.stdout.decode("utf-8", "replace").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def _change(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        argv = [*self._systemctl(), *words]
        if self.root is not None:
            return self.root.run(argv, SECONDS)
        return done(argv, b"", SECONDS, self._env())

    def _systemctl(self) -> list[str]:
        return [systemctl(), "--no-pager", "--no-ask-password", *(["--user"] if self.root is None else [])]

    def _env(self) -> dict[str, str]:
        return {} if self.root is not None else {"XDG_RUNTIME_DIR": runtime_folder()}

    def _must(self, result: subprocess.CompletedProcess[bytes], what: str) -> None:
        if result.returncode:
            said = " / ".join(result.stderr.decode("utf-8", "replace").split("\n")).strip(" /")[-400:]
            raise Trouble(
                "start",
                f"{what} {self.name} failed: {said or result.returncode}",
                f"See `systemctl{' --user' if self.root is None else ''} status '{self.name}'` on the host,"
                " or set agent.supervisor: process",
            )


def ended(shown: dict[str, str], noted: str) -> str:
    """How its main process ended last, in words; "" while the first one runs. `noted`: what the unit wrote then."""
    limit = number(shown.get("MemoryMax")) or None  # "infinity": none
    if words := noted_words(noted, limit):
        return words
    status = shown.get("ExecMainStatus", "0")
    code = shown.get("ExecMainCode", "0")
    if shown.get("Result") == "oom-kill":
        return out_of_memory(limit)
    if code in SIGNALLED:
        return f"killed by signal {status}"
    if code == "1":
        return f"exit status {status}"
    return ""


def within(pid: int, group: str) -> bool:
    """Whether a process is in this control group or below it, whichever hierarchy systemd uses."""
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        path = line.split(":", 2)[-1]
        if path == group or path.startswith(group + "/"):
            return True
    return False


def systemctl() -> str:
    return shutil.which("systemctl", path=os.environ.get("PATH", "") + ":" + PATH) or "systemctl"


def runtime_folder() -> str:
    return f"/run/user/{os.getuid()}"


def system_runs() -> bool:
    """sd_booted(3): whether PID 1 is systemd."""
    return os.path.isdir("/run/systemd/system")


def user_manager_lingers() -> bool:
    """Whether this user has a systemd that outlives the login; lingering is asked for where it may be had."""
    user = getpass.getuser()
    flag = f"/var/lib/systemd/linger/{user}"
    if not os.path.exists(flag):
        done(["loginctl", "--no-ask-password", "enable-linger", user], b"", SECONDS, {})
        if not os.path.exists(flag):
            return False
    until = time.monotonic() + 5
    while time.monotonic() < until:
        env = {"XDG_RUNTIME_DIR": runtime_folder()}
        if done([systemctl(), "--user", "show", "--property", "Version"], b"", SECONDS, env).returncode == 0:
            return True
        time.sleep(0.1)
    return False
