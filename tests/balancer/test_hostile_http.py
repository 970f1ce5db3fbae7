"""Hostile requests and hostile host responses, each against a balancer and an origin on real sockets.

http_cases.json holds cases with what other proxies do; http_siblings.json holds their siblings: what else a parser of
the same rule may get wrong.

Every case names the outcomes that are allowed. NOT_MET lists those the balancer does not meet: such a case must go on
failing, so that the list can only become shorter.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fleet_balancer.front import Front
from fleet_balancer.member.health import HealthRule
from fleet_balancer.process.listener import opened
from fleet_balancer.proxy.proxy import Proxy
from fleet_balancer.proxy.settings import Settings
from fleet_wire.balancer import Backend, BackendList, PoolConfig

NOT_MET: dict[str, str] = {}

FOLDER = Path(__file__).parent
CORPORA = [
    json.loads((FOLDER / name).read_text(encoding="utf-8"))
    for name in ("http_cases.json", "http_siblings.json")
]
CASES = {part: [case for corpus in CORPORA for case in corpus[part]] for part in ("requests", "responses")}
NAMES = [case["name"] for part in ("requests", "responses") for case in CASES[part]]
HEADER_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_S = 1.5
# Pauses in the cases' scripts are for time-outs of 5 s; ours is 1 s here.
PACE = 0.25
SETTLE_S = 0.3


def raw_bytes(raw: str | list[Any]) -> bytes:
    """A case's bytes: plain, or as [text, times] parts; a part marked "series" is numbered."""
    if isinstance(raw, str):
        return raw.encode("latin-1")
    out = b""
    for text, times, *series in raw:
        out += b"".join((text % i if series else text).encode("latin-1") for i in range(times))
    return out


@dataclass
class Origin:
    """Reads requests as a careful server would and answers 200, or `answer`. `seen` is every connection's bytes."""

    answer: bytes | None = None
    closes: bool = False
    segments: list[bytes] = field(default_factory=list)
    seen: list[bytearray] = field(default_factory=list)
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)  # head, body: complete ones
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = bytearray()
        self.seen.append(seen)
        self.writers.append(writer)
        try:
            while True:
                head = await self._until(reader, seen, b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n", head)
                body = b""
                if re.search(rb"(?i)\r\ntransfer-encoding:", head):
                    while size := int((await self._until(reader, seen, b"\r\n")).split(b";")[0], 16):
                        body += await self._exactly(reader, seen, size)
                        await self._exactly(reader, seen, 2)
                    while await self._until(reader, seen, b"\r\n") != b"\r\n":
                        pass
                elif length:
                    body = await self._exactly(reader, seen, int(length[1]))
                self.requests.append((head, body))
                if self.segments and b" /after-" not in head:
                    for segment in self.segments:
                        writer.write(segment)
                        await asyncio.sleep(0.03)
                elif self.answer is not None and b" /after-" not in head:
                    writer.write(self.answer)
                    if self.closes:
                        break
                else:
                    path = head.split(b" ")[1]
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(path) + path)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _until(self, reader: asyncio.StreamReader, seen: bytearray, end: bytes) -> bytes:
        data = await reader.readuntil(end)
        seen += data
        return data

    async def _exactly(self, reader: asyncio.StreamReader, seen: bytearray, size: int) -> bytes:
        data = await reader.readexactly(size)
        seen += data
        return data


@dataclass
class Lab:
    """A balancer in this process with one origin behind it."""

    origin: Origin
    port: int = 0

    async def __aenter__(self) -> Lab:
        self.server = await asyncio.start_server(self.origin.serve, "127.0.0.1", 0, limit=1 << 20)
        address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        front = Front(random.Random(1), HealthRule(), 3.0)
        settings = Settings(header_timeout_s=HEADER_TIMEOUT_S, body_timeout_s=HEADER_TIMEOUT_S)
        self.proxy = Proxy(front, settings, asyncio.get_running_loop())
        pool = PoolConfig(request_timeout_s=REQUEST_TIMEOUT_S, queue_timeout_s=REQUEST_TIMEOUT_S)
        swap = front.swap(BackendList(pools=[pool], backends=[Backend(name="origin", address=address)]), 0.0)
        self.proxy.swap(swap)
        front.members[0].health.passed()
        self.proxy.health_changed(front.members[0])
        listener = opened("127.0.0.1:0", "127.0.0.1", 0)
        await self.proxy.start(listener.sockets)
        self.port = int(listener.address.rpartition(":")[2])
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.proxy.stop(0.0)
        self.server.close()
        for writer in self.origin.writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # transports close in the loop's next turns


