"""One worker process as the front sees it: start it, send frames, hear its messages, notice its end."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from fleet_agent.crossing import frame
from fleet_agent.crossing.area import Area, open_area

_STOP_S = 2.0


class WorkerLink(asyncio.Protocol):
    """The front's end of the socket to a worker. `on_message` gets each message, `ended` is set at its end.

    `area` is the memory shared with it, from `start` on.
    """

    def __init__(self, on_message: Callable[[Any], None]) -> None:
        self._on_message = on_message
        self._decoder = frame.Decoder()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.area: Area | None = None
        self.ended = asyncio.Event()
        self.fault: str | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self, device: str, threads: int, memory_bound: int) -> None:
        """Start the process, in the front's own process group. Raises OSError where that can't be done."""
        shared = open_area()
        ours, theirs = socket.socketpair()
        try:
            self.area = Area(shared, front=True)
            # -P: a file in the working folder must not stand in for a library. Its stdout is our stderr, since ours
            # is data.
            numbers = (theirs.fileno(), shared, os.getpid())
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "fleet_agent.worker",
                *map(str, (*numbers, device, threads, memory_bound)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=[theirs.fileno(), shared],
            )
            ours.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(shared)

    def send(self, message: object) -> None:
        """Queue a message; nothing happens once the worker is gone (its end is noticed elsewhere)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(frame.encode(message))

    def finish(self) -> None:
        """The worker ends by itself, once it has done what was sent."""
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def is_stopped(self) -> bool:
        """Whether the process was stopped by a signal (state T of /proc/PID/stat), so that it can't go on by itself."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    async def reap(self) -> str:
        """Wait for the process, by force after two seconds; answers how it ended."""
        if self._transport is not None:
            self._transport.close()
        if self._process is None:
            return "never started"
        try:
            async with asyncio.timeout(_STOP_S):
                status = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            status = await self._process.wait()
        if self.fault is not None:
            return self.fault
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports are none of asyncio's by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._on_message(message)
        except (
            pickle.UnpicklingError,
            EOFError,
            ValueError,
            TypeError,
            AttributeError,
            ImportError,
            IndexError,
        ) as error:
            self.fault = f"sent something unreadable ({error})"
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
