"""An engine's processes as the agent has them: started by a warden, stopped or killed through it, and proved gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fleet_agent.outside import warden
from fleet_agent.outside.order import Order

MARKER = "FLEET_AGENT_ENGINE"
_START_S = 30.0
_KILL_S = 30.0


class EngineProcess:
    """`start` it, wait for `ended`, `reap` it. `on_output` gets what it writes, as it comes."""

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self.pid: int | None = None
        self.ended = asyncio.Event()
        self._on_output = on_output
        self._warden: asyncio.subprocess.Process | None = None
        self._how: str | None = None
        self._reading: asyncio.Task[None] | None = None
        self._output: int | None = None
        self._quiet = asyncio.Event()
        self._mark = os.urandom(12).hex()

    @property
    def how(self) -> str:
        """How it ended, as far as it is known."""
        return self._how or "ended, for its warden was killed"

    async def start(self, order: Order) -> None:
        """Raises OSError with what is wrong with the command."""
        # A pipe of our own: uvloop's are socket pairs, and no program can open its /dev/stderr if that is a socket.
        self._output, theirs = os.pipe()
        os.set_blocking(self._output, False)
        asyncio.get_running_loop().add_reader(self._output, self._listen)
        try:
            self._warden = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                warden.__file__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=theirs,
            )
        finally:
            os.close(theirs)
        env = order.env | {MARKER: self._mark}
        self._say(json.dumps({"argv": order.argv, "env": env, "folder": order.folder}))
        started: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._events(started))
        try:
            async with asyncio.timeout(_START_S):
                fault = await started
        except TimeoutError:
            fault = f"its start took longer than {_START_S:.0f} s"
        if fault is not None:
            raise OSError(fault)

    def stop(self, signum: int, grace_s: float) -> None:
        """Ask all of it to end; what is left after the grace is killed."""
        self._say(f"stop {signum} {grace_s}")

    def kill(self, reason: str) -> None:
        """End all of it, whatever it does. `reason` is how it ended, then."""
        if self._how is None:
            self._how = reason
        self.stop(signal.SIGKILL, 0.0)

    async def reap(self, within_s: float = 0.0) -> str:
        """Wait until nothing is left, by force after `within_s` and some more seconds; how its first process ended."""
        if self._warden is None:
            self._hang_up()
            return "never started"
        if self._warden.stdin is not None:
            with contextlib.suppress(OSError):
                if self._how is not None or self.ended.is_set():
                    self._warden.stdin.close()
        try:
            async with asyncio.timeout(within_s + _KILL_S):
                await self._warden.wait()
        except TimeoutError:
            self._warden.kill()
            await self._warden.wait()
        # The rest of the output, unless a process that hid from the warden keeps the pipe open.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._quiet.wait()
        self._hang_up()
        if self._reading is not None:
            await self._reading
        for pid in marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.ended.set()
        return self.how

    def is_stopped(self) -> bool:
        """Whether its first process was stopped by a signal (state T of /proc/PID/stat)."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def pids(self) -> set[int]:
        """All of its processes that can be found."""
        return set(marked(self._mark))

    def _say(self, line: str) -> None:
        assert self._warden is not None
        assert self._warden.stdin is not None
        if not self._warden.stdin.is_closing():
            self._warden.stdin.write(line.encode() + b"\n")

    def _listen(self) -> None:
        """Some output came, or its end."""
        assert self._output is not None
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        if data:
            self._on_output(data)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        self._quiet.set()
        if self._output is not None:
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._output = None

    async def _events(self, started: asyncio.Future[str | None]) -> None:
        assert self._warden is not None
        assert self._warden.stdout is not None
        fault: str | None = "its warden ended at once"
        try:
            while line := await self._warden.stdout.readline():
                event = json.loads(line)
                if "pid" in event:
                    self.pid, fault = event["pid"], None
                elif "error" in event:
                    fault = event["error"]
                elif self._how is None:
                    self._how = _ending(event["ended"])
                if not started.done():
                    started.set_result(fault)
                if "ended" in event:
                    self.ended.set()
        finally:
            if not started.done():
                started.set_result(fault)
            self.ended.set()


def marked(mark: str) -> list[int]:
    """The living processes that have the mark in their environment."""
    wanted = f"{MARKER}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _ending(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
