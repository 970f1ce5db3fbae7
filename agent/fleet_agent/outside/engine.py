"""One outside engine: its process kept alive, its health and figures asked, its calls counted and let in."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from fleet_agent.outside.figures import Figures, read
from fleet_agent.outside.gate import Gate
from fleet_agent.outside.life import Life
from fleet_agent.outside.memory import MemoryOfProcesses
from fleet_agent.outside.order import HOST, BadCommand, Order, health_url, order
from fleet_agent.outside.process import EngineProcess
from fleet_agent.outside.words import Words
from fleet_agent.served.counters import Counters
from fleet_wire.agent import ModelConfig, ModelStatus
from fleet_wire.command import EngineStatus
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal

log = logging.getLogger("fleet_agent.outside")

_STARTING_S = 0.25
_WATCH_S = 0.5
_HEALTH_TIMEOUT_S = 5.0
_METRICS_S = 2.0
_MOST_METRICS = 8 * 1024 * 1024


class Underway(Protocol):
    """A call in the engine or waiting for it."""

    def cut(self, why: Refusal) -> None:
        """End it now."""


class OutsideEngine:
    """`start` it, look at `ready`; relay.py takes its calls; `stop` it. All of it in one event loop."""

    def __init__(self, config: ModelConfig, device: str, hang_timeout_s: float, nvml: Any) -> None:
        """`nvml`: the pynvml module, or None where it isn't installed."""
        assert config.command is not None
        self.config = config
        self.command = config.command
        self.counters = Counters()
        self.first_piece = LatencyHistogram()
        self.version_header = (b"x-fleet-model-version", config.version.encode("latin-1", "replace"))
        self.gate = Gate(config.name, config.command.max_in_flight, config.max_queue_size)
        self.life = Life(
            config.name, config.command.start_timeout_s, config.command.hang_timeout_s or hang_timeout_s
        )
        self.figures = Figures()
        self.underway: set[Underway] = set()
        self.load_s: float | None = None
        self.session: aiohttp.ClientSession | None = None
        self.address = ""
        self._device = device
        self._memory = MemoryOfProcesses(nvml, self._pids) if nvml is not None and "cuda" in device else None
        self._words = Words()
        self._process: EngineProcess | None = None
        self._order: Order | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._hung = False
        self._numbers = itertools.count(1)
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._busy_s = 0.0
        self._busy_at = time.monotonic()

    # What it says about itself

    @property
    def ready(self) -> bool:
        return self.life.ready

    @property
    def failed(self) -> bool:
        return self.life.state == "failed"

    @property
    def queued(self) -> int:
        """Requests that wait, here or in the engine."""
        return self.gate.waiting + min(self.gate.inside, int(self.figures.waiting or 0))

    @property
    def in_flight(self) -> int:
        """Requests that are computed now."""
        return self.gate.inside - min(self.gate.inside, int(self.figures.waiting or 0))

    def reason(self) -> str | None:
        """Why it takes no calls, with its last words; None: it does."""
        reason = self.life.reason(time.monotonic())
        said = self._words.last()
        return f"{reason}; it last said: {said}" if reason and said else reason

    def busy_s(self) -> float:
        """Seconds of full use: the share of its places that are taken, or of its cache if that is more, over time."""
        self._account()
        return self._busy_s

    @property
    def measured_bytes(self) -> int | None:
        """Device memory that its processes hold, by NVML; None: unknown."""
        return None if self._memory is None else self._memory.read()

    def _pids(self) -> set[int]:
        return set() if self._process is None else self._process.pids()

    def status(self, takes: bool) -> ModelStatus:
        """`takes`: the agent takes calls."""
        process = self._process
        return ModelStatus(
            name=self.config.name,
            version=self.config.version,
            ready=self.ready and takes,
            error=self.reason() if self.failed else None,
            queued=self.queued,
            in_flight=self.in_flight,
            max_batch_size=self.command.max_in_flight,
            device_memory_bytes=self.measured_bytes
            if self.measured_bytes is not None
            else self.config.device_memory_bytes,
            items=self.counters.items,
            completed=self.counters.completed,
            engine=EngineStatus(
                state=self.life.state,
                pid=None if process is None else process.pid,
                port=None if self._order is None else self._order.port,
                restarts=self.life.restarts,
                hangs=self.life.hangs,
                waiting=self.figures.waiting,
                running=self.figures.running,
                cache_use=self.figures.cache_use,
            ),
        )

    # Calls

    def check(self) -> None:
        """Raises Refusal `unavailable` while it takes no calls."""
        if not self.ready:
            raise Refusal("unavailable", self.reason() or "it is not ready", 1.0)

    async def enter(self, deadline: float | None, priority: int) -> None:
        """Returns when the call may go to the engine; it then holds a place until `leave`. Raises Refusal."""
        self.check()
        number = next(self._numbers)
        self._account()
        if self.gate.enter(number, time.monotonic(), deadline, priority):
            return
        turn = self._turns[number] = asyncio.get_running_loop().create_future()
        try:
            await turn
        except asyncio.CancelledError:
            if not self.gate.cancel(number):
                self.leave(None)  # its turn had just come
            raise
        finally:
            self._turns.pop(number, None)

    def leave(self, held_s: float | None) -> None:
        """A call gives its place back."""
        self._account()
        following = self.gate.leave(held_s)
        turn = None if following is None else self._turns.get(following)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def moved(self) -> None:
        """A piece of an answer came."""
        self.life.moved(time.monotonic())

    # Its process

    def start(self) -> None:
        """Returns at once."""
        self.session = aiohttp.ClientSession(
            # Kept shorter than servers keep theirs: a POST on a connection that was just closed can't be sent again.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=1.5),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=65536,
            max_field_size=65536,
        )
        if self._memory is not None:
            self._memory.start()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Refuse what is still here, ask the engine to end, and wait until nothing is left of it."""
        self._cut(Refusal("unavailable", "this server is stopping", 1.0))
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None:
            grace = self.command.stop_grace_s
            self._process.stop(signal.Signals[self.command.stop_signal], grace)
            await self._gone(self._process, grace)
        self.life.stopped()
        if self._memory is not None:
            self._memory.stop()
        if self.session is not None:
            await self.session.close()

    async def _keep(self) -> None:
        """Keep it running, again and again, until cancelled."""
        first = time.monotonic()
        while True:
            try:
                how = await self._one_life(first)
            except BadCommand as error:
                self.life.broken(str(error))
                log.error("%s", error)
                return
            self.figures = Figures()
            delay = self.life.ended(time.monotonic(), how, self._hung)
            log.error("%s", self.reason())
            self._lose(how)
            if delay is None:
                return
            await asyncio.sleep(delay)

    async def _one_life(self, first: float) -> str:
        """From its start to its end; how it ended."""
        self._hung = False
        self._words = Words()
        self._order = made = self._made()
        self.address = f"http://{HOST}:{made.port}"
        process = EngineProcess(self._wrote)
        self.life.started(time.monotonic())
        log.info("starting the engine of model %s: %s", self.config.name, " ".join(made.argv)[:500])
        self._process = process
        try:
            await process.start(made)
        except OSError as error:
            await process.reap()
            return f"can't be started: {error}"
        asking = asyncio.create_task(self._ask_figures(made))
        try:
            await self._watch(process, first)
        finally:
            asking.cancel()
        self._lose(process.how)
        how = await self._gone(process, 0.0)
        self._process = None
        return how

    def _made(self) -> Order:
        """The order with ports that are free now. Raises BadCommand."""
        if self.command.port and not _is_free(self.command.port):
            raise BadCommand(
                f"model {self.config.name}: port {self.command.port} is taken by another process; end that, or write "
                "port: auto"
            )
        port, metrics_port = _free_ports()
        return order(
            self.config,
            os.environ,
            device=self._device,
            python=sys.executable,
            has_folder=Path(self.config.path).is_dir(),
            port=self.command.port or port,
            metrics_port=metrics_port,
        )

    async def _watch(self, process: EngineProcess, first: float) -> None:
        """Until it ended, or has to be killed: is it well? A health path that answers late holds up nothing here."""
        ended = asyncio.create_task(process.ended.wait())
        asking: asyncio.Task[tuple[str | None, bool]] | None = None
        due = now = time.monotonic()
        try:
            while not process.ended.is_set():
                if asking is None and now >= due:
                    asking = asyncio.create_task(self._unwell())
                tasks: set[asyncio.Task[Any]] = {ended} if asking is None else {ended, asking}
                wait = _WATCH_S if asking is not None else min(_WATCH_S, due - now)
                await asyncio.wait(tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                now = time.monotonic()
                if asking is not None and asking.done():
                    self._asked(*asking.result(), now, first)
                    asking = None
                    interval = self.command.health_interval_s
                    due = now + (min(_STARTING_S, interval) if self.life.state == "starting" else interval)
                self.life.paused(now, process.is_stopped())
                doom = self.life.doomed(now)
                if doom is not None:
                    self._hung = True
                    log.error("the engine of model %s %s", self.config.name, doom)
                    process.kill(doom)
                    return
        finally:
            ended.cancel()
            if asking is not None:
                asking.cancel()

    def _asked(self, why: str | None, silent: bool, now: float, first: float) -> None:
        """What the health path said, see `_unwell`."""
        if why is not None:
            self.life.refused(now, why, silent)
        elif self.life.answered(now):
            self.load_s = self.load_s or now - first
            log.info("the engine of model %s is ready on port %d", self.config.name, self._port())

    async def _gone(self, process: EngineProcess, grace_s: float) -> str:
        """Wait for its end, also when this is cancelled meanwhile."""
        reaping = asyncio.ensure_future(process.reap(grace_s))
        try:
            return await asyncio.shield(reaping)
        except asyncio.CancelledError:
            await reaping
            raise

    async def _unwell(self) -> tuple[str | None, bool]:
        """Ask the health path: None where all is well, else why not, and whether nothing answered at all."""
        assert self.session is not None
        timeout = aiohttp.ClientTimeout(total=min(_HEALTH_TIMEOUT_S, self.life.ask_within_s))
        path = self.command.health
        try:
            async with self.session.get(health_url(self.command, self._port()), timeout=timeout) as answer:
                if 200 <= answer.status < 300:
                    return None, False
                return f"{path} answers {answer.status}", False
        except TimeoutError:
            return f"{path} does not answer", True
        except aiohttp.ClientConnectorError:
            return f"nothing listens on port {self._port()} yet", True
        except aiohttp.ClientError as error:
            return f"{path}: {error or type(error).__name__}", True

    async def _ask_figures(self, made: Order) -> None:
        """Its own figures, every two seconds while it is ready."""
        names = self.command.metrics
        if names is None:
            return
        assert self.session is not None
        timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
        told = False
        while True:
            await asyncio.sleep(min(_METRICS_S, 2 * self.command.health_interval_s))
            if not self.ready:
                continue
            try:
                async with self.session.get(
                    f"http://{HOST}:{made.metrics_port}{names.path}", timeout=timeout
                ) as answer:
                    text = (await answer.content.read(_MOST_METRICS)).decode("utf-8", "replace")
                    if answer.status != 200:
                        raise ValueError(f"it answers {answer.status}")
                self._account()
                self.figures = read(text, names)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self.figures = Figures()
                if not told:
                    log.warning("model %s: %s gives no figures: %s", self.config.name, names.path, error)
                told = True

    def _wrote(self, data: bytes) -> None:
        for line in self._words.feed(data, time.monotonic()):
            log.info("[%s] %s", self.config.name, line)

    def _cut(self, why: Refusal) -> None:
        """All calls end here, also those that only wait."""
        for call in list(self.underway):
            call.cut(why)

    def _lose(self, how: str) -> None:
        """It is gone, or will be: its calls are answered now. A process that hangs in a driver may take long to die."""
        self.life.refused(time.monotonic(), how, silent=False)
        message = (
            f"the engine of model {self.config.name} {how} before it had answered; this may be sent again"
        )
        self._cut(Refusal("unavailable", message, 1.0))

    def _port(self) -> int:
        assert self._order is not None
        return self._order.port

    def _account(self) -> None:
        now = time.monotonic()
        if self.gate.inside:
            share = max(self.gate.inside / self.gate.most_in, self.figures.cache_use or 0.0)
            self._busy_s += (now - self._busy_at) * min(1.0, share)
        self._busy_at = now


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody has now. Both are held while they are looked for, so that they differ."""
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
