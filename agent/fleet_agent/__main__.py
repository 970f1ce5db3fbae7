"""`fleet-agent`: one host's server, from a configuration file (what the controller starts) or from flags.

Exit codes: 0 drained, 1 the second signal cut it short, 2 the configuration can't be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Generator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from fleet_agent.engine.engine import Engine
from fleet_agent.front.hot import protocol_for
from fleet_agent.front.server import Front
from fleet_agent.process.configuration import BadConfig, configured, token_of
from fleet_agent.process.listener import announce, bound
from fleet_agent.process.logs import log_to_stderr
from fleet_agent.tracing.wish import wanted
from fleet_wire.agent import AgentConfig

if TYPE_CHECKING:
    from fleet_agent.tracing.traces import Traces

log = logging.getLogger("fleet_agent")

_KEEP_ALIVE_S = 75
_FLUSH_S = 5


def main(argv: Sequence[str] | None = None) -> int:
    try:
        config = configured(argv)
        token = token_of(config)
        listener = bound(config.listen, token)
    except BadConfig as error:
        print(f"fleet-agent: {error}", file=sys.stderr)  # noqa: T201 - the log isn't set up yet
        return 2
    log_to_stderr(config.host or socket.gethostname())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, token, listener))


class _Server(uvicorn.Server):
    """Signals are ours: they mean drain, not uvicorn's shutdown."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


async def _serve(config: AgentConfig, token: str | None, listener: socket.socket) -> int:
    engine = Engine(config, _nvml())
    engine.traces = _traces(config)
    front = Front(engine, token)
    server = _Server(
        uvicorn.Config(
            front,
            http=protocol_for(front),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_FLUSH_S,
        )
    )
    stop = asyncio.Event()
    hurry = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _heard, signum, stop, hurry)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await _first(server.is_up.wait(), serving)
    announce(config, listener)
    engine.start()
    # What is there now stays: a full collection need not look at it while requests wait.
    gc.freeze()
    await _first(stop.wait(), serving)
    await _drain(engine, front, hurry, config.drain_timeout_s)
    await engine.stop()
    server.should_exit = True
    server.force_exit = hurry.is_set()
    await serving
    if engine.traces is not None:
        await asyncio.to_thread(engine.traces.close)
    return 1 if hurry.is_set() else 0


async def _drain(engine: Engine, front: Front, hurry: asyncio.Event, seconds: float) -> None:
    """Refuse what is new, finish what is here, until the time is up or a second signal comes."""
    engine.draining = True
    log.info("draining: %d requests in flight, at most %.0f s", front.active, seconds)
    try:
        async with asyncio.timeout(seconds):
            await _first(front.quiet.wait(), hurry.wait())
    except TimeoutError:
        log.warning("drain_timeout_s is over with %d requests in flight; they are refused", front.active)


async def _first(*waits: asyncio.Task[None] | Coroutine[Any, Any, object]) -> None:
    """Returns when one of them is done; the coroutines among the others are cancelled, tasks go on."""
    tasks = [wait if isinstance(wait, asyncio.Task) else asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait:
                task.cancel()


def _heard(signum: int, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    if stop.is_set():
        log.warning("second signal: stopping at once")
        hurry.set()
    stop.set()


def _traces(config: AgentConfig) -> Traces | None:
    if not wanted(config.telemetry, os.environ):
        return None
    try:
        from fleet_agent.tracing.traces import traces  # costs nothing where it isn't wanted
    except ImportError as error:
        log.error(
            "no traces: %s; install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http", error
        )
        return None
    return traces(config)


def _nvml() -> ModuleType | None:
    try:
        import pynvml  # absent on machines without the library, which is a fact to report
    except ImportError:
        return None
    module: ModuleType = pynvml
    return module


if __name__ == "__main__":
    sys.exit(main())
