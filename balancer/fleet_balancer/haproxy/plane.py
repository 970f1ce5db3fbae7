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
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

from fleet_balancer.front import Front
from fleet_balancer.haproxy.api import ApiError
from fleet_balancer.haproxy.binary import Binary, NoHaproxy, find_haproxy
from fleet_balancer.haproxy.certificate import Certificate
from fleet_balancer.haproxy.layout import Layout
from fleet_balancer.haproxy.maps import file_text
from fleet_balancer.haproxy.process import HaproxyProcess, StartFailed, check
from fleet_balancer.haproxy.render import Door, Plan, render
from fleet_balancer.haproxy.reports import Reporter
from fleet_balancer.haproxy.rows import BACKEND, NOT_YET, read_rows
from fleet_balancer.haproxy.standing import standing
from fleet_balancer.haproxy.tally import Directory, count, write_down
from fleet_balancer.haproxy.wanted import EMPTY, commands
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Pool
from fleet_balancer.probing.line import Line, ProbeFailed
from fleet_balancer.process.options import Options, UsageError
from fleet_balancer.process.statefile import Condition
from fleet_balancer.station import STALE_INTERVALS, host_key
from fleet_balancer.telemetry.access_log import AccessLogWriter
from fleet_wire.balancer import BackendList, BalancerStatus, Figure, PoolStatus
from fleet_wire.refusal import Refusal

log = logging.getLogger(__name__)

BEAT_S = 0.25
# Between two questions to a new host.
WELCOME_S = 0.1
# A host's name is looked up again this often where that failed.
RESOLVE_S = 5.0
# Pauses before HAProxy is started again where it keeps dying.
AGAIN_S = (0.0, 0.1, 0.5, 2.0, 5.0)
SETTLED_S = 10.0
# Of the descriptors that a process may have: some are for checks and files, each request needs two.
SPARE_FILES = 500
MOST_CONNECTIONS = 100_000
_FOLDER = "fleet-balancer-"


