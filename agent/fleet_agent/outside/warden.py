"""The process between the agent and an engine: it starts the engine, and nothing of it outlives the agent.

Run as a file, by `python -I -S warden.py`; standard library only, so that it starts at once and stays small. Linux.

stdin   one line {"argv", "env", "folder"}, then lines "stop SIGNAL SECONDS"; its end: the agent is gone, however that
        came, and all is killed
stdout  one line {"pid"} or {"error"}; later {"ended": status as subprocess tells it}
stderr  what the engine writes, to stdout or stderr

The engine's processes are all that descend from the warden. It is their subreaper (prctl(2)), so that one which forked
twice and left its session comes back to it instead of to init. A stop is sent to each of them once; what is left after
the grace, or when the first process ended without being asked to, is killed. Should the warden itself be killed, the
engine's first process is killed by the kernel (its parent-death signal), and the agent looks for the others.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.02
_GIVE_UP_S = 20.0


class Warden:
    """One engine. `run` returns when nothing is left of it."""

    def __init__(self, libc: ctypes.CDLL, wakes: int) -> None:
        """`wakes`: a file descriptor that can be read when a child ended."""
        self._libc = libc
        self._wakes = wakes
        self._read = b""
        self._first = 0
        self._stop_until: float | None = None

    def run(self) -> int:
        line = self._line()
        if line is None:
            return 0
        order = json.loads(line)
        try:
            self._first = self._started(order)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            tell({"error": f"{order['argv'][0]!r} can't be run: {error}"})
            return 1
        tell({"pid": self._first})
        while self._first or (self._stop_until is not None and descendants()):
            wait = None if self._stop_until is None else _PAUSE_S
            ready, _, _ = select.select([0, self._wakes], [], [], wait)
            if self._wakes in ready:
                os.read(self._wakes, 512)
            if 0 in ready and not self._heard():
                break
            self._reap()
            if self._stop_until is not None and time.monotonic() >= self._stop_until:
                break
        return self._end()

    def _started(self, order: dict[str, Any]) -> int:
        def tied() -> None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        engine = subprocess.Popen(
            order["argv"],
            env=order["env"],
            cwd=order["folder"],
            stdin=subprocess.DEVNULL,
            stdout=2,
            stderr=2,
            start_new_session=True,
            preexec_fn=tied,
        )
        return engine.pid

    def _line(self) -> bytes | None:
        """The next line of stdin; None at its end."""
        while b"\n" not in self._read:
            data = os.read(0, 65536)
            if not data:
                return None
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _heard(self) -> bool:
        """Do what the agent says; False: there is no agent any more."""
        line = self._line()
        while line is not None:
            _, signum, seconds = line.split()
            self._stop_until = time.monotonic() + float(seconds)
            for pid in descendants():
                send(pid, int(signum))
            if b"\n" not in self._read:
                return True
            line = self._line()
        return False

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._first:
                self._first = 0
                tell({"ended": os.waitstatus_to_exitcode(status)})

    def _end(self) -> int:
        """Kill what is left, until nothing is."""
        until = time.monotonic() + _GIVE_UP_S
        while left := descendants():
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)
            self._reap()
            if time.monotonic() >= until:
                os.write(2, f"still there after SIGKILL: {sorted(left)}\n".encode())
                return 1
        self._reap()
        return 0


def descendants() -> set[int]:
    """All processes below this one that are not zombies."""
    children: dict[int, list[int]] = {}
    dead = set()
    for entry in os.scandir("/proc"):
        name = entry.name
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:  # noqa: PTH123 - pathlib would double the time of a start
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            children.setdefault(int(parent), []).append(int(name))
            if state in "ZX":
                dead.add(int(name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            found.add(pid)
            waiting.append(pid)
    return found - dead


def send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def tell(event: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(event).encode() + b"\n")


def main() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.setsid()  # a signal to the agent's group is the agent's to pass on
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    # Handlers rather than SIG_IGN, which the engine would inherit.
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda signum, frame: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return Warden(libc, wakes).run()


if __name__ == "__main__":
    sys.exit(main())
