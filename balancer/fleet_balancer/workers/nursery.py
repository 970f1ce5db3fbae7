"""Where workers come from: a process that has loaded the program and does nothing but fork (as Android's zygote does).

It is forked off before the supervisor has a loop or a thread, which a fork would tear apart. A worker so begins in a
few milliseconds instead of half a second of imports, and shares the program's memory with the others.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

# How long a fork may take.
PATIENCE_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)

# What a child does: given its request and its descriptors, the exit status.
Work = Callable[[dict[str, Any], Sequence[int]], int]


class Nursery:
    """open() before any loop, thread or listening socket; it ends with the process that opened it."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    @classmethod
    def open(cls, work: Work) -> Nursery:
        ours, its = socket.socketpair()
        if os.fork() == 0:
            _tend(its.detach(), work)
        its.close()
        ours.settimeout(PATIENCE_S)
        return cls(ours)

    def bear(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Fork a child that does its work with copies of `descriptors`; its pid. Raises OSError where none can be."""
        socket.send_fds(self.end, [json.dumps(request).encode()], descriptors)
        answer = self.end.recv(64)
        if not answer:
            raise OSError("the process that starts workers is gone")
        pid = int(answer)
        if not pid:
            raise OSError("no process could be started")
        return pid


def _tend(descriptor: int, work: Work) -> None:
    """The nursery's own life; never returns."""
    # What this process was started with, listening sockets for one, must not stay open here.
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all; the supervisor decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: they leave nothing behind
    end = socket.socket(fileno=descriptor)
    while True:
        try:
            request, descriptors, _, _ = socket.recv_fds(end, 64 * 1024, 253)
        except OSError:
            request = b""
        if not request:
            os._exit(0)
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            end.close()
            _be_born(json.loads(request), descriptors, work)
        for one in descriptors:
            os.close(one)
        end.send(str(max(0, pid)).encode())


def _be_born(request: dict[str, Any], descriptors: Sequence[int], work: Work) -> None:
    """A child's life; never returns, for the stack below is the nursery's."""
    for number in (*_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    try:
        status = work(request, descriptors)
    except BaseException:
        # The last frame of this process: whatever it was, it is told and not carried into the nursery's loop.
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)