class HaproxyStation:
    """Raises UsageError where there is no HAProxy, or it objects to what `options` say; TlsError, AccessLogError."""

    def __init__(self, options: Options) -> None:
        try:
            self._binary: Binary = find_haproxy()
        except NoHaproxy as error:
            raise UsageError(str(error)) from None
        rng = random.Random()
        self.front = Front(rng, HealthRule(), STALE_INTERVALS * options.probe_interval_s)
        self._options = options
        self._reporter = Reporter(
            self.front, rng, interval_s=options.probe_interval_s, timeout_s=options.probe_timeout_s
        )
        self._certificate = None if options.config.tls is None else Certificate(options.config.tls)
        self._access_log = _access_log(options)
        self._run = os.urandom(4).hex()
        self._layout = Layout()
        self._directory = Directory({}, {}, [])
        self._list = BackendList(pools=[], backends=[])
        self._lenient = False
        self._plan: Plan | None = None
        self._text = ""
        self._maps: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, str] = {}
        self._arrivals: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        self._folder: Path | None = None
        self._number = 0
        self._current: HaproxyProcess | None = None
        self._old: list[HaproxyProcess] = []
        self._restarts = 0
        self._started_at = time.time()
        self._changing = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._stopping = False
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._welcomes: set[asyncio.Task[None]] = set()
        self._next_look = self._next_resolve = 0.0

    # What `life` asks for.

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serve who connects to `sockets`. Raises UsageError where HAProxy does not come up."""
        self._sockets = list(sockets)
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        shutil.copy(Path(__file__).with_name("waiting.lua"), self._folder)
        try:
            plan = self._plan or self._layout.plan(self._list, lenient=self._lenient)
            self._write(plan)
            self._current = await self._launched()
        except (StartFailed, OSError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise UsageError(f"HAProxy ({self._binary.path}) does not serve: {error}") from None
        self._started_at = time.time()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._beat()), loop.create_task(self._keep_alive())]
        for member in self.front.members:
            self._begin(self._welcome(member))

    async def replace(self, backends: BackendList, *, lenient: bool) -> None:
        """Make `backends` the whole truth; requests in flight finish. Raises Refusal and then changes nothing."""
        if lenient and self._options.config.keys_required and backends.keys is None:
            # The list of the command line says nothing about keys: nobody comes in before the first real one.
            backends = backends.model_copy(update={"keys": []})
        async with self._changing:
            # Judged by the house on a front of its own: what is refused must leave nothing behind.
            Front(random.Random(), HealthRule(), 1.0).swap(backends, 0.0)
            plan = self._layout.plan(backends, lenient=lenient)
            trial = Layout()
            trial.take(backends, trial.plan(backends, lenient=lenient))
            trial.maps(backends)
            text = render(self._door(), plan)
            anew = self._current is not None and text != self._text
            if anew:
                await self._judge(text)
            swap = self.front.swap(backends, time.monotonic())
            self._reporter.forget(swap.removed)
            self._reporter.watch(swap.added)
            self._layout.take(backends, plan)
            self._list, self._lenient, self._plan = backends, lenient, plan
            self._learn()
            await self._resolve()
            if self._current is None:
                return
            try:
                if anew:
                    await self._succeed(plan)
                else:
                    await self._bring_up_to_date()
            except (ApiError, StartFailed, OSError) as error:
                # What HAProxy did not take now, it gets at the next beat, or with the next process.
                log.error("HAProxy: %s", error)
            for member in swap.added:
                self._begin(self._welcome(member))

    async def configure(self, options: Options) -> None:
        """Take over what can change while it serves. Raises UsageError and as __init__; the old stays."""
        async with self._changing:
            before, certificate = self._options, self._certificate
            if options.config.tls is not None:
                certificate = Certificate(options.config.tls)
            if before.config.access_log != options.config.access_log:
                old, self._access_log = self._access_log, _access_log(options)
                if old is not None:
                    old.stop()
            elif self._access_log is not None:
                self._access_log.reopen()
            self._options, self._certificate = options, certificate
            if self._plan is None or self._current is None:
                return
            try:
                await self._judge(render(self._door(), self._plan))
                await self._succeed(self._plan)
            except (Refusal, StartFailed, ApiError, OSError) as error:
                self._options = before
                raise UsageError(f"HAProxy objects: {error}") from None

    async def status(self) -> BalancerStatus:
        await self._look()
        now = time.monotonic()
        return BalancerStatus(
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            endpoint="",
            pools=[self._pool_status(name) for name in self.front.pools],
            backends=[member.status(now) for member in self.front.members],
            figures=[
                Figure(
                    name="engine_restarts",
                    kind="counter",
                    help="Times that HAProxy was started again after it died",
                    value=self._restarts,
                )
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
        self._elsewhere = in_flight

    async def stop(self, grace_s: float, idle_s: float = 0.0) -> bool:
        """Accept nothing new and finish what is in flight; False where that took longer and was cut off.

        Clients without a request are hung up on after `idle_s`.
        """
        self._stopping = True
        tasks = [*self._tasks, *self._welcomes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self._sockets:
            one.close()
        processes = [p for p in (self._current, *self._old) if p is not None]
        finished = all(await asyncio.gather(*(self._finish(p, grace_s, idle_s) for p in processes)))
        self._current, self._old = None, []
        await self._reporter.stop()
        if self._access_log is not None:
            self._access_log.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return finished

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    async def _welcome(self, member: Member) -> None:
        """Ask a new host ourselves whether it is ready, for HAProxy looks at a new place only after an interval."""
        options = self._options
        until = time.monotonic() + options.probe_interval_s
        line = Line(member)
        while time.monotonic() < until and not member.health.healthy and not self._stopping:
            try:
                status, _ = await line.get("/readyz", None, options.probe_timeout_s)
                said = f"/readyz answered {status}"
            except ProbeFailed as failure:
                status, said = 599, str(failure)
            finally:
                line.close()
            process = self._current
            if (status == 200 or (self._lenient and status < 500)) and process is not None:
                try:
                    pool_id = self._layout.id_of(member.pool)
                    place = self._layout.slots[pool_id].place_of((member.name, member.address))
                    await process.do([f"set server {pool_id}/{place} health up"])
                    self._woken.set()
                except (KeyError, ApiError):
                    pass  # it is gone already, or HAProxy is: its own checks will find it
                return
            if not member.health.healthy:
                member.health.error = said
            await asyncio.sleep(WELCOME_S)

    # HAProxy's processes.

    def _door(self) -> Door:
        config = self._options.config
        return Door(
            limits=config.limits,
            threads=config.workers,
            sockets=len(self._sockets),
            tls=config.tls is not None,
            access_log=config.access_log is not None,
            connections=_connections(),
            probe_interval_s=self._options.probe_interval_s,
            probe_timeout_s=self._options.probe_timeout_s,
            run=self._run,
        )

    def _descriptors(self) -> list[int]:
        return [one.fileno() for one in self._sockets]

    def _write(self, plan: Plan) -> None:
        """The files that the next process reads."""
        self._plan, self._text = plan, render(self._door(), plan)
        self._maps = self._layout.maps(self._list)
        _put(self._place("haproxy.cfg"), self._text)
        for file, entries in self._maps.items():
            _put(self._place(file), file_text(entries))
        if self._certificate is not None:
            _put(self._place("door.pem"), self._certificate.bundle())

    def _place(self, file: str) -> Path:
        if self._folder is None:
            raise AssertionError("not started")
        return self._folder / file

    async def _judge(self, text: str) -> None:
        """Raises Refusal where HAProxy would not run with `text`."""
        if self._certificate is not None:
            _put(self._place("door.pem"), self._certificate.bundle())
        _put(self._place("next.cfg"), text)
        try:
            await check(self._binary.path, self._place(""), "next.cfg", self._descriptors())
        except StartFailed as error:
            raise Refusal("bad_request", f"HAProxy objects to this list: {error}") from None

    async def _launched(self) -> HaproxyProcess:
        """A new process on the files as they are, with every host in its place. Raises StartFailed."""
        self._number += 1
        process = await HaproxyProcess.start(
            self._binary.path, self._place(""), self._number, self._descriptors(), self._heard
        )
        try:
            await self._settle(process)
        except ApiError as error:
            process.kill()
            raise StartFailed(str(error)) from None
        return process

    async def _succeed(self, plan: Plan) -> None:
        """A new process takes the place of the present one, which finishes what it has."""
        self._write(plan)
        fresh = await self._launched()
        before, self._current = self._current, fresh
        if before is not None and not before.ended.is_set():
            self._old.append(before)
            before.drain()
            await self._tell_the_old(before)

    async def _tell_the_old(self, process: HaproxyProcess) -> None:
        """Kept connections ask a process that ends once more: keys that were revoked are revoked there too."""
        for file, entries in self._maps.items():
            try:
                await process.api.replace_map(file, entries)
            except ApiError:
                continue  # its configuration does not use that map, or it has ended

    async def _bring_up_to_date(self) -> None:
        """Tell the present process what has changed. Raises ApiError."""
        process = self._current
        if process is None:
            return
        for file, entries in self._layout.maps(self._list).items():
            if entries != self._maps.get(file):
                # The file too: a process that is started after a crash reads it.
                _put(self._place(file), file_text(entries))
                await process.api.replace_map(file, entries)
                self._maps[file] = entries
        await self._settle(process)

    async def _settle(self, process: HaproxyProcess) -> None:
        """Bring every place to what it should hold. Raises ApiError."""
        wanted = standing(
            self.front.pools, self._layout, self._addresses, self._reporter.is_known, time.monotonic()
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

    async def _keep_alive(self) -> None:
        """Start HAProxy again where it died."""
        deaths = 0
        while True:
            process = self._current
            if process is None:
                raise AssertionError("not started")
            began = time.monotonic()
            await process.ended.wait()
            async with self._changing:
                if process is not self._current:
                    continue
                self._lost(process)
                deaths = 0 if time.monotonic() - began > SETTLED_S else deaths + 1
                log.error("HAProxy died; it is started again")
                await asyncio.sleep(AGAIN_S[min(deaths, len(AGAIN_S) - 1)] if deaths > 1 else 0.0)
                try:
                    self._current = await self._launched()
                    self._restarts += 1
                except (StartFailed, OSError) as error:
                    log.error("HAProxy does not come up: %s", error)
                    await asyncio.sleep(AGAIN_S[-1])

    def _lost(self, process: HaproxyProcess) -> None:
        """What a process had in flight when it died was broken off."""
        for place, number in process.in_flight.items():
            member = self._directory.places.get(place)
            pool = None if member is None else self.front.pool_of(member)
            if member is not None and pool is not None:
                pool.errors += number
                member.requests += number
        process.in_flight, process.queued = {}, {}

    async def _finish(self, process: HaproxyProcess, grace_s: float, idle_s: float) -> bool:
        """Let one process finish. Idle clients keep it until they ask again; they get `idle_s`."""
        until = time.monotonic() + grace_s
        process.drain()
        finished = True
        while not process.ended.is_set():
            try:
                await self._ask(process)
            except ApiError:
                break
            if not process.busy:
                break
            if time.monotonic() >= until:
                finished = False
                break
            await asyncio.sleep(0.02)
        process.api.close()
        if finished and idle_s > 0:
            try:
                async with asyncio.timeout(max(0.0, min(idle_s, until - time.monotonic()))):
                    await process.ended.wait()
            except TimeoutError:
                pass
        process.terminate()
        await process.end(2.0)
        return finished

    # What HAProxy reports.

    def _heard(self, lines: list[str]) -> None:
        """A block of its log."""
        now = time.monotonic()
        if count(lines, self._directory, now):
            # A host may be ejected by this: HAProxy is told at once.
            self._woken.set()
        if self._access_log is not None:
            write_down(lines, self._directory, self._access_log, now)

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
                if self._current is not None and not self._current.ended.is_set():
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
        if now >= self._next_resolve:
            self._next_resolve = now + RESOLVE_S
            await self._resolve()
        if self._access_log is not None:
            self._access_log.flush(now)
        self._retire()
        if self._changing.locked():
            return
        async with self._changing:
            if self._current is not None and not self._current.ended.is_set():
                await self._bring_up_to_date()

    async def _look_at_certificate(self) -> None:
        if self._certificate is None or not self._certificate.changed() or self._plan is None:
            return
        async with self._changing:
            try:
                await self._judge(self._text)
                await self._succeed(self._plan)
                log.info("the certificate was read again")
            except (Refusal, StartFailed, ApiError, OSError) as error:
                log.error("the new certificate is not used: %s", error)

    async def _look(self) -> None:
        """Ask every process for its counts, and the present one for its hosts' health."""
        async with self._asking:
            ended = {name: _ended(pool) for name, pool in self.front.pools.items()}
            for process in (self._current, *self._old):
                if process is not None and not process.ended.is_set() and not process.api.closed:
                    try:
                        await self._ask(process)
                    except ApiError:
                        if process is self._current:
                            raise
            self._take_counts(ended)

    async def _ask(self, process: HaproxyProcess) -> None:
        """Raises ApiError."""
        # In this order a request that moves on meanwhile is missed rather than counted twice.
        table, waiting = await process.api.ask_all(["show stat -1 6 -1", "fleet waiting"])
        process.hear()
        rows = read_rows(table, self._options.probe_timeout_s)
        queued = {row.pool: row.queued for row in rows if row.name == BACKEND}
        for line in waiting.splitlines():
            pool_id, _, number = line.strip().partition(" ")
            if number.isdigit():
                queued[pool_id] = queued.get(pool_id, 0) + int(number)
        process.queued = {pool: number for pool, number in queued.items() if number}
        process.in_flight = {row.name: row.in_flight for row in rows if row.name != BACKEND and row.in_flight}
        if process is not self._current:
            return
        now = time.monotonic()
        for row in rows:
            member = self._directory.places.get(row.name)
            if member is None or row.name == BACKEND or (row.pool, row.name) not in process.known:
                continue
            if process.known[row.pool, row.name].ip is None:
                continue
            if row.up and not member.health.healthy:
                changed = member.health.passed(now)
            elif not row.up and member.health.healthy:
                changed = member.health.connect_failed(row.error or "it fails its checks", now)
            else:
                changed = False
                if row.error != NOT_YET and (not row.up or row.error is None):
                    member.health.error = row.error
            if changed:
                if row.up:
                    log.info("host %s is in", member.name)
                else:
                    log.warning("host %s is out: %s", member.name, member.health.error)
                self.front.refresh(member, now)

    def _take_counts(self, ended: dict[str, int]) -> None:
        """`ended`: requests of each pool that were over before HAProxy was asked."""
        counts: dict[str, int] = {}
        for process in (self._current, *self._old):
            if process is not None:
                for place, number in process.in_flight.items():
                    counts[place] = counts.get(place, 0) + number
        for place, member in self._directory.places.items():
            number = counts.get(place, 0)
            if member.in_flight != number:
                member.in_flight = number
                member.changed()

        for name, pool in self.front.pools.items():
            seen = ended.get(name, 0) + self._queued(name) + sum(m.in_flight for m in pool.members)
            self._arrivals[name] = max(self._arrivals.get(name, 0), seen)

    def _queued(self, name: str) -> int:
        pool_id = self._layout.id_of(name)
        return sum(p.queued.get(pool_id, 0) for p in (self._current, *self._old) if p is not None)

    def _pool_status(self, name: str) -> PoolStatus:
        """The log is behind the counts by a moment: what it has not told of yet counts as in flight."""
        pool = self.front.pools[name]
        queued = self._queued(name)
        arrivals = max(self._arrivals.get(name, 0), _ended(pool) + queued)
        return pool.status().model_copy(
            update={"arrivals": arrivals, "queued": queued, "in_flight": arrivals - _ended(pool) - queued}
        )

    def _retire(self) -> None:
        """Old processes that have nothing left to do."""
        for process in list(self._old):
            if process.ended.is_set():
                self._old.remove(process)
            elif not process.busy and not process.api.closed:
                # It goes on until its idle clients have come back, or left; our connection would keep it for ever.
                process.api.close()

    def _learn(self) -> None:
        """Whom HAProxy's names mean from now on. Who stood in a place last is remembered: the log is behind."""
        directory = self._directory
        directory.keys = [key.name for key in self._list.keys or ()]
        for name, pool in self.front.pools.items():
            directory.pools[self._layout.id_of(name)] = pool
        for member in self.front.members:
            slots = self._layout.slots[self._layout.id_of(member.pool)]
            directory.places[slots.place_of((member.name, member.address))] = member

    async def _resolve(self) -> None:
        """Look hosts' names up; HAProxy wants addresses."""
        loop = asyncio.get_running_loop()
        hosts = {member.host for member in self.front.members}
        self._addresses = {host: ip for host, ip in self._addresses.items() if host in hosts}
        for host in hosts - self._addresses.keys():
            try:
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                for member in self.front.members:
                    if member.host == host:
                        member.health.error = f"{host}: {error.strerror or error}"
                continue
            self._addresses[host] = str(found[0][4][0])


def _ended(pool: Pool) -> int:
    return pool.completed + pool.errors + pool.refused + pool.abandoned


def _connections() -> int:
    """How many clients at once: as many as there are descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(100, min(MOST_CONNECTIONS, (soft - SPARE_FILES) // 2))


def _sweep() -> None:
    """Remove the folders of balancers that were killed: there may be tokens in them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        try:
            if pid.isdecimal() and folder.stat().st_uid == os.geteuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _put(path: Path, text: str) -> None:
    """Write a file that only we may read: it may hold tokens."""
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _access_log(options: Options) -> AccessLogWriter | None:
    if options.config.access_log is None:
        return None
    writer = AccessLogWriter(options.config.access_log)
    writer.start()
    return writer
