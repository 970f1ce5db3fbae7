"""What a host may answer to a probe, and what becomes of the connection: Line against servers in this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.probing.line import MAX_REPLY, Line, NobodyListens, ProbeFailed
from fleet_wire.balancer import Backend


class Served:
    """Connections and requests that the server saw."""

    connections = 0
    requests = 0


@contextlib.asynccontextmanager
async def answering(*answers: bytes, closes: bool = False) -> AsyncIterator[tuple[Line, Served, list[int]]]:
    """A line to a server that gives these answers in turn (the last one again and again); calls to hung_up."""
    served = Served()
    hung_up: list[int] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                answer = answers[min(served.requests, len(answers) - 1)]
                served.requests += 1
                writer.write(answer)
                if closes:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    member = Member(Backend(name="h", address=f"127.0.0.1:{port}"), HealthRule())
    line = Line(member, lambda: hung_up.append(1))
    try:
        yield line, served, hung_up
    finally:
        line.close()
        for writer in writers:
            writer.close()
        server.close()
        await asyncio.sleep(0)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_a_connection_is_kept_and_made_anew_now_and_then() -> None:
    async with answering(OK) as (line, served, _):
        for _ in range(25):
            assert await line.get("/readyz", None, 2.0) == (200, b"ok")
        assert (served.requests, served.connections) == (25, 3)


@pytest.mark.parametrize(
    ("answer", "closes", "expected"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", False, (503, b"")),
        (b"HTTP/1.1 102 Wait\r\n\r\n" + OK, False, (200, b"ok")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False, (200, b"ok")),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", True, (200, b"until the end")),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", True, (200, b"ok")),
        (OK + b"more than asked", False, (200, b"ok")),
    ],
)
async def test_every_framing_is_read(answer: bytes, closes: bool, expected: tuple[int, bytes]) -> None:
    async with answering(answer, closes=closes) as (line, served, _):
        for n in range(1, 4):
            status, body = await line.get("/readyz", None, 2.0)
            assert (status, body[: len(expected[1])]) == expected
            assert served.requests == n


@pytest.mark.parametrize(
    ("answer", "closes", "says"),
    [
        (b"", False, "no answer within 0.2 s"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", False, "no answer within 0.2 s"),
        (b"", True, "closed before an answer came"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", True, "in the midst"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, "/readyz"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", False, "/readyz"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_REPLY + 1), False, "longer than"),
    ],
)
async def test_what_is_no_answer_is_told(answer: bytes, closes: bool, says: str) -> None:
    async with answering(answer, OK, closes=closes) as (line, _, _):
        with pytest.raises(ProbeFailed, match=says):
            await line.get("/readyz", None, 0.2)
        assert await line.get("/readyz", None, 2.0) == (200, b"ok")


async def test_a_host_that_keeps_no_connections_is_asked_over_new_ones() -> None:
    async with answering(OK, closes=True) as (line, served, hung_up):
        for _ in range(8):
            assert await line.get("/readyz", None, 2.0) == (200, b"ok")
            await asyncio.sleep(0.01)
        assert (served.requests, served.connections) == (8, 8)
        assert len(hung_up) <= 3  # then it is known not to mean anything


async def test_a_port_that_nobody_listens_on_is_told_apart(unused_port: int) -> None:
    line = Line(Member(Backend(name="h", address=f"127.0.0.1:{unused_port}"), HealthRule()))
    with pytest.raises(NobodyListens):
        await line.get("/readyz", None, 1.0)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def test_a_host_that_dies_is_out_at_once_without_a_request_or_a_probe(
    origin: Any, balancer: Any, wait_until: Any
) -> None:
    host = origin("a")
    front = balancer("--probe-interval", "60")
    front.put(host)
    await asyncio.to_thread(wait_until, lambda: front.backend("a")["healthy"])
    host.kill()
    await asyncio.to_thread(wait_until, lambda: not front.backend("a")["healthy"], 2.0)
