"""Asks every host over and over whether it is ready, and, where somebody needs to know, how much device memory it has.

Decides what counts as ready: 200 to /readyz; for `lenient` lists (hosts named on the command line, which may be any
HTTP server) every answer below 500. A refused connection takes a host out at once, as it does where a request finds it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError

from fleet_balancer.front import Front
from fleet_balancer.member.member import Member, MemoryReport
from fleet_balancer.probing.line import Line, NobodyListens, ProbeFailed
from fleet_balancer.probing.rounds import Rounds
from fleet_balancer.proxy.proxy import Proxy
from fleet_wire.agent import DeviceMemory

log = logging.getLogger(__name__)

# A host that has not been ready for this long is worth a line in the log.
LATE_S = 3.0
# Shares of a pause, and seconds between the first probes of hosts that came in one list.
JITTER = 0.1
FIRST_GAP_S = 0.001


class _ModelMemory(BaseModel):
    name: str
    device_memory_bytes: int | None = None


class _Report(BaseModel):
    """The part of AgentStatus that is read here: a host of a later version still reports its memory."""

    models: list[_ModelMemory] = []
    device_memory: DeviceMemory = DeviceMemory()
    in_flight: int | None = None
    queued: int = 0


class Prober:
    """One task per host. `interval_s` between probes (+-10 %), each of at most `timeout_s`; see Health.pause_s for
    hosts that are out or in doubt."""

    def __init__(
        self,
        front: Front,
        proxy: Proxy,
        rng: random.Random,
        *,
        interval_s: float,
        timeout_s: float,
    ) -> None:
        self._front = front
        self._proxy = proxy
        self._rng = rng
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._rounds = Rounds()
        self._asleep: dict[Member, asyncio.Future[None]] = {}
        proxy.doubted = self.hurry

    def watch(self, members: Iterable[Member], *, lenient: bool) -> None:
        """Begin to probe. `lenient`: they need not be agents (see above).

        The first probes are as good as at once, but a list of thousands is spread over an interval.
        """
        members = list(members)
        gap = min(FIRST_GAP_S, self._interval_s / max(1, len(members)))
        for i, member in enumerate(members):
            self._rounds.begin(member, self._watch(member, lenient, i * gap))

    def hurry(self, member: Member) -> None:
        """A request found something wrong with `member`: ask it now, and not when its turn comes."""
        asleep = self._asleep.get(member)
        if asleep is not None and not asleep.done():
            asleep.set_result(None)

    def forget(self, members: Iterable[Member]) -> None:
        self._rounds.forget(members)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _watch(self, member: Member, lenient: bool, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._rounds.lines[member] = Line(member, lambda: self._hung_up(member))
        began: float | None = time.monotonic()
        await self._probe(member, lenient)
        # From here on each host has its own beat: hosts that came together are not asked together.
        beat = self._rng.random()
        while True:
            pause = member.health.pause_s(time.monotonic(), self._interval_s)
            await self._sleep(member, pause * (1.0 + JITTER * (2.0 * self._rng.random() - 1.0)) * beat)
            beat = 1.0
            await self._probe(member, lenient)
            if began is not None and (member.health.proven or time.monotonic() - began > LATE_S):
                if not member.health.proven:
                    log.warning(
                        "host %s (%s) is not in yet: %s", member.name, member.address, member.health.error
                    )
                began = None

    async def _sleep(self, member: Member, seconds: float) -> None:
        """Until `seconds` have passed, or hurry() was called."""
        loop = asyncio.get_running_loop()
        awake = self._asleep[member] = loop.create_future()
        timer = loop.call_later(seconds, _wake, awake)
        try:
            await awake
        finally:
            timer.cancel()
            if self._asleep.get(member) is awake:
                del self._asleep[member]

    def _hung_up(self, member: Member) -> None:
        """The host closed our connection: it may just have ended."""
        if member.health.healthy:
            self.hurry(member)

    async def _probe(self, member: Member, lenient: bool) -> None:
        try:
            status, _ = await self._rounds.lines[member].get("/readyz", None, self._timeout_s)
            if not (status == 200 or (lenient and status < 500)):
                raise ProbeFailed(f"/readyz answered {status}")
        except NobodyListens as failure:
            changed = member.health.connect_failed(str(failure), time.monotonic())
        except ProbeFailed as failure:
            changed = member.health.failed(str(failure), time.monotonic())
        else:
            # Before it is let in: what fits on its device is known with its first request, not after some.
            await self._report(member)
            changed = member.health.passed(time.monotonic())
        if changed:
            self._proxy.health_changed(member)

    async def _report(self, member: Member) -> None:
        pool = self._front.pool_of(member)
        if pool is None or not pool.reads_memory:
            return
        report = await ask_memory(self._rounds.lines[member], member, self._timeout_s)
        if report is not None:
            pool.reported(member, report)
            self._proxy.serve_waiting()


async def ask_memory(line: Line, member: Member, timeout_s: float) -> MemoryReport | None:
    """The host's memory now; None where it could not be asked, so that the last report grows old."""
    own = member.in_flight + member.elsewhere
    try:
        status, body = await line.get("/status", member.spec.token, timeout_s)
    except ProbeFailed:
        return None
    if status != 200:
        # It has no status to give: its memory is unknown, and unknown is not full.
        return MemoryReport(time.monotonic())
    return read_report(body, time.monotonic(), max(own, member.in_flight + member.elsewhere))


def read_report(body: bytes, now: float, own: int = 0) -> MemoryReport:
    """AgentStatus JSON as a report; whatever makes no sense (negative, more used than a total of 0) is unknown.

    `own`: how many requests this balancer had there meanwhile.
    """
    try:
        report = _Report.model_validate_json(body)
    except ValidationError:
        return MemoryReport(now)
    busy = None if report.in_flight is None else max(0, report.in_flight + report.queued)
    used, total = report.device_memory.taken_bytes, report.device_memory.total_bytes
    if used is None or total is None or used < 0 or total <= 0:
        return MemoryReport(now, busy=busy, own=own)
    held = {
        m.name: m.device_memory_bytes
        for m in report.models
        if m.device_memory_bytes and m.device_memory_bytes > 0
    }
    return MemoryReport(now, used, total, held, busy, own)


def _wake(awake: asyncio.Future[None]) -> None:
    if not awake.done():
        awake.set_result(None)
