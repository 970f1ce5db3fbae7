"""Serves through HAProxy: what `Station` is for the built-in engine. The house decides, HAProxy carries the requests.

Listening sockets are ours and inherited by every HAProxy process: while one is started in another's place, or after it
died, connections wait in the kernel and are never refused. A change that the runtime API can't make is a new process;
the old one finishes what it has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from fleet_balancer.access.tls import TlsError
from fleet_balancer.front import Front
from fleet_balancer.haproxy.api import ApiError
from fleet_balancer.haproxy.ledger import Ledger
from fleet_balancer.haproxy.orders import Orders
from fleet_balancer.haproxy.process import StartFailed
from fleet_balancer.haproxy.reports import Reporter
from fleet_balancer.haproxy.tally import count, write_down
from fleet_balancer.haproxy.welcome import ready
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.process.options import Options, UsageError
from fleet_balancer.process.statefile import Condition
from fleet_balancer.station import STALE_INTERVALS, host_key
from fleet_balancer.telemetry.access_log import AccessLogWriter
from fleet_wire.balancer import BackendList, BalancerStatus, Figure
from fleet_wire.refusal import Refusal

log = logging.getLogger(__name__)

BEAT_S = 0.25


class HaproxyStation:
    """Raises UsageError where there is no HAProxy, or it objects to what `options` say; TlsError, AccessLogError."""

    def __init__(self, options: Options) -> None:
        rng = random.Random()
        self.front = Front(rng, HealthRule(), STALE_INTERVALS * options.probe_interval_s)
        self._options = options
        self._reporter = Reporter(
            self.front, rng, interval_s=options.probe_interval_s, timeout_s=options.probe_timeout_s
        )
        self._orders = Orders(options, self.front, self._reporter.is_known, self._heard)
        self._lineage = self._orders.lineage
        self._ledger = Ledger(self.front, self._orders.layout)
        self._access_log = _access_log(options)
        self._lenient = False
        self._started_at = time.time()
        self._changing = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._stopping = False
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._welcomes: set[asyncio.Task[None]] = set()
        self._next_look = 0.0

    # What `life` asks for.

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serve who connects to `sockets`. Raises UsageError where HAProxy does not come up."""
        try:
            await self._orders.begin(sockets)
        except (StartFailed, OSError) as error:
            raise UsageError(f"HAProxy ({self._orders.program}) does not serve: {error}") from None
        self._started_at = time.time()
        keep_alive = self._lineage.keep_alive(self._changing, self._ledger.lost)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._beat()), loop.create_task(keep_alive)]
        for member in self.front.members:
            self._begin(self._welcome(member))

    async def replace(self, backends: BackendList, *, lenient: bool) -> None:
        """Make `backends` the whole truth; requests in flight finish. Raises Refusal and then changes nothing."""
        if lenient and self._options.config.keys_required and backends.keys is None:
            # The list of the command line says nothing about keys: nobody comes in before the first real one.
            backends = backends.model_copy(update={"keys": []})
        async with self._changing:
            plan = await self._orders.judge(backends, lenient=lenient)
            swap = self.front.swap(backends, time.monotonic())
            self._reporter.forget(swap.removed)
            self._reporter.watch(swap.added)
            self._lenient = lenient
            await self._orders.take(backends, plan)
            self._ledger.learn(backends)
            if self._lineage.current is None:
                return
            try:
                await self._orders.tell()
            except (ApiError, StartFailed, OSError) as error:
                # What HAProxy did not take now, it gets at the next beat, or with the next process.
                log.error("HAProxy: %s", error)
            for member in swap.added:
                self._begin(self._welcome(member))

    async def configure(self, options: Options) -> None:
        """Take over what can change while it serves. Raises UsageError and as __init__; the old stays."""
        async with self._changing:
            before = self._access_log
            anew = self._options.config.access_log != options.config.access_log
            after = _access_log(options) if anew else before
            try:
                await self._orders.configure(options)
            except (Refusal, StartFailed, ApiError, OSError, TlsError) as error:
                if anew and after is not None:
                    after.stop()
                if isinstance(error, TlsError):
                    raise
                said = error.message if isinstance(error, Refusal) else error
                raise UsageError(f"HAProxy does not take them: {said}") from None
            self._options, self._access_log = options, after
            if anew and before is not None:
                before.stop()
            elif not anew and after is not None:
                after.reopen()

    async def status(self) -> BalancerStatus:
        await self._look()
        now = time.monotonic()
        return BalancerStatus(
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            endpoint="",
            pools=[self._ledger.pool_status(name, self._lineage.all) for name in self.front.pools],
            backends=[member.status(now) for member in self.front.members],
            figures=[
                Figure(
                    name="engine_restarts",
                    kind="counter",
                    help="Times that HAProxy was started again after it died",
                    value=self._lineage.restarts,
                ),
                *(figure for name, p in self.front.pools.items() for figure in p.ejector.figures(name)),
            ],
        )

    async def in_flight(self) -> dict[str, int]:
        """Requests on each host, by host_key()."""
        return {host_key(m.name, m.address): m.in_flight for m in self.front.members if m.in_flight}

    async def condition(self) -> Condition:
        """How the hosts are, for a process that goes on from here."""
        now = time.monotonic()
        return Condition(
            healthy=[host_key(m.name, m.address) for m in self.front.members if m.health.healthy],
            ejections={
                name: state for name, p in self.front.pools.items() if (state := p.ejector.to_state(now))
            },
        )

    async def restore(self, condition: Condition) -> None:
        """Go on from what another process knew: hosts that were healthy there get requests before their first check."""
        now = time.monotonic()
        healthy = set(condition.healthy)
        for member in self.front.members:
            if host_key(member.name, member.address) in healthy and member.health.passed(now):
                self.front.refresh(member, now)
        for name, pool in self.front.pools.items():
            pool.ejector.restore((e.host() for e in condition.ejections.get(name, ())), now)
            pool.refresh()

    async def elsewhere(self, in_flight: dict[str, int]) -> None:
        """Requests that the process before this one has on the hosts. HAProxy can't be told of them."""

    async def stop(self, grace_s: float, idle_s: float = 0.0) -> bool:
        """Accept nothing new and finish what is in flight; False where that took longer and was cut off.

        Clients without a request are hung up on after `idle_s`.
        """
        self._stopping = True
        tasks = [*self._tasks, *self._welcomes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        finished = await self._orders.end(grace_s, idle_s)
        await self._reporter.stop()
        if self._access_log is not None:
            self._access_log.stop()
        return finished

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    async def _welcome(self, member: Member) -> None:
        """Let a new host have requests as soon as it is ready."""
        options = self._options
        is_ready = await ready(
            member,
            within_s=options.probe_interval_s,
            timeout_s=options.probe_timeout_s,
            lenient=self._lenient,
            over=lambda: self._stopping,
        )
        process = self._lineage.current
        if is_ready and process is not None:
            try:
                layout = self._orders.layout
                pool_id = layout.id_of(member.pool)
                place = layout.slots[pool_id].place_of((member.name, member.address))
                await process.do([f"set server {pool_id}/{place} health up"])
                self._woken.set()
            except (KeyError, ApiError):
                pass  # it is gone already, or HAProxy is: its own checks will find it

    # What HAProxy reports.

    def _heard(self, lines: list[str]) -> None:
        """A block of its log."""
        now = time.monotonic()
        if count(lines, self._ledger.directory, now):
            # A host may be ejected by this: HAProxy is told at once.
            self._woken.set()
        if self._access_log is not None:
            write_down(lines, self._ledger.directory, self._access_log, now)

    async def _beat(self) -> None:
        """Four times a second, and where something happened: health, counts, weights."""
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self._look()
                await self._tend()
            except (ApiError, OSError) as error:
                if self._lineage.alive is not None:
                    log.error("HAProxy: %s", error)

    async def _tend(self) -> None:
        now = time.monotonic()
        for pool in self.front.pools.values():
            pool.advance(now)
            for sentence in pool.ejector.news():
                log.warning("pool %s: %s", pool.name, sentence)
        if now >= self._next_look:
            self._next_look = now + 1.0
            for pool in self.front.pools.values():
                for member in pool.members:
                    pool.refresh(member, now)
            await self._look_at_certificate()
        await self._orders.addresses.tend(self.front.members, now)
        if self._access_log is not None:
            self._access_log.flush(now)
        self._lineage.retire()
        if self._changing.locked():
            return
        async with self._changing:
            if self._lineage.alive is not None:
                await self._orders.bring_up_to_date()

    async def _look_at_certificate(self) -> None:
        if not self._orders.certificate_changed():
            return
        async with self._changing:
            try:
                await self._orders.renew()
                log.info("the certificate was read again")
            except (TlsError, Refusal, StartFailed, OSError) as error:
                said = error.message if isinstance(error, Refusal) else error
                log.error("the certificate stays as it was: %s", said)

    async def _look(self) -> None:
        """Ask every process for its counts, and the present one for its hosts' health."""
        async with self._asking:
            over = self._ledger.over()
            for process in self._lineage.all:
                if not process.ended.is_set() and not process.api.closed:
                    try:
                        rows = await process.ask(self._options.probe_timeout_s)
                    except ApiError:
                        if process is self._lineage.current:
                            raise
                    else:
                        if process is self._lineage.current:
                            self._ledger.take_health(process, rows, time.monotonic())
            self._ledger.take_counts(self._lineage.all, over)


def _access_log(options: Options) -> AccessLogWriter | None:
    if options.config.access_log is None:
        return None
    writer = AccessLogWriter(options.config.access_log)
    writer.start()
    return writer
