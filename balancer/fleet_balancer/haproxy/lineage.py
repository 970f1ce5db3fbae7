"""HAProxy's processes: the present one, and those before it that finish what they have.

Each is started on the files in the folder. One that dies is followed by another; the listening sockets are ours, so
connections wait in the kernel meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping

from fleet_balancer.haproxy.api import ApiError
from fleet_balancer.haproxy.binary import Binary
from fleet_balancer.haproxy.folder import Folder
from fleet_balancer.haproxy.process import HaproxyProcess, StartFailed, check

log = logging.getLogger(__name__)

# Pauses before HAProxy is started again where it keeps dying.
AGAIN_S = (0.0, 0.1, 0.5, 2.0, 5.0)
SETTLED_S = 10.0
END_S = 2.0


class Lineage:
    """`settle` puts every host in its place in a process that has just come up (it raises ApiError); `heard` gets log
    lines."""

    def __init__(
        self,
        binary: Binary,
        folder: Folder,
        settle: Callable[[HaproxyProcess], Awaitable[None]],
        heard: Callable[[list[str]], None],
    ) -> None:
        self.current: HaproxyProcess | None = None
        self.restarts = 0
        self.sockets: list[socket.socket] = []
        self._binary = binary
        self._folder = folder
        self._settle = settle
        self._heard = heard
        self._old: list[HaproxyProcess] = []
        self._number = 0

    @property
    def all(self) -> list[HaproxyProcess]:
        return [process for process in (self.current, *self._old) if process is not None]

    @property
    def alive(self) -> HaproxyProcess | None:
        """The present one, unless it has died."""
        return None if self.current is None or self.current.ended.is_set() else self.current

    async def judge(self, file: str) -> None:
        """Raises StartFailed where HAProxy would not run with `file`."""
        await check(self._binary.path, self._folder.path, file, self._descriptors())

    async def begin(self) -> None:
        """Start the first one. Raises StartFailed, OSError."""
        self.current = await self._launched()

    async def succeed(self, maps: Mapping[str, Mapping[str, str]]) -> None:
        """A new process takes the place of the present one, which finishes what it has. Raises StartFailed, OSError."""
        fresh = await self._launched()
        before, self.current = self.current, fresh
        if before is not None and not before.ended.is_set():
            self._old.append(before)
            before.drain()
            await _tell_the_old(before, maps)

    async def keep_alive(self, changing: asyncio.Lock, lost: Callable[[HaproxyProcess], None]) -> None:
        """Start HAProxy again where it died. `lost` is told of the dead one; `changing` is held meanwhile."""
        deaths = 0
        while True:
            process = self.current
            if process is None:
                raise AssertionError("not started")
            began = time.monotonic()
            await process.ended.wait()
            async with changing:
                if process is not self.current:
                    continue
                lost(process)
                deaths = 0 if time.monotonic() - began > SETTLED_S else deaths + 1
                log.error("HAProxy died; it is started again")
                await asyncio.sleep(AGAIN_S[min(deaths, len(AGAIN_S) - 1)] if deaths > 1 else 0.0)
                try:
                    self.current = await self._launched()
                    self.restarts += 1
                except (StartFailed, OSError) as error:
                    log.error("HAProxy does not come up: %s", error)
                    await asyncio.sleep(AGAIN_S[-1])

    def retire(self) -> None:
        """Old processes that have nothing left to do."""
        for process in list(self._old):
            if process.ended.is_set():
                self._old.remove(process)
            elif not process.busy and not process.api.closed:
                # It goes on until its idle clients have come back, or left; our connection would keep it for ever.
                process.api.close()

    async def finish(self, grace_s: float, idle_s: float, timeout_s: float) -> bool:
        """Let all of them finish; False where that took longer than `grace_s` and was cut off."""
        finished = all(
            await asyncio.gather(*(_finish(process, grace_s, idle_s, timeout_s) for process in self.all))
        )
        self.current, self._old = None, []
        return finished

    def _descriptors(self) -> list[int]:
        return [one.fileno() for one in self.sockets]

    async def _launched(self) -> HaproxyProcess:
        """A new process on the files as they are, with every host in its place. Raises StartFailed."""
        self._number += 1
        process = await HaproxyProcess.start(
            self._binary.path, self._folder.path, self._number, self._descriptors(), self._heard
        )
        try:
            await self._settle(process)
        except ApiError as error:
            process.kill()
            raise StartFailed(str(error)) from None
        return process


async def _tell_the_old(process: HaproxyProcess, maps: Mapping[str, Mapping[str, str]]) -> None:
    """Kept connections ask a process that ends once more: keys that were revoked are revoked there too."""
    for file, entries in maps.items():
        try:
            await process.api.replace_map(file, entries)
        except ApiError:
            continue  # its configuration does not use that map, or it has ended


async def _finish(process: HaproxyProcess, grace_s: float, idle_s: float, timeout_s: float) -> bool:
    """Let one process finish. Idle clients keep it until they ask again; they get `idle_s`."""
    until = time.monotonic() + grace_s
    process.drain()
    finished = True
    while not process.ended.is_set():
        try:
            await process.ask(timeout_s)
        except ApiError:
            break
        if not process.busy:
            break
        if time.monotonic() >= until:
            finished = False
            break
        await asyncio.sleep(0.02)
    process.api.close()
    if finished and idle_s > 0:
        try:
            async with asyncio.timeout(max(0.0, min(idle_s, until - time.monotonic()))):
                await process.ended.wait()
        except TimeoutError:
            pass
    process.terminate()
    await process.end(END_S)
    return finished
