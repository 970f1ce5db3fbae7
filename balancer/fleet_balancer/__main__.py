"""`fleet-balancer`: the command line of the front door, and its life from listening to the last reply.

Exit codes: 0 stopped in order, 1 stopped with requests cut off at the end of the grace, 2 bad usage or no listening.
"""

from __future__ import annotations

import argparse
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
from typing import get_args

import uvloop

from fleet_balancer.front import Front
from fleet_balancer.health import HealthRule
from fleet_balancer.http.grammar import Limits
from fleet_balancer.member import address_of
from fleet_balancer.probe import Prober
from fleet_balancer.proxy import Proxy
from fleet_balancer.server import AdminServer, is_loopback
from fleet_balancer.settings import Settings
from fleet_wire.balancer import Backend, BackendList, PoolConfig, Routing

# A memory report older than this many probe intervals is ignored.
STALE_INTERVALS = 3


class UsageError(Exception):
    """Bad arguments: str() is one line for the operator. Exit code 2."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="fleet-balancer",
        description="HTTP front door of a fleet: picks a host for each request. Without --backends it starts empty and "
        "waits for PUT /backends on the admin address.",
    )
    p.add_argument("--listen", required=True, metavar="HOST:PORT", help="where clients connect (port 0: any)")
    p.add_argument(
        "--admin", required=True, metavar="HOST:PORT", help="where status, metrics and backends are"
    )
    p.add_argument(
        "--backends", default="", metavar="H:P[,H:P...]", help="a fixed list of hosts, any HTTP servers"
    )
    p.add_argument("--routing", choices=get_args(Routing), default="least_connections", help="for --backends")
    p.add_argument("--workers", type=int, default=1, help="only 1 for now")
    p.add_argument("--token-file", type=Path, help="holds the bearer token that the admin address asks for")
    p.add_argument("--ready-file", type=Path, help="JSON {pid, listen, admin}, written once both listen")
    p.add_argument(
        "--queue-size", type=_amount, default=1024, help="for --backends: how many requests may wait"
    )
    p.add_argument(
        "--queue-timeout", type=_seconds, default=30.0, metavar="S", help="for --backends: how long"
    )
    p.add_argument("--request-timeout", type=_seconds, default=300.0, metavar="S", help="for --backends")
    p.add_argument("--header-timeout", type=_seconds, default=5.0, metavar="S", help="for a request's head")
    p.add_argument("--idle-timeout", type=_seconds, default=60.0, metavar="S", help="between two requests")
    p.add_argument(
        "--body-timeout", type=_seconds, default=30.0, metavar="S", help="without a byte of a body"
    )
    p.add_argument(
        "--max-body", type=_amount, default=Limits().body, metavar="BYTES", help="longest request body"
    )
    p.add_argument(
        "--probe-interval", type=_seconds, default=1.0, metavar="S", help="between two health checks"
    )
    p.add_argument("--probe-timeout", type=_seconds, default=1.0, metavar="S", help="for one health check")
    p.add_argument(
        "--grace", type=_seconds, default=30.0, metavar="S", help="for requests in flight on SIGTERM"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return uvloop.run(_run(args))
    except UsageError as error:
        sys.stderr.write(f"fleet-balancer: {error}\n")
        return 2


async def _run(args: argparse.Namespace) -> int:
    if args.workers != 1:
        raise UsageError(f"--workers {args.workers}: only 1 worker is available so far; leave the option out")
    listen, admin = _address(args.listen, "--listen"), _address(args.admin, "--admin")
    token = _token(args.token_file)
    if token is None and not is_loopback(admin[0]):
        raise UsageError(
            f"--admin {args.admin} can be reached from other machines: give --token-file, or 127.0.0.1"
        )
    static = _static_list(args)
    _allow_many_files()
    loop = asyncio.get_running_loop()
    rng = random.Random()
    front = Front(rng, HealthRule(), STALE_INTERVALS * args.probe_interval)
    settings = Settings(
        limits=Limits(body=args.max_body),
        header_timeout_s=args.header_timeout,
        idle_timeout_s=args.idle_timeout,
        body_timeout_s=args.body_timeout,
    )
    proxy = Proxy(front, settings, loop)
    prober = Prober(
        front,
        proxy,
        rng,
        interval_s=args.probe_interval,
        timeout_s=args.probe_timeout,
    )
    server = AdminServer(front, proxy, prober, token)
    server.replace(static, lenient=True)
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
    if args.ready_file is not None:
        _write_ready(args.ready_file, endpoint, at_admin)
    await stop.wait()
    finished = await proxy.stop(args.grace)
    server.stop()
    await prober.stop()
    return 0 if finished else 1


def _static_list(args: argparse.Namespace) -> BackendList:
    addresses = [a for a in args.backends.split(",") if a]
    for address in addresses:
        _address(address, "--backends")
    if len(set(addresses)) != len(addresses):
        raise UsageError("--backends: an address is listed twice")
    pool = PoolConfig(
        routing=args.routing,
        queue_size=args.queue_size,
        queue_timeout_s=args.queue_timeout,
        request_timeout_s=args.request_timeout,
    )
    return BackendList(pools=[pool], backends=[Backend(name=a, address=a) for a in addresses])


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.001 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.001 and 1000000 seconds")
    return seconds


def _amount(text: str) -> int:
    amount = int(text)
    if amount < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return amount


def _address(text: str, option: str) -> tuple[str, int]:
    try:
        return address_of(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _written(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file: {error}") from None
    if not token:
        raise UsageError(f"--token-file: {path} is empty")
    return token


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
