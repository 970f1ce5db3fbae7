"""One process's data plane: the pools, the proxy and the probes, started, changed and stopped together."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import time
from collections.abc import Iterable

from fleet_balancer.access.keys import AwaitedKeys
from fleet_balancer.access.tls import ServerTls
from fleet_balancer.front import Front
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.probing.probe import Prober
from fleet_balancer.process.condition import Condition, SavedEjection
from fleet_balancer.process.options import Options
from fleet_balancer.proxy.proxy import Proxy
from fleet_balancer.proxy.settings import Settings
from fleet_balancer.telemetry.access_log import AccessLogWriter
from fleet_wire.balancer import BackendList, BalancerStatus, Figure

# A memory report older than this many probe intervals is ignored.
STALE_INTERVALS = 3


class Station:
    """Serves by itself. Raises TlsError and AccessLogError where what `options` name can't be used."""

    def __init__(self, options: Options) -> None:
        loop = asyncio.get_running_loop()
        rng = random.Random()
        self.front = Front(rng, HealthRule(), STALE_INTERVALS * options.probe_interval_s)
        self.proxy = Proxy(self.front, Settings.of(options.config.limits), loop)
        self.prober = Prober(
            self.front,
            self.proxy,
            rng,
            interval_s=options.probe_interval_s,
            timeout_s=options.probe_timeout_s,
        )
        self._config = options.config
        self._tls = ServerTls(options.config.tls) if options.config.tls is not None else None
        self.proxy.access_log = self._access_log = _access_log(options)
        self._started_at = time.time()

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serve who connects to `sockets`, which are closed when serving ends."""
        await self.proxy.start(sockets, self._tls)
        # What is there now stays: a full collection need not look at it while requests wait.
        gc.freeze()

    async def replace(self, backends: BackendList, *, lenient: bool) -> None:
        """Make `backends` the whole truth; requests in flight finish. Raises Refusal and then changes nothing."""
        swap = self.front.swap(backends, time.monotonic())
        if lenient and self._config.keys_required:
            self.front.keyring = AwaitedKeys()  # the list of the command line says nothing about keys
        self.prober.forget(swap.removed)
        self.proxy.swap(swap)
        self.prober.watch(swap.added, lenient=lenient)

    async def configure(self, options: Options) -> None:
        """Take over what can change while it serves. Raises TlsError and AccessLogError; the old then stays."""
        before, self._config = self._config, options.config
        if self._tls is not None and options.config.tls is not None:
            self._tls.configure(options.config.tls)
        if before.access_log != options.config.access_log:
            old, self._access_log = self._access_log, _access_log(options)
            self.proxy.access_log = self._access_log
            if old is not None:
                old.stop()
        elif self._access_log is not None:
            self._access_log.reopen()
        self.proxy.settings = Settings.of(options.config.limits)

    async def status(self) -> BalancerStatus:
        now = time.monotonic()
        return BalancerStatus(
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            endpoint="",
            pools=[pool.status() for pool in self.front.pools.values()],
            backends=[member.status(now) for member in self.front.members],
            figures=self._figures(),
        )

    async def in_flight(self) -> dict[str, int]:
        """Requests on each host, by host_key()."""
        return {host_key(m.name, m.address): m.in_flight for m in self.front.members if m.in_flight}

    async def condition(self) -> Condition:
        """How the hosts are, for a process that goes on from here."""
        now = time.monotonic()
        return Condition(
            healthy=[_key(m) for m in self.front.members if m.health.healthy],
            ejections={
                name: [SavedEjection.of(host) for host in hosts]
                for name, pool in self.front.pools.items()
                if (hosts := pool.ejector.to_state(now))
            },
        )

    async def restore(self, condition: Condition) -> None:
        """Go on from what another process knew: hosts that were healthy there get requests before their first probe."""
        now = time.monotonic()
        healthy = set(condition.healthy)
        for member in self.front.members:
            if _key(member) in healthy and not member.health.healthy and member.health.passed(now):
                self.proxy.health_changed(member)
        for name, ejections in condition.ejections.items():
            pool = self.front.pools.get(name)
            if pool is not None:
                pool.ejector.restore((e.host() for e in ejections), now)
                pool.refresh()

    async def elsewhere(self, in_flight: dict[str, int]) -> None:
        """Requests that other processes have on the hosts: they count where a host is picked."""
        for member in self.front.members:
            count = in_flight.get(_key(member), 0)
            if count != member.elsewhere:
                member.elsewhere = count
                member.changed()

    async def stop(self, grace_s: float, idle_s: float = 0.0) -> bool:
        """Accept nothing new and finish what is in flight; False where that took longer and was cut off.

        Clients without a request are hung up on after `idle_s`.
        """
        finished = await self.proxy.stop(grace_s, idle_s)
        await self.prober.stop()
        if self._access_log is not None:
            self._access_log.stop()
        return finished

    def _figures(self) -> list[Figure]:
        return [
            Figure(
                name="client_connections",
                kind="gauge",
                help="Open client connections",
                value=len(self.proxy.clients),
            ),
            Figure(
                name="unrouted",
                kind="counter",
                help="Requests for a model that no pool serves",
                value=self.front.unrouted,
            ),
            *(
                Figure(
                    name="key_refusals",
                    kind="counter",
                    help="Requests without a good API key (key empty), or over their key's rate",
                    labels={"key": name},
                    value=count,
                )
                for name, count in self.front.key_refusals.items()
            ),
            *self._log_figures(),
            *(figure for pool in self.front.pools.values() for figure in pool.figures()),
        ]

    def _log_figures(self) -> list[Figure]:
        if self._access_log is None:
            return []
        about = "Lines that a full or slow disk cost the access log"
        dropped = self._access_log.dropped
        return [Figure(name="access_log_dropped", kind="counter", help=about, value=dropped)]


def host_key(name: str, address: str) -> str:
    """What tells one host from another over several processes: the same name elsewhere is another one."""
    return f"{name} {address}"


def _key(member: Member) -> str:
    return host_key(member.name, member.address)


def _access_log(options: Options) -> AccessLogWriter | None:
    if options.config.access_log is None:
        return None
    writer = AccessLogWriter(options.config.access_log)
    writer.start()
    return writer
