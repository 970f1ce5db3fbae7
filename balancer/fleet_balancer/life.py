"""A balancer's life: from its options to the last reply, and what signals mean.

SIGTERM, SIGINT: accept nothing new, finish what is in flight, end. SIGHUP: read the options again; what can't change in
place goes to a new process. SIGUSR2: a new process takes over in any case, as after an upgrade of the program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fleet_balancer.access.tls import TlsError
from fleet_balancer.admin.desk import Desk
from fleet_balancer.admin.server import AdminServer, is_loopback
from fleet_balancer.handover import HandoverFailed, Heir, Inheritance, Predecessor, Successor
from fleet_balancer.haproxy.plane import HaproxyStation
from fleet_balancer.process.channel import ChannelClosed
from fleet_balancer.process.condition import Condition
from fleet_balancer.process.listener import Listener, opened, widened
from fleet_balancer.process.options import Options, UsageError
from fleet_balancer.process.statefile import SavedState, StateKeeper, read_state
from fleet_balancer.roster import Roster
from fleet_balancer.station import Station
from fleet_balancer.telemetry.access_log import AccessLogError
from fleet_balancer.workers.crew import Crew
from fleet_balancer.workers.nursery import Nursery
from fleet_wire.refusal import Refusal

log = logging.getLogger(__name__)

# How often ejections are written to the state file, and the old process's requests are asked for.
TEND_S = 1.0
ASK_S = 0.25
# Until a change that needs a new process is tried again, where none came up.
AGAIN_S = 15.0
# What can't change while a process serves.
_FIXED = ("listen", "admin", "engine", "workers", "state_file", "keys_required")


class Balancer:
    """`reread` makes the options anew from the same command line; it raises UsageError. `nursery`: for workers."""

    def __init__(
        self, options: Options, reread: Callable[[], Options], nursery: Nursery | None = None
    ) -> None:
        self._options = options
        self._reread = reread
        self._nursery = nursery
        self._stop = asyncio.Event()
        self._successor: Successor | None = None
        self._starting: Successor | None = None
        self._again: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> int:
        """Serve until a signal or a successor ends it; the exit code. Raises UsageError where it can't begin."""
        options = self._options
        token = options.token()
        if token is None and not is_loopback(options.admin[0]):
            raise UsageError(
                f"--admin {options.config.admin} can be reached from other machines: give --token-file, or 127.0.0.1"
            )
        allow_many_files()
        heir = Heir.from_environment()
        try:
            option = "--listen"
            listener = _listener(heir, "listen", options.config.listen, options.listen)
            if self._nursery is not None:
                listener = widened(listener, options.config.workers)
            option = "--admin"
            at_admin = _listener(heir, "admin", options.config.admin, options.admin)
        except OSError as error:
            raise UsageError(f"{option}: cannot listen on {error.strerror or error}") from None
        self._listeners = {"listen": listener, "admin": at_admin}
        self._past = None if heir is None else await heir.predecessor()
        inheritance = await self._inherit()
        state = inheritance.state
        try:
            self._plane = _plane(options, self._nursery)
            lenient = state.roster.lenient
            await self._plane.replace(state.roster.effective(), lenient=lenient)
            await self._plane.restore(state.condition)
            await self._plane.start(listener.copies())
        except (TlsError, AccessLogError) as error:
            raise UsageError(str(error)) from None
        except Refusal as refusal:
            raise UsageError(f"the hosts contradict each other: {refusal.message}") from None
        self._desk = Desk(
            self._plane,
            state.roster,
            None if options.config.state_file is None else StateKeeper(Path(options.config.state_file)),
            self._past,
            self.reload,
            started_at=inheritance.started_at,
            endpoint=f"{'http' if options.config.tls is None else 'https'}://{listener.address}",
        )
        self._server = AdminServer(self._desk, token)
        await self._server.start(at_admin.copies())
        await self._desk.save()
        self._heed_signals()
        self._announce()
        if self._past is not None:
            try:
                await self._past.serving()
            except ChannelClosed:
                pass  # the old process was killed: there is nobody to wait for
            self._begin(self._follow(self._past))
        self._begin(self._tend())
        await self._stop.wait()
        return await self._end()

    async def reload(self) -> int:
        """Hand over to a new process; returns its pid once it serves.

        Raises Refusal where none comes up; this one then serves on.
        """
        if self._starting is not None or self._stop.is_set():
            raise Refusal("conflict", "a new process is being started already, or this one ends")
        successor = self._starting = Successor(
            self._listeners, self._bequeath, self._desk.status, self._in_flight
        )
        try:
            await successor.start()
        except (HandoverFailed, OSError) as error:
            self._desk.take_back()
            log.error("no hand-over: %s", error)
            raise Refusal("unavailable", str(error), 1.0) from None
        finally:
            self._starting = None
        log.info("process %d has taken over; this one finishes what it has", successor.pid)
        self._successor = successor
        self._desk.close()
        self._stop.set()
        return successor.pid

    # Beginning.

    async def _inherit(self) -> Inheritance:
        """What to begin with: the old process's knowledge, else the state file's, else nothing."""
        options = self._options
        first = Roster(given=options.first, lenient=True)
        saved: SavedState | None = None
        started_at = time.time()
        if self._past is not None:
            try:
                given = await self._past.take()
            except ChannelClosed:
                self._past = None
            else:
                saved, started_at = given.state, given.started_at
        if saved is None and options.config.state_file is not None:
            saved = read_state(Path(options.config.state_file))
        if saved is None:
            saved = SavedState(roster=first, condition=Condition())
        elif options.fixed:
            # The command line says which hosts; what the operator and the hosts did still holds.
            saved = saved.model_copy(update={"roster": saved.roster.put(options.first, lenient=True)})
        return Inheritance(state=saved, started_at=started_at)

    def _announce(self) -> None:
        endpoint, admin = (self._listeners[name].address for name in ("listen", "admin"))
        scheme = "http" if self._options.config.tls is None else "https"
        sys.stdout.write(f"listening on {scheme}://{endpoint}\nadmin on http://{admin}\n")
        sys.stdout.flush()
        if self._options.ready_file is not None:
            path = Path(self._options.ready_file)
            part = path.with_name(f"{path.name}.{os.getpid()}.part")
            ready = {"pid": os.getpid(), "listen": endpoint, "admin": admin}
            try:
                part.write_text(json.dumps(ready), encoding="utf-8")
                part.replace(path)
            except OSError as error:
                # It serves already: who waits for the file is worse off without the balancer.
                log.error("the ready file %s can't be written: %s", path, error.strerror or error)

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._begin(self._hand_over()))
        if self._nursery is not None:
            # Nothing comes from there unasked but its end: then a new process has to make the workers.
            loop.add_reader(self._nursery.end.fileno(), self._nursery_lost)

    # Serving.

    def _hang_up(self) -> None:
        if self._stop.is_set():
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._begin(self._hear_hangup())

    async def _hear_hangup(self) -> None:
        try:
            options = self._reread()
            token = options.token()
            before, after = self._options.config, options.config
            moved = [name for name in _FIXED if getattr(before, name) != getattr(after, name)]
            if (before.tls is None) != (after.tls is None):
                moved.append("tls")
            if moved:
                log.info("%s changed: a new process takes over", ", ".join(moved))
                if not await self._hand_over():
                    log.error("%s: not in force yet; tried again in %.0f s", ", ".join(moved), AGAIN_S)
                    self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._hang_up)
                return
            await self._plane.configure(options)
        except (UsageError, TlsError, AccessLogError) as error:
            log.error("the options stay as they were: %s", error)
            return
        self._options = options
        self._server.token = token
        log.info("the options were read again")

    def _nursery_lost(self) -> None:
        if self._nursery is not None:
            asyncio.get_running_loop().remove_reader(self._nursery.end.fileno())
            log.error("the process that starts workers is gone")
            self._begin(self._hand_over())

    async def _hand_over(self) -> bool:
        """Whether a new process serves; reload() says why not."""
        try:
            await self.reload()
        except Refusal as refusal:
            if refusal.code == "conflict":
                log.error("no new process: %s", refusal.message)
            return False
        return True

    async def _tend(self) -> None:
        """Ejections come and go without anybody asking: they go to the state file too."""
        while True:
            await asyncio.sleep(TEND_S)
            await self._desk.save()

    async def _follow(self, past: Predecessor) -> None:
        """Requests that the old process still has on the hosts count here, until it has finished them."""
        while not past.ended.is_set():
            await self._plane.elsewhere(await past.in_flight())
            await asyncio.sleep(ASK_S)
        await past.status()
        await self._plane.elsewhere({})

    async def _bequeath(self) -> Inheritance:
        return Inheritance(state=await self._desk.give_away(), started_at=self._desk.started_at)

    async def _in_flight(self) -> dict[str, int]:
        """What is on the hosts by this process and those before it."""
        counts = await self._plane.in_flight()
        if self._past is not None and not self._past.ended.is_set():
            for key, count in (await self._past.in_flight()).items():
                counts[key] = counts.get(key, 0) + count
        return counts

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Ending.

    async def _end(self) -> int:
        for listener in self._listeners.values():
            listener.close()
        if self._starting is not None:
            self._starting.abort()
        await self._server.stop()
        handed_over = self._successor is not None
        grace_s = self._options.grace_s
        if handed_over:
            # Somebody else serves: there is all the time that requests may take.
            pools = self._desk.roster.given.pools
            longest_s = max((pool.request_timeout_s for pool in pools), default=0.0)
            finished = await self._plane.stop(max(grace_s, longest_s), grace_s)
        else:
            finished = await self._plane.stop(grace_s)
        if self._past is not None and handed_over:
            # Who came before may still have requests: their counts reach the successor through here.
            try:
                async with asyncio.timeout(grace_s):
                    await self._past.ended.wait()
            except TimeoutError:
                pass
        for task in list(self._tasks):
            task.cancel()
        if self._successor is not None:
            await self._successor.farewell(await self._desk.status())
        return 0 if finished or handed_over else 1


def _plane(options: Options, nursery: Nursery | None) -> Station | Crew | HaproxyStation:
    """Who serves. HAProxy shares the work among threads of its own."""
    if options.config.engine == "haproxy":
        return HaproxyStation(options)
    return Station(options) if nursery is None else Crew(options, nursery)


def _listener(heir: Heir | None, name: str, text: str, address: tuple[str, int]) -> Listener:
    inherited = None if heir is None else heir.listener(name, text)
    return opened(text, *address) if inherited is None else inherited


def allow_many_files() -> None:
    """Each request in flight takes two sockets: allow as many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
