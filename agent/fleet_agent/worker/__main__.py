"""Starts the worker of one device, as the front says in its arguments (crew/link.py)."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence

# torch makes a million objects that stay: looking through them again and again takes a fifth of its import.
gc.disable()

import torch  # noqa: E402

from fleet_agent.crossing.area import Area  # noqa: E402
from fleet_agent.worker.worker import DeviceBroken, Worker  # noqa: E402

gc.enable()

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str]) -> int:
    """`FD AREA PARENT DEVICE THREADS MEMORY`: socket, shared area, the front's pid, device, torch threads (0: its own),
    byte bound."""
    fd, shared, parent, device = int(argv[0]), int(argv[1]), int(argv[2]), argv[3]
    threads, memory = int(argv[4]), int(argv[5])
    _die_with(parent)
    area = Area(shared, front=False)
    os.close(shared)
    # The controller signals the whole process group; when to stop is the front's to say. Handlers rather than
    # SIG_IGN, since the latter would be inherited by whatever a model starts.
    signal.signal(signal.SIGTERM, _heard)
    signal.signal(signal.SIGINT, _heard)
    _give_way()
    if threads:
        torch.set_num_threads(threads)
    with socket.socket(fileno=fd) as link:
        worker = Worker(link, area, device, memory)
        status = 0
        try:
            worker.serve()
        except (EOFError, ConnectionError):
            pass
        except DeviceBroken as error:
            print(f"the device can't be used any more: {error}", file=sys.stderr)  # noqa: T201 - the front's log
            status = 1
        if worker.loading:
            os._exit(
                status
            )  # a thread can't be ended, and must not compute while the interpreter is taken down
    return status


def _heard(signum: int, stack: object) -> None:
    pass


def _give_way() -> None:
    """On a core that it shares with the front, a batch begins when the front has read and sent what there is, instead
    of in the middle of that: the two change places less often. Source: sched(7), SCHED_BATCH."""
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) == 1:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _die_with(parent: int) -> None:
    """Linux kills this process when the front dies. Source: prctl(2); the check closes the race it describes."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the front is gone already")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
