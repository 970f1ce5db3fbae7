"""Hosts in network namespaces: own address, own processes, own boot-id and machine-id, a cable that can be cut.

The bridge lives in a controller namespace, and whoever talks to the hosts must run in there:
    tests/lab/netns.py run -- pytest --hosts netns tests/hosts
Root only. Everything is named after the controller namespace and removed with it.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

from fleet_lab import processes
from fleet_lab.host import Host
from fleet_lab.processes import Process

NETWORK_VARIABLE = "FLEET_LAB_NETNS"
# The network that `run` was called in, for the one command that has to reach the world: `nsenter --net=...`.
OUTSIDE_VARIABLE = "FLEET_LAB_OUTSIDE"

# PID 1 of a host: its own /proc, boot-id, machine-id and name; it reaps what is orphaned.
INIT = """set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id
[ -e /etc/machine-id ] && mount --bind {folder}/machine_id /etc/machine-id
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd
hostname {name}
{sshd} &
while :; do wait || true; sleep 3600 & done
"""


def ip(*words: str, namespace: str | None = None) -> str:
    argv = ["ip", *(["-n", namespace] if namespace else []), *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """A bridge in a controller namespace. `name` is at most 8 letters (names of links are short)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.subnet = "10.77.0"

    @classmethod
    def around_us(cls) -> Network:
        """The network in which this process runs. Raises RuntimeError with the command that makes one."""
        name = os.environ.get(NETWORK_VARIABLE)
        if not name:
            raise RuntimeError(
                "network-namespace hosts are reached from inside their network only; run (as root):"
                " python tests/lab/netns.py run -- python -m pytest --hosts netns ..."
            )
        return cls(name)

    def up(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "set", "lo", "up", namespace=self.name)
        ip("link", "add", "br0", "type", "bridge", "forward_delay", "0", namespace=self.name)
        # Else it is the lowest of its cables', and changes under the hosts that know it when one comes or goes.
        ip("link", "set", "br0", "address", f"02:00:00:00:01:{254:02x}", namespace=self.name)
        ip("addr", "add", f"{self.subnet}.254/24", "dev", "br0", namespace=self.name)
        ip("link", "set", "br0", "up", namespace=self.name)

    def down(self) -> None:
        """Take the controller namespace and those of all hosts away, whatever state they are in."""
        for line in ip("netns").splitlines():
            name = line.split()[0]
            if name == self.name or name.startswith(f"{self.name}-"):
                pids = subprocess.run(
                    ["ip", "netns", "pids", name], capture_output=True, text=True
                ).stdout.split()
                own = {process.pid for process in _above(os.getpid())}
                found = (processes.look(int(pid)) for pid in pids)
                processes.end(process for process in found if process is not None and process.pid not in own)
                ip("netns", "del", name)

    def plug(self, host: str) -> tuple[str, str, str]:
        """A namespace with a cable to the bridge: its name, the bridge's end of the cable, its address."""
        namespace = f"{self.name}-{host}"
        number = self._reserve()
        namespace, cable, address = f"{self.name}-{number}", f"v{number}", f"{self.subnet}.{number}"
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", cable, "master", "br0")
        ip("link", "set", cable, "up")
        ip("link", "set", "lo", "up", namespace=namespace)
        # The address that the one before it with this number had, or who has just talked to that one would not find it.
        ip("link", "set", "eth0", "address", f"02:00:00:00:00:{number:02x}", namespace=namespace)
        ip("addr", "add", f"{address}/24", "dev", "eth0", namespace=namespace)
        ip("link", "set", "eth0", "up", namespace=namespace)
        return namespace, cable, address

    def _reserve(self) -> int:
        """The lowest free number, with its namespace made: whoever makes it has it, so several may ask at once."""
        while True:
            used = {line.split()[0] for line in ip("netns").splitlines() if line.strip()}
            number = next(n for n in range(1, 254) if f"{self.name}-{n}" not in used)
            try:
                ip("netns", "add", f"{self.name}-{number}")
            except RuntimeError as error:
                if "File exists" not in str(error):
                    raise
            else:
                return number


def _above(pid: int) -> list[Process]:
    found = []
    while (process := processes.look(pid)) is not None and pid > 1:
        found.append(process)
        pid = process.parent
    return found


class NetnsHost(Host):
    """A host with an address of its own. Killing it kills its PID 1, and so everything on it."""

    def __init__(self, name: str, folder: Path, network: Network, client_key: Path, mark: str) -> None:
        self._namespace, self._cable, address = network.plug(name)
        super().__init__(name, folder, address, 22, client_key, mark)
        (folder / "machine_id").write_text(uuid.uuid4().hex + "\n")

    def _launch(self) -> list[str]:
        """A boot: a new boot-id each time."""
        ip("link", "set", self._cable, "up")
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        init = self.folder / "init"
        init.write_text(INIT.format(folder=self.folder, name=self.name, sshd=" ".join(self._sshd_argv())))
        return [
            *("nsenter", f"--net=/run/netns/{self._namespace}"),
            *("unshare", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child=KILL"),
            *("/bin/sh", str(init)),
        ]

    def restart_sshd(self) -> None:
        """Here sshd ends with its host: a reboot."""
        self.kill()
        self.start()

    def _logins(self) -> list[Process]:
        """sshd, its logins and PID 1; their children that left are not among them."""
        assert self._sshd is not None
        found = processes.tree(self._sshd.pid)
        sshd = [process for process in found if "sshd" in process.command and "-D" in process.command]
        below = {process.pid for one in sshd for process in processes.tree(one.pid)}
        shells = {process.pid for process in found if str(self.folder / "init") in process.command}
        idle = {process.pid for process in found if process.command == "sleep 3600"}
        return [p for p in found if p.pid in below | shells | idle | {self._sshd.pid}]

    def left(self) -> list[Process]:
        own = {process.pid for process in self._logins()} if self._sshd else set()
        return [process for process in self.processes() if process.pid not in own]

    def drop_logins(self) -> None:
        processes.end(p for p in self._logins() if "sshd" in p.command and "-D" not in p.command.split())

    def kill(self) -> None:
        """A dead machine answers nothing, not even a reset: the cable goes first."""
        ip("link", "set", self._cable, "down")
        super().kill()

    def cut(self) -> None:
        ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        ip("link", "set", self._cable, "up")

    def with_full_disk(self, free_bytes: int) -> None:
        """A host sees only what was mounted before it booted."""
        super().with_full_disk(free_bytes)
        self.restart_sshd()

    def outer_pid(self, pid: int) -> int:
        for process in self.processes():
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                if next(line for line in lines if line.startswith("NSpid:")).split()[-1] == str(pid):
                    return process.pid
        return -1

    def close(self) -> None:
        super().close()
        # Its own end of the cable goes later than the namespace's name, and would be in the next host's way.
        ip("link", "del", self._cable)
        ip("netns", "del", self._namespace)
