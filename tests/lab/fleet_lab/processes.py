"""Processes of this machine, as /proc tells them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    start_ticks: int
    command: str

    def alive(self) -> bool:
        now = look(self.pid)
        return now is not None and now.start_ticks == self.start_ticks

    def send(self, number: int) -> None:
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


def look(pid: int) -> Process | None:
    """None where there is none, or only a zombie."""
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_text()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[19]), command)


def everyone() -> list[Process]:
    found = (look(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [process for process in found if process is not None]


def tree(root: int) -> list[Process]:
    """`root` and everything below it."""
    processes = everyone()
    members = {root}
    grown = True
    while grown:
        below = {process.pid for process in processes if process.parent in members} - members
        members |= below
        grown = bool(below)
    return [process for process in processes if process.pid in members]


def marked(mark: str) -> list[Process]:
    """Processes whose environment has exactly this NAME=VALUE."""
    found = []
    for process in everyone():
        try:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in environ:
            found.append(process)
    return found


def end(processes: Iterable[Process], timeout_s: float = 10) -> None:
    """Kill them; returns when they are gone. Raises TimeoutError naming those that stay."""
    processes = list(processes)
    for process in processes:
        process.send(signal.SIGKILL)
        process.send(signal.SIGCONT)
    until = time.monotonic() + timeout_s
    while left := [process for process in processes if process.alive()]:
        if time.monotonic() > until:
            raise TimeoutError(f"still alive after SIGKILL: {left}")
        time.sleep(0.01)
