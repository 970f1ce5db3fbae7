"""A client hangs up: the host is told within 100 ms, whatever its request is doing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import types
from typing import Any

import pytest

WITHIN_S = 0.1


@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize("when", ["computing", "answering"])
async def test_its_host_sees_the_end_within_100_ms(scripted: Any, front_of: Any, how: str, when: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        if when == "answering":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegun")
        await reader.readexactly(1)

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET /x HTTP/1.1\r\nhost: t\r\n\r\n")
        async with asyncio.timeout(5):
            await host.asked.wait()
        if when == "answering":
            await reader.readuntil(b"begun")
        left = time.monotonic()
        if how == "abort":
            writer.transport.abort()
        else:
            writer.close()
        async with asyncio.timeout(5):
            await host.left.wait()
        assert host.ended[0] - left < WITHIN_S
        pool = (await asyncio.to_thread(front.status))["pools"][0]
        assert (pool["abandoned"], pool["in_flight"]) == (1, 0)


async def test_while_it_waits_for_a_host_its_place_is_free_at_once(front_of: Any, wait_until: Any) -> None:
    front = await front_of(queue_size=1)
    _, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"GET /x HTTP/1.1\r\nhost: t\r\n\r\n")
    await asyncio.to_thread(wait_until, lambda: front.status()["pools"][0]["queued"] == 1)
    left = time.monotonic()
    writer.transport.abort()
    await asyncio.to_thread(wait_until, lambda: front.status()["pools"][0]["queued"] == 0)
    assert time.monotonic() - left < WITHIN_S + 0.1  # the look itself takes a while
    assert front.status()["pools"][0]["abandoned"] == 1


async def test_while_its_connection_is_being_made_it_is_off_the_host_at_once(
    front_of: Any, wait_until: Any
) -> None:
    """The host passes its probe, then its backlog is full: the kernel drops what would connect."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)

        def pass_probes() -> None:
            for _ in range(2):  # /readyz and /status
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

        passing = asyncio.create_task(asyncio.to_thread(pass_probes))
        front = await front_of(types.SimpleNamespace(address=f"127.0.0.1:{listener.getsockname()[1]}"))
        await passing
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET /x HTTP/1.1\r\nhost: t\r\n\r\n")
        await asyncio.to_thread(wait_until, lambda: front.status()["pools"][0]["in_flight"] == 1)
        left = time.monotonic()
        writer.transport.abort()
        await asyncio.to_thread(wait_until, lambda: front.status()["pools"][0]["in_flight"] == 0)
        assert time.monotonic() - left < WITHIN_S + 0.1
        assert front.status()["pools"][0]["abandoned"] == 1
