"""Processes of this host, each at one time of its life, and who listens on a port.

A process is only ever signalled after its start time was seen to be the one meant."""

from __future__ import annotations

import errno
import os
import signal

from fleet_controller.hosts.keeper.files import read


class Process:
    """One process at one time: `ticks` (start time, field 22 of stat) tells it from a later one of the same pid."""

    def __init__(self, pid: int, state: str, parent: int, session: int, ticks: int) -> None:
        self.pid = pid
        self.state = state
        self.parent = parent
        self.session = session
        self.ticks = ticks
        self.action: str | None = None

    def command(self) -> str:
        text = read(f"/proc/{self.pid}/cmdline", 4096).replace("\0", " ").strip()
        return text or "[" + read(f"/proc/{self.pid}/comm").strip() + "]"

    def name(self) -> str:
        hangs = ", uninterruptible" if self.state == "D" else ""
        return f"pid {self.pid} ({self.command()[:200]}{hangs})"

    def alive(self) -> bool:
        now = process(self.pid)
        return now is not None and now.ticks == self.ticks

    def send(self, number: int) -> None:
        """Signal exactly this process: never one that took over its pid."""
        try:
            if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
                handle = os.pidfd_open(self.pid)
                try:
                    if self.alive():
                        signal.pidfd_send_signal(handle, number)
                finally:
                    os.close(handle)
                return
        except ProcessLookupError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


def process(pid: int) -> Process | None:
    """None where there is none, or only its unreaped remains."""
    text = read(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def all_processes() -> list[Process]:
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [p for p in found if p is not None]


def below(pid: int, everyone: list[Process]) -> list[Process]:
    """Every living process that descends from `pid`, itself left out."""
    children: dict[int, list[Process]] = {}
    for one in everyone:
        children.setdefault(one.parent, []).append(one)
    found: list[Process] = []
    next_ones = [pid]
    while next_ones:
        for one in children.get(next_ones.pop(), []):
            found.append(one)
            next_ones.append(one.pid)
    return found


def boot_id() -> str:
    return read("/proc/sys/kernel/random/boot_id").strip()


def listeners(port: int) -> dict[str, str]:
    """inode -> address of every TCP socket that listens on `port`."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table, 1 << 24).splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                found[words[9]] = words[1]
    return found


def holder(inodes: dict[str, str]) -> str:
    """Who holds one of these sockets, by name; other users' processes can't be looked into."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for one in all_processes():
        try:
            for handle in os.listdir(f"/proc/{one.pid}/fd"):
                if os.readlink(f"/proc/{one.pid}/fd/{handle}") in wanted:
                    return one.name()
        except OSError:
            continue
    return "a process of another user"
