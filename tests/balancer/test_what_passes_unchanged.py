"""What goes through as it is, and what comes to a client in an unusual order: early answers, 1xx, no bodies, traces."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


async def test_an_answer_before_the_body_is_complete_reaches_the_client_at_once(
    scripted: Any, front_of: Any
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        await reader.readexactly(10)
        writer.write(b"HTTP/1.1 413 Too much\r\ncontent-length: 8\r\n\r\ntoo much")
        await writer.drain()
        await reader.read()

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
        async with asyncio.timeout(5):
            answer = await reader.read()  # the connection ends: the rest of the body has nowhere to go
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ") and body == b"too much"
        assert b"\r\nconnection: close" in head
        writer.close()
        pool = (await asyncio.to_thread(front.status))["pools"][0]
        assert (pool["completed"], pool["in_flight"]) == (1, 0)


@pytest.mark.parametrize(
    "head", [b"204 No Content\r\n", b"304 Not Modified\r\netag: x\r\ncontent-length: 500\r\n"]
)
async def test_answers_that_have_no_body_leave_the_connection_in_use(
    scripted: Any, front_of: Any, http: Any, head: bytes
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 " + head + b"\r\n")

    async with scripted(script) as host:
        front = await front_of(host)
        client = await http.open(front.port)
        for _ in range(3):
            reply = await client.ask("GET", "/x")
            assert reply.status == int(head[:3]) and reply.body == b""
        assert len(host.heads) == 3
        await client.close()


async def test_early_hints_pass_and_the_hosts_own_100_does_not(scripted: Any, front_of: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert b" 100 " not in answer


async def test_an_event_reaches_the_client_before_the_next_one_is_made(scripted: Any, front_of: Any) -> None:
    heard = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await writer.drain()
        await heard.wait()
        writer.write(b"data: 2\n\n")
        writer.close()

    async with scripted(script) as host:
        front = await front_of(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        async with asyncio.timeout(5):
            await reader.readuntil(b"data: 1\n\n")
            heard.set()
            await reader.readuntil(b"data: 2\n\n\r\n0\r\n\r\n")
        writer.close()


async def test_who_traces_finds_his_trace_and_who_asks_for_whom_is_ours_to_say(
    scripted: Any, front_of: Any, http: Any
) -> None:
    trace = {
        "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "Tracestate": "a=1,b=2",
    }
    spoofed = {"Forwarded": "for=1.2.3.4", "X_Forwarded_For": "1.2.3.4", "X_Forwarded_Proto": "https"}
    spoofed |= {"X_Real_IP": "1.2.3.4", "X_Fleet_Internal": "yes", "X_Forwarded_Whatever": "1"}

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-fleet-model-version: 7\r\nx-request-id: host's\r\n"
            b"endpoint-load-metrics: TEXT cpu_utilization=0.3\r\n\r\n"
        )

    async with scripted(script) as host:
        front = await front_of(host)
        client = await http.open(front.port)
        reply = await client.ask("GET", "/x", **trace, **spoofed)
        await client.close()
        lines = host.heads[0].lower().split("\r\n")
        for name, value in trace.items():
            assert f"{name.lower()}: {value}" in lines
        assert "1.2.3.4" not in host.heads[0] and "x-fleet-internal" not in host.heads[0].lower()
        assert "whatever" not in host.heads[0].lower()
        assert 'forwarded: for=127.0.0.1;host="test";proto=http' in lines
        assert "x-forwarded-for: 127.0.0.1" in lines and "x-forwarded-proto: http" in lines
        assert "endpoint-load-metrics" not in reply.headers and reply.headers["x-fleet-model-version"] == "7"
        assert "host's" not in reply.headers["x-request-id"]


async def test_a_pipelined_request_waits_for_its_turn_behind_a_slow_one(
    scripted: Any, front_of: Any, http: Any
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        path = head.split(" ")[1]
        if path == "/slow":
            await asyncio.sleep(0.1)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path.encode()))

    async with scripted(script) as host:
        front = await front_of(host)
        client = await http.open(front.port)
        start = time.monotonic()
        for path in ("/slow", "/a", "/b"):
            client.send("GET", path)
        assert [(await client.reply()).body for _ in range(3)] == [b"/slow", b"/a", b"/b"]
        assert time.monotonic() - start >= 0.1
        await client.close()
