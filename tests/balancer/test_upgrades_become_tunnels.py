"""WebSocket through the balancer, with a real client and a real server; and what must not become a tunnel."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import time
import types
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from fleet_balancer.front import Front
from fleet_balancer.member.health import HealthRule
from fleet_balancer.proxy.proxy import Proxy
from fleet_balancer.proxy.settings import Settings
from fleet_wire.balancer import Backend, BackendList, PoolConfig

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: %b\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"


async def ready(connection: ServerConnection, request: Request) -> Response | None:
    """Answers the balancer's probes; None: go on with the handshake."""
    return connection.respond(200, "{}") if request.path in ("/readyz", "/status") else None


async def test_messages_pass_both_ways_and_count_as_one_request(front_of: Any, wait_until: Any) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, process_request=ready, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        front = await front_of(types.SimpleNamespace(address=f"127.0.0.1:{port}"))
        async with connect(f"ws://127.0.0.1:{front.port}/chat", max_size=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            pool = (await asyncio.to_thread(front.status))["pools"][0]
            assert (pool["in_flight"], pool["completed"]) == (1, 0)
            large = bytes(range(256)) * 4 * 8192
            await client.send(large)
            back = await client.recv()
            assert hashlib.sha256(back).digest() == hashlib.sha256(large).digest()
            response = client.response
            assert response is not None and response.headers["x-request-id"]

        def over() -> bool:
            pool = front.status()["pools"][0]
            return (pool["in_flight"], pool["completed"], pool["errors"]) == (0, 1, 0)

        await asyncio.to_thread(wait_until, over)


async def test_a_server_that_says_first_and_closes_first_is_heard_to_the_end(front_of: Any) -> None:
    async def speak(connection: ServerConnection) -> None:
        for i in range(200):
            await connection.send(f"{i}" * 1000)

    async with serve(speak, "127.0.0.1", 0, process_request=ready) as server:
        port = server.sockets[0].getsockname()[1]
        front = await front_of(types.SimpleNamespace(address=f"127.0.0.1:{port}"))
        async with connect(f"ws://127.0.0.1:{front.port}/") as client:
            got = [message async for message in client]
        assert got == [f"{i}" * 1000 for i in range(200)]
        assert client.close_code == 1000


async def test_each_side_may_close_its_sending_side_and_still_hear_the_other(
    scripted: Any, front_of: Any
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        # The 101 and the first bytes in one segment.
        writer.write(SWITCH % b"custom" + b"first,")
        said = await reader.read()
        writer.write(b"heard " + said)
        await writer.drain()
        writer.close()

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(UPGRADE % b"custom")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101 ") and b"\r\nupgrade: custom\r\n" in head
        assert b"connection: upgrade\r\n" in head
        writer.write(b"question")
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == b"first,heard question"
        pool = (await asyncio.to_thread(front.status))["pools"][0]
        assert (pool["in_flight"], pool["completed"], pool["errors"]) == (0, 1, 0)
        writer.close()
        seen = host.heads[0].lower()
        assert "\r\nconnection: upgrade\r\n" in seen and "\r\nupgrade: custom\r\n" in seen


async def test_a_client_that_does_not_read_stops_the_host_not_the_memory(
    scripted: Any, front_of: Any
) -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        nonlocal sent
        writer.write(SWITCH % b"custom")
        while sent < 200_000_000:
            writer.write(b"z" * 65536)
            await writer.drain()
            sent += 65536

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=1 << 16)
        writer.write(UPGRADE % b"custom")
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while sent != before:  # until the host is held
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 50_000_000
        assert front.rss_bytes() < 150_000_000
        writer.transport.abort()


@pytest.mark.parametrize(
    ("request_head", "answer", "status"),
    [
        # Nobody asked for it.
        (b"GET /x HTTP/1.1\r\nhost: test\r\n\r\n", SWITCH % b"websocket", 502),
        # Something else was asked for.
        (UPGRADE % b"custom", SWITCH % b"websocket", 502),
        # h2c is not passed on, so nobody asked for it.
        (UPGRADE % b"h2c", SWITCH % b"h2c", 502),
        # An Upgrade that Connection does not name means nothing.
        (b"GET /x HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\n\r\n", SWITCH % b"websocket", 502),
        # The host stays with HTTP.
        (UPGRADE % b"websocket", b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", 403),
    ],
)
async def test_without_the_agreement_of_both_sides_it_stays_http(
    scripted: Any, front_of: Any, http: Any, request_head: bytes, answer: bytes, status: int
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.write(answer if "/next" not in head else b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with scripted(script) as host:
        front = await front_of(host)
        client = await http.open(front.port)
        client.writer.write(request_head)
        assert (await client.reply()).status == status
        assert (await client.ask("GET", "/next")).status == 200
        await client.close()
        if b"h2c" in request_head:
            assert "upgrade:" not in host.heads[0].lower()


async def test_a_tunnel_that_is_silent_for_too_long_is_ended_on_both_sides(scripted: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.write(SWITCH % b"custom")
        await reader.readexactly(100)

    async with scripted(script) as host:
        front = Front(random.Random(0), HealthRule(), stale_s=3.0)
        proxy = Proxy(front, Settings(tunnel_idle_s=0.3), asyncio.get_running_loop())
        pool = PoolConfig(request_timeout_s=0.1)  # which is not for tunnels
        backend = Backend(name="a", address=host.address)
        swap = front.swap(BackendList(pools=[pool], backends=[backend]), time.monotonic())
        proxy.swap(swap)
        for member in swap.added:
            member.health.passed(time.monotonic())
            proxy.health_changed(member)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await proxy.start([listener])
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            start = time.monotonic()
            writer.write(UPGRADE % b"custom")
            async with asyncio.timeout(5):
                assert (await reader.read()).startswith(b"HTTP/1.1 101 ")
                await host.left.wait()
            assert time.monotonic() - start >= 0.3
            writer.close()
            await proxy.stop(1.0)
        status = front.pools["default"].status()
        assert (status.completed, status.in_flight, status.errors) == (1, 0, 0)


async def test_a_client_that_breaks_off_ends_the_tunnel_at_the_host(
    scripted: Any, front_of: Any, wait_until: Any
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.write(SWITCH % b"custom")
        await reader.readexactly(100)

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(UPGRADE % b"custom")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await asyncio.to_thread(wait_until, lambda: front.status()["pools"][0]["in_flight"] == 0)
        async with asyncio.timeout(2):
            await host.left.wait()
