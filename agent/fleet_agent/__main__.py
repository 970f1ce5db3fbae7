"""`fleet-agent`: one host's server, from a configuration file (what the controller starts) or from flags.

Exit codes: 0 drained, 1 the second signal cut it short, 2 the configuration can't be used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import uvicorn
import uvloop
from pydantic import ValidationError

from fleet_agent.engine import Engine
from fleet_agent.hot import protocol_for
from fleet_agent.server import Front
from fleet_wire.agent import AgentConfig, ModelConfig, RunFile

log = logging.getLogger("fleet_agent")

_KEEP_ALIVE_S = 75
_FLUSH_S = 5


class BadConfig(Exception):
    """str() is one line: what is wrong where, and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        config = _from_file(arguments.config) if arguments.config else _from_flags(arguments)
        token = _token(config)
        listener = _bind(config.listen, token)
    except BadConfig as error:
        print(f"fleet-agent: {error}", file=sys.stderr)  # noqa: T201 - the log isn't set up yet
        return 2
    _log_to_stderr(config.host or socket.gethostname())
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
    _announce(config, listener)
    engine.start()
    await _first(stop.wait(), serving)
    await _drain(engine, front, hurry, config.drain_timeout_s)
    await engine.stop()
    server.should_exit = True
    server.force_exit = hurry.is_set()
    await serving
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


def _announce(config: AgentConfig, listener: socket.socket) -> None:
    """Where it listens, on stdout and in the run file."""
    host, port = listener.getsockname()[:2]
    if config.run_file is not None:
        run = RunFile(
            pid=os.getpid(),
            start_ticks=_start_ticks(),
            boot_id=_boot_id(),
            port=port,
            action_id=config.action_id,
            release=config.release,
        )
        _write_atomically(Path(config.run_file).expanduser(), run.model_dump_json())
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{port}", flush=True)  # noqa: T201 - the line that starters wait for
    log.info("listening on http://%s:%d", shown, port)


def _write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the whole new one, after a power cut too."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _start_ticks() -> int:
    """Field 22 of /proc/self/stat; the fields are counted after the command's closing parenthesis, which is field 2."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-agent", description="Serve torch models over HTTP, batched.")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON configuration; excludes the other flags"
    )
    parser.add_argument("--listen", metavar="H:P", help="address to listen on; port 0 takes a free one")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=DIR:module:Class", help="repeatable"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda:N, or several with commas (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="torch threads of a worker")
    parser.add_argument("--max-batch-size", type=int, default=32, metavar="N", help="instances (default: 32)")
    parser.add_argument(
        "--max-queue-delay-ms", type=float, default=0.0, metavar="X", help="wait for company (default: 0)"
    )
    parser.add_argument(
        "--token-file", metavar="F", help="file with the bearer token that callers must present"
    )
    return parser


def _from_file(path: Path) -> AgentConfig:
    try:
        return AgentConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadConfig(f"{path} can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise BadConfig(f"{path}: {_problems(error)}") from None


def _from_flags(arguments: argparse.Namespace) -> AgentConfig:
    if not arguments.listen or not arguments.model:
        raise BadConfig("give --config FILE, or --listen H:P and at least one --model NAME=DIR:module:Class")
    models = [
        _model(text, arguments.max_batch_size, arguments.max_queue_delay_ms) for text in arguments.model
    ]
    try:
        return AgentConfig(
            listen=arguments.listen,
            device=arguments.device,
            threads=arguments.threads,
            models=models,
            token_file=arguments.token_file,
        )
    except ValidationError as error:
        raise BadConfig(_problems(error)) from None


def _model(text: str, max_batch_size: int, max_queue_delay_ms: float) -> ModelConfig:
    name, _, rest = text.partition("=")
    folder, _, entrypoint = rest.partition(":")
    if not name or not folder or not entrypoint:
        raise BadConfig(
            f"--model {text}: expected NAME=DIR:module:Class, such as tiny=examples/tiny:model:Tiny"
        )
    try:
        return ModelConfig(
            name=name,
            path=str(Path(folder).resolve()),
            entrypoint=entrypoint,
            max_batch_size=max_batch_size,
            max_queue_delay_ms=max_queue_delay_ms,
        )
    except ValidationError as error:
        raise BadConfig(f"--model {text}: {_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in error.errors())


def _token(config: AgentConfig) -> str | None:
    """What callers must present, or None. Raises BadConfig, for what else can't be used as well."""
    names = [model.name for model in config.models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadConfig(f"model {twice[0]} is configured twice; one version of a model per agent")
    if config.run_file is not None and not Path(config.run_file).expanduser().parent.is_dir():
        raise BadConfig(f"run_file: there is no folder {Path(config.run_file).parent}; create it first")
    if config.token_file is None:
        return None
    try:
        token = Path(config.token_file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"token file {config.token_file} can't be read: {error}") from None
    if not token:
        raise BadConfig(
            f"token file {config.token_file} is empty; write a token into it or leave the option out"
        )
    return token


def _bind(listen: str, token: str | None) -> socket.socket:
    """A listening socket. Raises BadConfig, also for an address that strangers reach while no token is asked."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadConfig(f"listen: {listen!r} is not HOST:PORT, such as 127.0.0.1:9400 (port 0: a free one)")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BadConfig(f"listen: {host} is no address of this machine: {error.strerror}") from None
    if token is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise BadConfig(
            f"listen: {listen} can be reached from outside; give a token file, or listen on 127.0.0.1"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise BadConfig(f"listen: {listen}: {error.strerror}; is another server on that port?") from None
    return listener


def _nvml() -> ModuleType | None:
    try:
        import pynvml  # absent on machines without the library, which is a fact to report
    except ImportError:
        return None
    module: ModuleType = pynvml
    return module


class _Line(logging.Formatter):
    """One JSON object a line, so that the logs of many hosts can be read together."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "host": self._host,
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _log_to_stderr(host: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(host))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