@dataclass
class Heard:
    data: bytes
    closed: bool

    def statuses(self) -> list[int]:
        """Of the replies that lie one after the other in `data`; bodies by Content-Length, chunks or close."""
        found = []
        rest = self.data
        while match := re.match(rb"HTTP/1\.1 ([0-9]{3})[^\r]*\r\n((?:[^\r]+\r\n)*)\r\n", rest):
            found.append(int(match[1]))
            rest = rest[match.end() :]
            if length := re.search(rb"(?i)content-length: ([0-9]+)", match[2]):
                rest = rest[int(length[1]) :]
            elif b"transfer-encoding" in match[2].lower():
                _, _, rest = rest.partition(b"\r\n0\r\n\r\n")
        assert not rest or b"transfer-encoding" in self.data.lower(), f"not a reply: {rest[:80]!r}"
        return found


async def talk(port: int, case: dict[str, Any], raw: bytes, wait_s: float) -> Heard:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = Heard(b"", False)

    async def listen() -> None:
        try:
            while data := await reader.read(65536):
                heard.data += data
        except ConnectionError:
            pass
        heard.closed = True

    listener = asyncio.ensure_future(listen())
    try:
        for step in case.get("script") or [["send", None]]:
            if step[0] == "send":
                writer.write(raw if step[1] is None else step[1].encode("latin-1"))
            elif step[0] == "drip":
                await asyncio.sleep(step[2] * PACE)
                writer.write(step[1].encode("latin-1"))
            elif step[0] == "bytes1":
                for byte in step[1].encode("latin-1"):
                    writer.write(bytes((byte,)))
                    await asyncio.sleep(0.001)
            elif step[0] == "idle":
                await asyncio.wait([listener], timeout=step[1])
            else:
                raise AssertionError(step)
        await writer.drain()
        if case.get("client_half_close"):
            writer.write_eof()
    except (OSError, RuntimeError):
        pass  # closed by the balancer; uvloop says so with a RuntimeError
    done, _ = await asyncio.wait([listener], timeout=SETTLE_S)
    if not done and not heard.data:
        await asyncio.wait([listener], timeout=wait_s)
    listener.cancel()
    writer.transport.abort()
    return heard


async def run_request(case: dict[str, Any]) -> None:
    origin = Origin()
    async with Lab(origin) as lab:
        heard = await talk(lab.port, case, raw_bytes(case["raw"]), HEADER_TIMEOUT_S + REQUEST_TIMEOUT_S)
        await asyncio.sleep(0.02)
        statuses = [s for s in heard.statuses() if s != 100]
        allowed = {case["expect"], *case.get("also_ok", ())}
        context = f"statuses={statuses} closed={heard.closed} origin={origin.requests!r:.300}"
        if not statuses:
            assert heard.closed, f"neither answered nor closed; {context}"
            assert "close" in allowed, f"closed without an answer; {context}"
            # Half-closed after a whole request: the origin may have seen it.
            assert not origin.requests or "forward_normalised" in allowed, context
            return
        if statuses[0] >= 400:
            assert "reject_4xx" in allowed, f"refused; {context} {heard.data[:300]!r}"
            assert statuses[0] in case["accept_status"], context
            assert not origin.requests, context
            if not case.get("origin_incomplete_ok"):
                assert not any(origin.seen), context
            return
        assert statuses[0] == 200, context
        assert "forward_normalised" in allowed, f"forwarded; {context}"
        seen = b"".join(bytes(s) for s in origin.seen)
        if "origin_requests" in case:
            assert len(origin.requests) == case["origin_requests"], context
        if "client_responses" in case:
            assert len(statuses) == case["client_responses"], context
        if "origin_body" in case:
            assert origin.requests[0][1] == case["origin_body"].encode("latin-1"), context
        for pattern in case.get("origin_must", ()):
            assert re.search(pattern.encode("latin-1"), seen), f"origin did not get {pattern}: {seen[:500]!r}"
        for pattern in case.get("origin_must_not", ()):
            assert not re.search(pattern.encode("latin-1"), seen), f"origin got {pattern}: {seen[:500]!r}"
        if case.get("close_after_forward"):
            assert heard.closed, f"left open; {context}"


