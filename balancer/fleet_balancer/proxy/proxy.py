"""The data plane: listens, keeps connections to hosts ready, and brings pools, clients and hosts together.

Decides which connection to a host is used again (the one used last, while it is younger than any server's keep-alive
time-out), and looks at everybody's deadline four times a second.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from fleet_balancer.access.tls import ServerTls
from fleet_balancer.front import Front, Swap
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Claim, Ticket
from fleet_balancer.proxy.client import Client
from fleet_balancer.proxy.placing import Placing
from fleet_balancer.proxy.second_copy import SecondCopy
from fleet_balancer.proxy.settings import Settings
from fleet_balancer.proxy.upstream import Upstream
from fleet_balancer.telemetry.access_log import AccessLogWriter
from fleet_wire.refusal import Refusal

log = logging.getLogger(__name__)

SWEEP_S = 0.25
BACKLOG = 4096
# How long a client may take to say its TLS goodbye.
TLS_GOODBYE_S = 2.0
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM))


class Proxy:
    """Serves `front`. start() listens, stop() finishes what is in flight."""

    def __init__(self, front: Front, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.front = front
        self.settings = settings
        self.loop = loop
        self.clients: set[Client] = set()
        self.stopping = False
        self.access_log: AccessLogWriter | None = None
        # What clients speak to reach us: "https" where the listener ends TLS.
        self.proto = b"http"
        self._tls: ServerTls | None = None
        # Who is to look at a host that a request could not reach (Prober.hurry).
        self.doubted: Callable[[Member], None] | None = None
        self.idle: dict[Member, list[Upstream]] = {member: [] for member in front.members}
        self.ids: Iterator[int] = itertools.count(1)
        self.id_prefix = os.urandom(6).hex().encode()
        self._connecting: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    async def start(self, sockets: Iterable[socket.socket], tls: ServerTls | None = None) -> None:
        """Serve who connects to `sockets`, which listen already and are closed by stop()."""
        self._tls = tls
        secured: dict[str, Any] = {}
        if tls is not None:
            self.proto = b"https"
            secured = {
                "ssl": tls.context,
                "ssl_handshake_timeout": self.settings.header_timeout_s,
                "ssl_shutdown_timeout": TLS_GOODBYE_S,
            }
        for one in sockets:
            server = await self.loop.create_server(lambda: Client(self), sock=one, backlog=BACKLOG, **secured)
            self._servers.append(server)
        self._sweep = self.loop.call_later(SWEEP_S, self._look_around)

    async def stop(self, grace_s: float, idle_s: float = 0.0) -> bool:
        """Accept nothing new, finish what is in flight; False where that took longer than `grace_s` and was cut off.

        Every answer from now on says that it is the connection's last; one without a request ends after `idle_s`.
        """
        self.stopping = True
        for server in self._servers:
            server.close()
        if idle_s:
            self.loop.call_later(idle_s, self._hang_up)
        else:
            self._hang_up()
        finished = True
        if self.clients:
            self._emptied = asyncio.Event()
            try:
                async with asyncio.timeout(grace_s):
                    await self._emptied.wait()
            except TimeoutError:
                finished = False
        for client in list(self.clients):
            client.transport.abort()
        for member in list(self.idle):
            self._close_idle(member)
        for task in list(self._connecting):
            task.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
        await asyncio.sleep(0)
        return finished

    def _hang_up(self) -> None:
        """Close the connections that have no request."""
        for client in list(self.clients):
            client.stop()

    def left(self, client: Client) -> None:
        """A client's connection ended."""
        self.clients.discard(client)
        if self._emptied is not None and not self.clients:
            self._emptied.set()

    def swap(self, swap: Swap) -> None:
        """Front took a new list: connections to hosts that are gone close, requests in flight on them finish."""
        for member in swap.removed:
            self._close_idle(member)
        for member in swap.added:
            self.idle[member] = []
        self.deliver(swap.served)

    def health_changed(self, member: Member) -> None:
        if not member.health.healthy:
            for upstream in self.idle.get(member, ()):
                upstream.transport.abort()
            log.warning("host %s is out: %s", member.name, member.health.error)
            if self.doubted is not None:
                self.doubted(member)
        else:
            log.info("host %s is in", member.name)
        self.deliver(self.front.refresh(member, time.monotonic()))

    def serve_waiting(self) -> None:
        """Place or refuse those who wait, where something may have changed for them."""
        self.deliver(self.front.serve_waiting(time.monotonic()))

    def deliver(self, served: Sequence[tuple[Ticket, Claim | Refusal]]) -> None:
        for ticket, result in served:
            cast(Placing, ticket.owner).admitted(result)

    # Connections to hosts.

    def idle_connection(self, member: Member, now: float) -> Upstream | None:
        """The connection to `member` used last, where it is young enough."""
        idle = self.idle.get(member)
        oldest = now - self.settings.upstream_idle_s
        while idle:
            upstream = idle.pop()
            if upstream.idle_since > oldest and not upstream.transport.is_closing():
                return upstream
            upstream.transport.abort()
        return None

    def keep(self, upstream: Upstream, now: float) -> None:
        """A connection whose response is complete; closed where its host is gone."""
        idle = self.idle.get(upstream.member)
        if idle is None:
            upstream.transport.abort()
            return
        upstream.idle_since = now
        idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """An idle connection ended."""
        idle = self.idle.get(upstream.member)
        if idle and upstream in idle:
            idle.remove(upstream)

    def doubt(self, member: Member) -> None:
        """`member` broke off a request. Where its process died, its other connections are as dead, and the loop may not
        know it yet: a request sent there would be lost too, while on a new one it can't be."""
        idle = self.idle.get(member)
        if idle:
            dead = idle.copy()
            idle.clear()
            for upstream in dead:
                upstream.transport.abort()

    def connect(self, asker: Placing | SecondCopy, claim: Claim) -> None:
        """Make a connection to the claim's host, and tell `asker` how that ended."""
        task = self.loop.create_task(self._connect(asker, claim))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, asker: Placing | SecondCopy, claim: Claim) -> None:
        member = claim.member
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                _, upstream = await self.loop.create_connection(
                    lambda: Upstream(self, member), member.host, member.port
                )
        except OSError as error:  # TimeoutError is one
            ours = error.errno in _OURS
            reason = str(error) or f"no connection within {self.settings.connect_timeout_s:g} s"
            if ours:
                log.error("cannot connect to %s: %s", member.name, reason)
            elif member.health.connect_failed(f"connect failed: {reason}", time.monotonic()):
                self.health_changed(member)
            asker.connect_failed(claim, not ours)
            return
        if not asker.connected(claim, upstream):
            self.keep(upstream, time.monotonic())

    def _close_idle(self, member: Member) -> None:
        for upstream in self.idle.pop(member, []):
            upstream.transport.abort()

    def _look_around(self) -> None:
        """Four times a second: deadlines, idle connections that are too old, requests that wait."""
        now = time.monotonic()
        for client in list(self.clients):
            if client.deadline < now:
                client.expire()
            elif client.exchange is not None and client.exchange.body_left:
                client.exchange.check_body(now)
        oldest = now - self.settings.upstream_idle_s
        for idle in self.idle.values():
            while idle and idle[0].idle_since <= oldest:
                idle.pop(0).transport.abort()
        for pool in self.front.pools.values():
            pool.advance(now)
            for sentence in pool.ejector.news():
                log.warning("pool %s: %s", pool.name, sentence)
        self.serve_waiting()
        if self.access_log is not None:
            self.access_log.flush(now)
        if self._tls is not None:
            self._tls.check(now)
        self._sweep = self.loop.call_later(SWEEP_S, self._look_around)
