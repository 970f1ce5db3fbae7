"""`fleet-balancer`: the command line of the front door, and its life from listening to the last reply.

Exit codes: 0 stopped in order, 1 stopped with requests cut off at the end of the grace, 2 bad usage or no listening.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from fleet_balancer.front import Front
from fleet_balancer.health import HealthRule
from fleet_balancer.options import Options, UsageError, read_options
from fleet_balancer.probe import Prober
from fleet_balancer.proxy import Proxy
from fleet_balancer.server import AdminServer, is_loopback
from fleet_balancer.settings import Settings

# A memory report older than this many probe intervals is ignored.
STALE_INTERVALS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return uvloop.run(_run(read_options(argv)))
    except UsageError as error:
        sys.stderr.write(f"fleet-balancer: {error}\n")
        return 2


async def _run(options: Options) -> int:
    if options.config.workers != 1:
        raise UsageError(
            f"--workers {options.config.workers}: only 1 worker is available so far; leave the option out"
        )
    listen, admin = options.listen, options.admin
    token = options.token()
    if token is None and not is_loopback(admin[0]):
        raise UsageError(
            f"--admin {options.config.admin} can be reached from other machines: give --token-file, or 127.0.0.1"
        )
    _allow_many_files()
    loop = asyncio.get_running_loop()
    rng = random.Random()
    front = Front(rng, HealthRule(), STALE_INTERVALS * options.probe_interval_s)
    settings = Settings.of(options.config.limits)
    proxy = Proxy(front, settings, loop)
    prober = Prober(
        front,
        proxy,
        rng,
        interval_s=options.probe_interval_s,
        timeout_s=options.probe_timeout_s,
    )
    server = AdminServer(front, proxy, prober, token)
    server.replace(options.first, lenient=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        endpoint = _written(await proxy.start(*listen))
        at_admin = _written(await server.start(*admin, endpoint=f"http://{endpoint}"))
    except OSError as error:
        raise UsageError(f"cannot listen: {error}") from None
    sys.stdout.write(f"listening on http://{endpoint}\nadmin on http://{at_admin}\n")
    sys.stdout.flush()
    if options.ready_file is not None:
        _write_ready(Path(options.ready_file), endpoint, at_admin)
    await stop.wait()
    finished = await proxy.stop(options.grace_s)
    server.stop()
    await prober.stop()
    return 0 if finished else 1


def _written(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _write_ready(path: Path, endpoint: str, admin: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"pid": os.getpid(), "listen": endpoint, "admin": admin}), encoding="utf-8")
    part.replace(path)


def _allow_many_files() -> None:
    """Each request in flight takes two sockets: allow as many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
