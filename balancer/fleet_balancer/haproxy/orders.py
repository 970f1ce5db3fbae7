"""What HAProxy is told: in files before a process starts, by its runtime API from then on."""

from __future__ import annotations

import os
import random
import resource
import socket
import time
from collections.abc import Callable, Iterable

from fleet_balancer.front import Front
from fleet_balancer.haproxy.addresses import Addresses
from fleet_balancer.haproxy.binary import NoHaproxy, find_haproxy
from fleet_balancer.haproxy.certificate import Certificate
from fleet_balancer.haproxy.folder import Folder
from fleet_balancer.haproxy.layout import Layout
from fleet_balancer.haproxy.lineage import Lineage
from fleet_balancer.haproxy.plan import Door, Plan
from fleet_balancer.haproxy.process import HaproxyProcess, StartFailed
from fleet_balancer.haproxy.render import render
from fleet_balancer.haproxy.standing import standing
from fleet_balancer.haproxy.wanted import EMPTY, commands
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.process.options import Options, UsageError
from fleet_wire.balancer import BackendList
from fleet_wire.refusal import Refusal

# Of the descriptors that a process may have: some are for checks and files, each request needs two.
SPARE_FILES = 500
MOST_CONNECTIONS = 100_000


class Orders:
    """`is_known`, as for standing(). Raises UsageError where there is no HAProxy; TlsError."""

    def __init__(
        self,
        options: Options,
        front: Front,
        is_known: Callable[[Member], bool],
        heard: Callable[[list[str]], None],
    ) -> None:
        try:
            binary = find_haproxy()
        except NoHaproxy as error:
            raise UsageError(str(error)) from None
        self.program = binary.path
        self.layout = Layout()
        self.addresses = Addresses()
        self.lineage = Lineage(binary, folder := Folder(), self._settle, heard)
        self.options = options
        self._certificate = None if options.config.tls is None else Certificate(options.config.tls)
        self._front = front
        self._is_known = is_known
        self._folder = folder
        self._run = os.urandom(4).hex()
        self._list = BackendList(pools=[], backends=[])
        self._plan: Plan | None = None
        self._text = ""
        self._bundle = ""
        self._maps: dict[str, dict[str, str]] = {}

    async def begin(self, sockets: Iterable[socket.socket]) -> None:
        """Have HAProxy serve who connects to `sockets`. Raises StartFailed, OSError."""
        self.lineage.sockets = list(sockets)
        self._folder.open()
        try:
            self._write(self._plan or self.layout.plan(self._list, lenient=False))
            await self.lineage.begin()
        except (StartFailed, OSError):
            self._folder.remove()
            raise

    async def judge(self, backends: BackendList, *, lenient: bool) -> Plan:
        """What `backends` would make of the configuration. Raises Refusal where this engine can't serve it."""
        # Judged by the house on a front of its own: what is refused must leave nothing behind.
        Front(random.Random(), HealthRule(), 1.0).swap(backends, 0.0)
        plan = self.layout.plan(backends, lenient=lenient)
        trial = Layout()
        trial.take(backends, trial.plan(backends, lenient=lenient))
        trial.maps(backends)
        if self.lineage.current is not None and (text := render(self._door(), plan)) != self._text:
            await self._judge(text)
        return plan

    async def take(self, backends: BackendList, plan: Plan) -> None:
        """`backends` is in force. HAProxy, where there is one, has to be told yet: tell()."""
        self.layout.take(backends, plan)
        self._list, self._plan = backends, plan
        await self.addresses.resolve(self._front.members)

    async def tell(self) -> None:
        """A new process where the configuration is another, else by the runtime API.

        Raises ApiError, StartFailed, OSError.
        """
        if self._plan is None:
            return
        if render(self._door(), self._plan) == self._text:
            await self.bring_up_to_date()
        else:
            await self._succeed(self._plan)

    async def configure(self, options: Options) -> None:
        """Go on with other `options`. Raises Refusal, StartFailed, OSError, TlsError; then the old ones stay."""
        before = self.options, self._certificate
        if options.config.tls is not None:
            self._certificate = Certificate(options.config.tls)
        self.options = options
        if self._plan is None or self.lineage.current is None:
            return
        try:
            await self._judge(render(self._door(), self._plan))
            await self._succeed(self._plan)
        except (Refusal, StartFailed, OSError):
            self.options, self._certificate = before
            raise

    def certificate_changed(self) -> bool:
        """Whether its files are others than when this was asked last."""
        return self._certificate is not None and self._certificate.changed()

    async def renew(self) -> None:
        """A new process reads the certificate again. Raises TlsError, Refusal, StartFailed, OSError."""
        if self.options.config.tls is not None and self._plan is not None:
            self._certificate = Certificate(self.options.config.tls)
            await self._judge(self._text)
            await self._succeed(self._plan)

    async def bring_up_to_date(self) -> None:
        """Tell the present process what has changed. Raises ApiError, OSError."""
        process = self.lineage.current
        if process is None:
            return
        for file, entries in self.layout.maps(self._list).items():
            if entries != self._maps.get(file):
                # The file too: a process that is started after a crash reads it.
                self._folder.put_map(file, entries)
                await process.api.replace_map(file, entries)
                self._maps[file] = entries
        await self._settle(process)

    async def end(self, grace_s: float, idle_s: float) -> bool:
        """Accept nothing new and finish what is in flight; False where that took longer and was cut off."""
        for one in self.lineage.sockets:
            one.close()
        finished = await self.lineage.finish(grace_s, idle_s, self.options.probe_timeout_s)
        self._folder.remove()
        return finished

    def _door(self) -> Door:
        config = self.options.config
        return Door(
            limits=config.limits,
            threads=config.workers,
            sockets=len(self.lineage.sockets),
            tls=config.tls is not None,
            access_log=config.access_log is not None,
            connections=_connections(),
            probe_interval_s=self.options.probe_interval_s,
            probe_timeout_s=self.options.probe_timeout_s,
            run=self._run,
        )

    def _write(self, plan: Plan) -> None:
        """The files that the next process reads."""
        self._plan, self._text = plan, render(self._door(), plan)
        self._maps = self.layout.maps(self._list)
        self._folder.put("haproxy.cfg", self._text)
        for file, entries in self._maps.items():
            self._folder.put_map(file, entries)
        if self._certificate is not None:
            self._bundle = self._certificate.bundle()
            self._folder.put("door.pem", self._bundle)

    async def _judge(self, text: str) -> None:
        """Raises Refusal where HAProxy would not run with `text` and the certificate as it is now; OSError."""
        if self._certificate is not None:
            self._folder.put("door.pem", self._certificate.bundle())
        self._folder.put("next.cfg", text)
        try:
            await self.lineage.judge("next.cfg")
        except StartFailed as error:
            if self._bundle:
                # A process that is started after a crash reads it.
                self._folder.put("door.pem", self._bundle)
            raise Refusal("bad_request", f"HAProxy objects to this list: {error}") from None

    async def _succeed(self, plan: Plan) -> None:
        """A new process takes the place of the present one, which finishes what it has."""
        self._write(plan)
        await self.lineage.succeed(self._maps)

    async def _settle(self, process: HaproxyProcess) -> None:
        """Bring every place to what it should hold. Raises ApiError."""
        wanted = standing(
            self._front.pools, self.layout, self.addresses.known, self._is_known, time.monotonic()
        )
        hops = {pool.id for pool in self._plan.pools if pool.hops} if self._plan is not None else set()
        said: list[str] = []
        for key in [*(k for k in process.known if k not in wanted), *wanted]:
            now, then = process.known.get(key, EMPTY), wanted.get(key, EMPTY)
            if now != then:
                said += commands(*key, now, then, hops=key[0] in hops)
        # Noted first: what HAProxy objects to is not said again at every beat.
        process.known = wanted
        await process.do(said)


def _connections() -> int:
    """How many clients at once: as many as there are descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(100, min(MOST_CONNECTIONS, (soft - SPARE_FILES) // 2))