async def run_response(case: dict[str, Any]) -> None:
    method = case["request_method"]
    origin = Origin(answer=raw_bytes(case["raw"]), closes=case["origin_closes"])
    async with Lab(origin) as lab:
        request = f"{method} /g HTTP/1.1\r\nHost: fleet.test\r\n\r\n".encode()
        heard = await talk(lab.port, {}, request, REQUEST_TIMEOUT_S + 1.0)
        allowed = {case["expect"], *case.get("also_ok", ())}
        context = f"closed={heard.closed} {heard.data[:400]!r}"
        assert heard.data.startswith(b"HTTP/1.1 "), context
        status = heard.data[9:12].decode()
        cut_off = heard.closed and status not in ("502", "504")
        outcome = status if status in ("502", "504") else "abort" if cut_off else "forward_normalised"
        assert outcome in allowed, f"{outcome}; {context}"
        for pattern in case.get("client_must", ()):
            assert re.search(pattern.encode("latin-1"), heard.data), (
                f"client did not get {pattern}: {context}"
            )
        for pattern in case.get("client_must_not", ()):
            assert not re.search(pattern.encode("latin-1"), heard.data), f"client got {pattern}: {context}"
        # Whatever the host sent: whoever comes next gets an answer to their own question.
        for i in range(3):
            path = b"/after-%d" % i
            after = await talk(lab.port, {}, b"GET " + path + b" HTTP/1.1\r\nHost: fleet.test\r\n\r\n", 1.0)
            assert after.data.endswith(b"\r\n\r\n" + path), f"poisoned: {after.data!r}"


@pytest.mark.parametrize(
    "segments",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEVIL"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"okEVIL"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", b"EVIL"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nEVIL"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\nok\r\n0\r\n\r\nEVIL"],
    ],
)
def test_a_connection_with_a_byte_too_many_is_not_used_again(segments: list[bytes]) -> None:
    async def run() -> None:
        origin = Origin(segments=segments)
        async with Lab(origin) as lab:
            first = await talk(lab.port, {}, b"GET /g HTTP/1.1\r\nHost: a\r\n\r\n", 1.0)
            assert b"EVIL" not in first.data
            assert len(origin.seen) == 1
            after = await talk(lab.port, {}, b"GET /after-0 HTTP/1.1\r\nHost: a\r\n\r\n", 1.0)
            assert after.data.endswith(b"/after-0")
            assert len(origin.seen) == 2

    uvloop.run(run())


async def run_all() -> dict[str, str | None]:
    """Every case's failure, None where it is met; many at once, most of the time is waiting."""
    gate = asyncio.Semaphore(24)

    async def one(run: Any, case: dict[str, Any]) -> tuple[str, str | None]:
        async with gate:
            try:
                async with asyncio.timeout(30):
                    await run(case)
            except AssertionError as error:
                return case["name"], str(error)
            except TimeoutError:
                return case["name"], "the case did not come to an end"
            except Exception as error:  # the boundary of a case: whatever went wrong is this case's failure
                return case["name"], repr(error)
            return case["name"], None

    runs = [one(run_request, c) for c in CASES["requests"]] + [
        one(run_response, c) for c in CASES["responses"]
    ]
    return dict(await asyncio.gather(*runs))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    return uvloop.run(run_all())


@pytest.mark.parametrize("name", NAMES)
def test_hostile_case_has_the_required_outcome(name: str, outcomes: dict[str, str | None]) -> None:
    failure = outcomes[name]
    if name in NOT_MET:
        assert failure is not None, f"{name} is met now: take it out of NOT_MET"
        pytest.xfail(f"{NOT_MET[name]}: {failure}")
    assert failure is None, failure


def test_the_list_of_unmet_cases_names_real_cases() -> None:
    assert set(NOT_MET) <= set(NAMES)
