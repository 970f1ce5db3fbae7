"""Asks every host over and over whether it is ready, and, where somebody needs to know, how much device memory it has.

Decides what counts as ready: 200 to /readyz; for `lenient` lists (hosts named on the command line, which may be any
HTTP server) every answer below 500. Never believes a reply's size or shape.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError

from fleet_balancer.front import Front
from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder
from fleet_balancer.http.grammar import CHUNKED, UNTIL_CLOSE, Limits
from fleet_balancer.http.response import BadResponse, parse_response
from fleet_balancer.member import Member, MemoryReport
from fleet_balancer.proxy import Proxy
from fleet_wire.agent import DeviceMemory

MAX_REPLY = 1024 * 1024
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


class ProbeFailed(Exception):
    """str() says what went wrong, for the status page."""


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
        self._tasks: dict[Member, asyncio.Task[None]] = {}
        self._asleep: dict[Member, asyncio.Future[None]] = {}
        proxy.doubted = self.hurry

    def watch(self, members: Iterable[Member], *, lenient: bool) -> None:
        """Begin to probe. `lenient`: they need not be agents (see above).

        The first probes are as good as at once, but a list of thousands is spread over an interval.
        """
        members = list(members)
        gap = min(FIRST_GAP_S, self._interval_s / max(1, len(members)))
        for i, member in enumerate(members):
            self._tasks[member] = asyncio.get_running_loop().create_task(
                self._watch(member, lenient, i * gap)
            )

    def hurry(self, member: Member) -> None:
        """A request found something wrong with `member`: ask it now, and not when its turn comes."""
        asleep = self._asleep.get(member)
        if asleep is not None and not asleep.done():
            asleep.set_result(None)

    def forget(self, members: Iterable[Member]) -> None:
        for member in members:
            self._tasks.pop(member).cancel()

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, member: Member, lenient: bool, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._probe(member, lenient)
        # From here on each host has its own beat: hosts that came together are not asked together.
        beat = self._rng.random()
        while True:
            pause = member.health.pause_s(time.monotonic(), self._interval_s)
            await self._sleep(member, pause * (1.0 + JITTER * (2.0 * self._rng.random() - 1.0)) * beat)
            beat = 1.0
            await self._probe(member, lenient)

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

    async def _probe(self, member: Member, lenient: bool) -> None:
        try:
            status, _ = await self._get(member, "/readyz", None)
            if not (status == 200 or (lenient and status < 500)):
                raise ProbeFailed(f"/readyz answered {status}")
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
        report = await self._memory(member)
        if report is not None:
            pool.reported(member, report)
            self._proxy.serve_waiting()

    async def _memory(self, member: Member) -> MemoryReport | None:
        return await ask_memory(member, self._timeout_s)

    async def _get(self, member: Member, path: str, token: str | None) -> tuple[int, bytes]:
        return await ask(member, path, token, self._timeout_s)


async def ask_memory(member: Member, timeout_s: float) -> MemoryReport | None:
    """The host's memory now; None where it could not be asked, so that the last report grows old."""
    own = member.in_flight + member.elsewhere
    try:
        status, body = await ask(member, "/status", member.spec.token, timeout_s)
    except ProbeFailed:
        return None
    if status != 200:
        # It has no status to give: its memory is unknown, and unknown is not full.
        return MemoryReport(time.monotonic())
    return read_report(body, time.monotonic(), max(own, member.in_flight + member.elsewhere))


async def ask(member: Member, path: str, token: str | None, timeout_s: float) -> tuple[int, bytes]:
    """GET over a connection of its own: whether the host still accepts is part of the question. Raises ProbeFailed."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(member.host, member.port, limit=MAX_REPLY)
            try:
                authorization = f"authorization: Bearer {token}\r\n" if token else ""
                writer.write(
                    f"GET {path} HTTP/1.1\r\nhost: {member.address}\r\nuser-agent: fleet-balancer (probe)\r\n"
                    f"{authorization}connection: close\r\n\r\n".encode()
                )
                return await _read_reply(reader)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise ProbeFailed(f"{path} gave no answer within {timeout_s:g} s") from None
    except (OSError, BadResponse, BadChunk) as error:
        raise ProbeFailed(f"{path}: {error}") from None


def read_report(body: bytes, now: float, own: int = 0) -> MemoryReport:
    """AgentStatus JSON as a report; whatever makes no sense (negative, more used than a total of 0) is unknown.

    `own`: how many requests this balancer had there meanwhile.
    """
    try:
        report = _Report.model_validate_json(body)
    except ValidationError:
        return MemoryReport(now)
    busy = None if report.in_flight is None else max(0, report.in_flight + report.queued)
    used, total = report.device_memory.used_bytes, report.device_memory.total_bytes
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


async def _read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    data = b""
    while (head := parse_response(data, b"GET", Limits())) is None or head.status < 200:
        if head is not None:
            data = data[head.size :]
            continue
        more = await reader.read(64 * 1024)
        if not more:
            raise ProbeFailed("the connection was closed before an answer came")
        data += more
    body = data[head.size :]
    decoder = ChunkedDecoder() if head.length == CHUNKED else None
    payload = decoder.feed(body) if decoder else body
    while len(payload) <= MAX_REPLY:
        if decoder.done if decoder else head.length != UNTIL_CLOSE and len(payload) >= head.length:
            return head.status, payload
        more = await reader.read(64 * 1024)
        if not more:
            if head.length == UNTIL_CLOSE:
                return head.status, payload
            raise ProbeFailed("the connection was closed in the midst of an answer")
        payload += decoder.feed(more) if decoder else more
    raise ProbeFailed(f"the answer is longer than {MAX_REPLY} bytes")
