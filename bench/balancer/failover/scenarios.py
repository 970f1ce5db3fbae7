"""What is done to three hosts under load, and what is counted. Each scenario returns one row of figures.

`errors`: answers other than 2xx and broken connections. `twice`: POSTs that more than one host, or one host more than
once, began to execute. `under_way`: POSTs that were in flight on the killed host, or on their way to it, before the
kernel had closed its connections (a few milliseconds after the kill; nobody can know before): sent by then, unanswered
at the kill, begun by no other host. `last_error_s` is from there on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.balancer.failover.load import Load, posting
from bench.balancer.failover.subjects import Door
from bench.balancer.processes import free_port

WORKERS = 48
SERVICE_MS = 30.0

Row = dict[str, float]


@dataclass
class Host:
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it listens."""
        origin = str(Path(__file__).parent / "origin.py")
        command = [sys.executable, origin, str(self.port), str(self.log), str(SERVICE_MS)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        if self.process.stdout is None or not self.process.stdout.readline():
            raise RuntimeError("a host does not start")

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def begun(self) -> list[tuple[str, float]]:
        """Which POSTs it began, and when."""
        text = self.log.read_text(encoding="ascii") if self.log.exists() else ""
        return [(request, float(at)) for request, at in (line.split(" ") for line in text.splitlines())]


@dataclass
class Site:
    """Three hosts and the front door before them; for how long the load runs before and after what is done to them."""

    hosts: list[Host]
    door: Door
    before_s: float = 1.0
    after_s: float = 2.5

    def runs(self) -> Counter[str]:
        return Counter(request for host in self.hosts for request, _ in host.begun())


@contextlib.contextmanager
def hosts_in(folder: Path) -> Iterator[list[Host]]:
    hosts = [Host(free_port(), folder / f"host{i}.log") for i in range(3)]
    try:
        for host in hosts:
            host.start()
        yield hosts
    finally:
        for host in hosts:
            host.signal(signal.SIGCONT)
            host.kill()


async def kill(site: Site) -> Row:
    """kill -9 one host."""
    victim = site.hosts[0]
    async with posting(site.door.port, WORKERS) as load:
        await asyncio.sleep(site.before_s)
        at, dead = await _killed([victim])
        await asyncio.sleep(site.after_s)
    return {**_counts(site, load), **_losses(site, load, at, dead, [victim])}


async def stop(site: Site) -> Row:
    """SIGSTOP one host for 6 s: it accepts connections and answers nothing."""
    victim = site.hosts[0]
    async with posting(site.door.port, WORKERS) as load:
        await asyncio.sleep(site.before_s)
        victim.signal(signal.SIGSTOP)
        at = time.monotonic()
        await asyncio.sleep(6.0)
        victim.signal(signal.SIGCONT)
        back = time.monotonic()
        await asyncio.sleep(0.5)
    there = {request for request, _ in victim.begun()}
    late = [p.sent - at for p in load.posts if p.id in there and at < p.sent < back]
    return {
        **_counts(site, load),
        "last_new_s": max(late, default=0.0),
        "new_after_4s": sum(s > 4.0 for s in late),
        "rate_meanwhile": load.rate(at + 1.0, back) / load.rate(at - site.before_s / 2, at),
    }


async def broken(site: Site) -> Row:
    """One host answers every POST with 500, at once, while its health check passes."""
    async with posting(site.door.port, WORKERS) as load:
        await asyncio.sleep(site.before_s)
        site.hosts[0].signal(signal.SIGUSR1)
        at = time.monotonic()
        await asyncio.sleep(site.after_s)
    failed = load.failed()
    return {**_counts(site, load), "last_error_s": max((p.done or at for p in failed), default=at) - at}


async def all_down(site: Site) -> Row:
    """kill -9 all three, and start them again a second later."""
    async with posting(site.door.port, WORKERS) as load:
        await asyncio.sleep(site.before_s)
        at, dead = await _killed(site.hosts)
        await asyncio.sleep(max(0.0, at + 1.0 - time.monotonic()))
        await asyncio.gather(*(asyncio.to_thread(host.start) for host in site.hosts))
        up = time.monotonic()
        await asyncio.sleep(site.after_s)
    first = min((p.done for p in load.posts if p.done and p.done > at + 0.5 and not p.failed), default=at)
    losses = _losses(site, load, at, dead, site.hosts)
    return {**_counts(site, load), **losses, "down_s": up - at, "first_good_s": first - up}


async def drain(site: Site) -> Row:
    """One host is drained by the operator's command."""
    async with posting(site.door.port, WORKERS) as load:
        await asyncio.sleep(site.before_s)
        await asyncio.to_thread(site.door.drain, 0)
        at = time.monotonic()
        await asyncio.sleep(site.after_s / 2)
    last = max((t for _, t in site.hosts[0].begun()), default=at)
    return {**_counts(site, load), "last_new_s": max(0.0, last - at)}


SCENARIOS: dict[str, Callable[[Site], Awaitable[Row]]] = {
    "kill": kill,
    "stop": stop,
    "500": broken,
    "all-down": all_down,
    "drain": drain,
}


def _counts(site: Site, load: Load) -> Row:
    return {
        "requests": len(load.posts),
        "errors": len(load.failed()),
        "twice": sum(n > 1 for n in site.runs().values()),
    }


async def _killed(hosts: list[Host]) -> tuple[float, float]:
    """When the hosts were killed with -9, and when they were dead."""
    for host in hosts:
        host.signal(signal.SIGKILL)
    at = time.monotonic()
    for host in hosts:
        await asyncio.to_thread(host.kill)
    return at, time.monotonic()


def _losses(site: Site, load: Load, at: float, dead: float, victims: list[Host]) -> Row:
    """How the errors compare with what was in flight on the hosts that were killed at `at`."""
    elsewhere = {request for host in site.hosts if host not in victims for request, _ in host.begun()}
    again = {request for host in victims for request, t in host.begun() if t > at + 0.5}
    here = [p for p in load.posts if p.sent <= dead and (p.done is None or p.done > at)]
    under_way = [p for p in here if p.id not in elsewhere and p.id not in again]
    last = max((p.done or at for p in load.failed()), default=dead)
    return {"under_way": len(under_way), "last_error_s": max(0.0, last - dead)}
