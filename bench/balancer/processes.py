"""Processes of the benchmark: which core they have, when they serve, what they cost."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def pinned(core: int) -> list[str]:
    """The words before a command that give it one core, where there are two and taskset."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 and shutil.which("taskset") else []


@contextlib.contextmanager
def running(
    core: int, command: list[str], port: int, timeout_s: float = 15.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, once it answers on `port` with anything but "no host yet". Raises RuntimeError."""
    process = subprocess.Popen([*pinned(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + timeout_s
        while not serves(port):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                said = process.communicate()[1].decode(errors="replace").strip().splitlines()
                raise RuntimeError(f"{Path(command[0]).name} does not serve: {said[-1] if said else ''}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def serves(port: int) -> bool:
    """Whether something answers there, and knows its hosts (503: not yet; 401: it wants a key, which will do)."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 503
    except (OSError, ValueError):
        return False


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children that run now (nginx works in a child)."""
    total = 0.0
    for other in [pid, *children(pid)]:
        fields = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children now, in MB (10^6 bytes)."""
    total = 0
    for other in [pid, *children(pid)]:
        for line in Path(f"/proc/{other}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total / 1e6


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
