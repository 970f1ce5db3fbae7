"""One HAProxy process, from its start to its last log line."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from fleet_balancer.haproxy.api import Api, ApiError
from fleet_balancer.haproxy.rows import BACKEND, Row, read_rows
from fleet_balancer.haproxy.wanted import Wanted

log = logging.getLogger(__name__)

START_S = 10.0
LOOK_S = 0.005
# HAProxy drops a log line that finds the pipe full: this much is as much as anybody may have (pipe(7)).
PIPE_BYTES = 1 << 20
_BLOCK = 1 << 18
_BLOCKS_AT_ONCE = 8
_LAUNCH = str(Path(__file__).with_name("launch.py"))


class StartFailed(Exception):
    """HAProxy did not come up; str() is what it said."""


class HaproxyProcess:
    """Made by start(). `known`: what its places hold. `lines` is called with every block of whole log lines."""

    def __init__(
        self, process: asyncio.subprocess.Process, api: Api, pipe: int, lines: Callable[[list[str]], None]
    ) -> None:
        self.api = api
        self.known: dict[tuple[str, str], Wanted] = {}
        self.in_flight: dict[str, int] = {}
        self.queued: dict[str, int] = {}
        self.ended = asyncio.Event()
        self._process = process
        self._pipe = pipe
        self._lines = lines
        self._rest = b""
        self._waiting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether it had requests when it was asked last."""
        return any(self.in_flight.values()) or any(self.queued.values())

    @classmethod
    async def start(
        cls,
        program: str,
        folder: Path,
        number: int,
        sockets: Sequence[int],
        lines: Callable[[list[str]], None],
    ) -> HaproxyProcess:
        """Start one on `haproxy.cfg` in `folder`; it listens when this returns. Raises StartFailed."""
        environment = surroundings(number, sockets)
        path = folder / environment["API"]
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(reading, False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", _LAUNCH, str(os.getpid()), program, "-db", "-f", "haproxy.cfg"),
                cwd=folder,
                env=environment,
                pass_fds=sockets,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.PIPE,
                # A terminal's Ctrl-C is for the balancer, which then ends this in order.
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            raise StartFailed(f"{program}: {error}") from None
        finally:
            os.close(writing)
        said: deque[str] = deque(maxlen=20)
        hearing = asyncio.get_running_loop().create_task(_hear(process, said))
        api = await _connected(path, process)
        if api is None:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await hearing
            os.close(reading)
            raise StartFailed(alerts(said) or f"{program} ended with {process.returncode}, without a word")
        one = cls(process, api, reading, lines)
        loop = asyncio.get_running_loop()
        loop.add_reader(reading, one._read)
        one._waiting = loop.create_task(one._wait(hearing, said))
        return one

    def hear(self) -> None:
        """Take the log lines that are there: those of all that was over before HAProxy's last answer."""
        if not self.ended.is_set():
            for _ in range(_BLOCKS_AT_ONCE):
                if not self._read():
                    return

    async def do(self, commands: Sequence[str]) -> None:
        """Raises ApiError."""
        if commands:
            await self.api.do(commands)

    async def ask(self, timeout_s: float) -> list[Row]:
        """How its servers are; notes what is in flight and waits. `timeout_s`: that of a check. Raises ApiError."""
        # In this order a request that moves on meanwhile is missed rather than counted twice.
        table, waiting = await self.api.ask_all(["show stat -1 6 -1", "fleet waiting"])
        self.hear()
        rows = read_rows(table, timeout_s)
        queued = {row.pool: row.queued for row in rows if row.name == BACKEND}
        for line in waiting.splitlines():
            pool_id, _, number = line.strip().partition(" ")
            if number.isdigit():
                queued[pool_id] = queued.get(pool_id, 0) + int(number)
        self.queued = {pool: number for pool, number in queued.items() if number}
        self.in_flight = {row.name: row.in_flight for row in rows if row.name != BACKEND and row.in_flight}
        return rows

    def signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def drain(self) -> None:
        """Accept nothing new; requests in flight finish."""
        self.signal(signal.SIGUSR1)

    async def end(self, within_s: float) -> bool:
        """Wait until it has ended, and make it: False where it had to be."""
        try:
            async with asyncio.timeout(within_s):
                await self.ended.wait()
            return True
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()
            return False

    async def _wait(self, hearing: asyncio.Task[None], said: deque[str]) -> None:
        code = await self._process.wait()
        await hearing
        asyncio.get_running_loop().remove_reader(self._pipe)
        while self._read():
            pass
        os.close(self._pipe)
        self.api.close()
        if code not in (0, -signal.SIGTERM, -signal.SIGKILL):
            log.error("HAProxy (pid %d) ended with %d: %s", self.pid, code, alerts(said) or "without a word")
        self.ended.set()

    def _read(self) -> bool:
        """Take a block off the pipe; False where there was none. One a turn: others wait too."""
        try:
            block = os.read(self._pipe, _BLOCK)
        except BlockingIOError:
            return False
        if not block:
            asyncio.get_running_loop().remove_reader(self._pipe)
            return False
        whole, _, self._rest = (self._rest + block).rpartition(b"\n")
        if whole:
            self._lines(whole.decode("latin-1").split("\n"))
        return True


def surroundings(number: int, sockets: Sequence[int]) -> dict[str, str]:
    """The environment of process `number`: what the configuration's ${NAMES} stand for."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ}
    doors = {f"DOOR{n}": str(descriptor) for n, descriptor in enumerate(sockets)}
    return {**kept, "API": f"api-{number}.sock", "HOP": f"hop-{number}.sock", **doors}


async def check(program: str, folder: Path, file: str, sockets: Sequence[int]) -> None:
    """Let HAProxy judge a configuration. Raises StartFailed with what it objects to."""
    process = await asyncio.create_subprocess_exec(
        program,
        *("-c", "-f", file),
        cwd=folder,
        env=surroundings(0, sockets),
        pass_fds=sockets,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode != 0:
        raise StartFailed(
            alerts(said.decode("utf-8", "replace").splitlines()) or f"exit code {process.returncode}"
        )


def alerts(said: Sequence[str] | deque[str]) -> str:
    """What matters of HAProxy's words."""
    wrong = [line for line in said if "[ALERT]" in line]
    return "; ".join(line.partition(" : ")[2].strip() or line for line in wrong[-5:])


async def _connected(path: Path, process: asyncio.subprocess.Process) -> Api | None:
    """A connection to its runtime API; None where it ended, or took too long."""
    try:
        async with asyncio.timeout(START_S):
            while process.returncode is None:
                try:
                    return await Api.connect(path)
                except (OSError, ApiError):
                    await asyncio.sleep(LOOK_S)
    except TimeoutError:
        pass
    return None


async def _hear(process: asyncio.subprocess.Process, said: deque[str]) -> None:
    """HAProxy reports every change of a server on stderr; what matters of it is said by us, with hosts' names."""
    if process.stderr is None:
        raise AssertionError("stderr is a pipe")
    while line := await process.stderr.readline():
        said.append(line.decode("utf-8", "replace").strip())
