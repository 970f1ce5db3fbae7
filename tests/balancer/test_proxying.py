"""What passes through the front door, byte by byte: real balancer process, real origin process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

import pytest


@pytest.fixture
def one(origin: Any, balancer: Any, wait_until: Any) -> tuple[Any, Any]:
    host = origin("a")
    front = balancer("--backends", host.address)
    wait_until(lambda: front.backend(host.address)["healthy"])
    return host, front


async def test_many_requests_on_one_connection(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    for i in range(20):
        reply = await client.ask("POST", "/sink", b"b" * (i * 1000 + 1))
        assert reply.status == 200
        assert json.loads(reply.body)["bytes"] == i * 1000 + 1
        assert "connection" not in reply.headers
    await client.close()


async def test_pipelined_requests_are_answered_in_order(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    delays = [40, 1, 20, 1, 1]
    for i, delay in enumerate(delays):
        client.send("POST", f"/slow/{delay}", b"x" * i, x_request_id=f"r{i}")
    for i in range(len(delays)):
        reply = await client.reply()
        assert (reply.status, reply.headers["x-request-id"]) == (200, f"r{i}")
    await client.close()


async def test_hundreds_of_refusals_in_one_segment_are_all_answered(one: Any, http: Any) -> None:
    """Each is answered at once from the same buffer: no recursion may pile up."""
    host, front = one
    front.put(host, models=[{"name": "known"}])
    client = await http.open(front.port)
    for _ in range(1500):
        client.send("GET", "/v1/models/nix")
    for _ in range(1500):
        assert (await client.reply()).status == 404
    await client.close()


async def test_a_request_id_is_made_passed_on_and_echoed(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    made = await client.ask("GET", "/seen")
    assert f"x-request-id: {made.headers['x-request-id']}\r\n" in made.body.decode()
    given = await client.ask("GET", "/seen", X_Request_ID="Mine-1")
    assert given.headers["x-request-id"] == "Mine-1"
    assert given.body.decode().lower().count("x-request-id") == 1
    await client.close()


async def test_forwarding_headers_are_ours_and_spoofed_ones_are_gone(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    spoofed = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6",
    }
    seen = (
        (await client.ask("GET", "/seen", **spoofed, x_fleet_host="gpu-1", x_custom="stays"))
        .body.decode()
        .lower()
    )
    assert "6.6.6.6" not in seen and "https" not in seen and "x-fleet" not in seen and "x-real-ip" not in seen
    assert "x-forwarded-for: 127.0.0.1\r\n" in seen
    assert "x-forwarded-proto: http\r\n" in seen
    assert "x-forwarded-host: test\r\n" in seen
    assert "x-custom: stays\r\n" in seen
    await client.close()


async def test_a_hosts_token_replaces_the_clients_authorization(one: Any, http: Any) -> None:
    host, front = one
    client = await http.open(front.port)
    passed_on = (await client.ask("GET", "/seen", Authorization="Bearer client")).body.decode()
    assert "authorization: bearer client" in passed_on.lower()
    front.put({"name": "a", "address": host.address, "token": "hosts-own"})
    replaced = (await client.ask("GET", "/seen", Authorization="Bearer client")).body.decode()
    assert "client" not in replaced
    assert "authorization: Bearer hosts-own\r\n" in replaced
    await client.close()


async def test_head_has_a_length_and_no_body(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    reply = await client.ask("HEAD", "/x")
    assert reply.headers["content-length"] == "17"
    assert (await client.ask("GET", "/x")).status == 200
    await client.close()


async def test_trailers_pass(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    reply = await client.ask("GET", "/trailers")
    assert (reply.body, reply.headers["x-sum"]) == (b"hello", "7")
    await client.close()


async def test_a_body_that_ends_with_the_connection_becomes_chunked(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    reply = await client.ask("GET", "/close")
    assert (reply.headers["transfer-encoding"], reply.body) == ("chunked", b"until the end")
    assert (await client.ask("GET", "/x")).status == 200
    await client.close()


async def test_an_old_client_gets_its_body_without_chunks(shared: Any) -> None:
    _, front = shared
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"GET /trailers HTTP/1.0\r\n\r\n")
    data = await reader.read()
    assert data.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in data
    writer.close()
    await writer.wait_closed()


async def test_expect_continue_is_answered_before_the_body_comes(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    client.writer.write(
        b"POST /sink HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
    )
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.writer.write(b"body")
    assert json.loads((await client.reply()).body)["bytes"] == 4
    await client.close()


async def test_events_come_through_one_by_one(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    client.send("GET", "/events/5")
    await client.reader.readuntil(b"\r\n\r\n")
    times = []
    for i in range(5):
        await client.reader.readuntil(b"data: %d\n\n\r\n" % i)
        times.append(time.monotonic())
    assert times[4] - times[0] > 0.15
    await client.close()


async def test_a_large_body_passes_both_ways_in_flat_memory(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    await client.ask("POST", "/sink", b"x" * 1_000_000)
    before = front.rss_bytes()
    block, blocks = b"0123456789abcdef" * 4096, 2048  # 128 MiB
    client.writer.write(
        b"POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % (len(block) * blocks)
    )
    digest = hashlib.sha256()
    peak = 0

    async def upload() -> None:
        for _ in range(blocks):
            client.writer.write(block)
            await client.writer.drain()

    uploading = asyncio.create_task(upload())
    await client.reader.readuntil(b"\r\n\r\n")
    received = 0
    while size := int(await client.reader.readline(), 16):
        digest.update(await client.reader.readexactly(size))
        await client.reader.readexactly(2)
        received += size
        if received % (8 << 20) < size:
            peak = max(peak, front.rss_bytes())
    await uploading
    expected = hashlib.sha256()
    for _ in range(blocks):
        expected.update(block)
    assert digest.digest() == expected.digest()
    assert peak - before < 16 << 20
    await client.close()


async def test_a_client_that_does_not_read_stops_the_host_not_the_memory(shared: Any, http: Any) -> None:
    _, front = shared
    before = front.rss_bytes()
    client = await http.open(front.port)
    client.send("GET", "/bytes/300000000")
    await asyncio.sleep(1.0)
    assert front.rss_bytes() - before < 16 << 20
    client.writer.transport.abort()


async def test_a_deadline_passes_while_the_host_computes(shared: Any, http: Any, wait_until: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    start = time.monotonic()
    reply = await client.ask("POST", "/slow/5000", b"x", x_request_timeout_ms="200")
    assert reply.status == 504
    assert 0.15 < time.monotonic() - start < 1.0
    assert json.loads(reply.body)["error"]["code"] == "deadline_exceeded"
    assert (await client.ask("GET", "/x")).status == 200  # the client's connection goes on
    seen = (await client.ask("GET", "/seen", x_request_timeout_ms="5000")).body.decode()
    assert "x-request-timeout-ms: " in seen
    await client.close()


async def test_a_client_that_leaves_ends_its_request_at_the_host(
    one: Any, http: Any, wait_until: Any
) -> None:
    host, front = one
    client = await http.open(front.port)
    client.send("GET", "/events/200")
    await client.reader.readuntil(b"data: 1\n\n")
    start = time.monotonic()
    await client.close()
    await asyncio.to_thread(wait_until, lambda: front.backend(host.address)["in_flight"] == 0)
    assert time.monotonic() - start < 0.5
    pool = front.status()["pools"][0]
    assert (pool["abandoned"], pool["errors"]) == (1, 0)
    assert not host.lines("done")


async def test_a_half_closed_client_still_gets_a_quick_answer(shared: Any, http: Any) -> None:
    _, front = shared
    client = await http.open(front.port)
    client.send("GET", "/slow/5")
    client.writer.write_eof()
    assert (await client.reply()).status == 200
    assert await client.reader.read() == b""
    await client.close()


async def test_bodies_over_the_limit_are_refused(origin: Any, balancer: Any, http: Any) -> None:
    host = origin("a")
    front = balancer("--backends", host.address, "--max-body", "1000")
    client = await http.open(front.port)
    assert (await client.ask("POST", "/sink", b"x" * 1000)).status == 200
    reply = await client.ask("POST", "/sink", b"x" * 1001)
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    await client.close()
    client = await http.open(front.port)
    client.writer.write(b"POST /sink HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
    client.writer.write(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
    assert (await client.reply()).status == 413
    await client.close()


async def test_an_error_of_the_host_is_passed_on_and_counted(one: Any, http: Any) -> None:
    host, front = one
    client = await http.open(front.port)
    assert (await client.ask("GET", "/status/500")).status == 500
    assert (await client.ask("GET", "/status/404")).status == 404
    await client.close()
    pool = front.status()["pools"][0]
    assert (pool["completed"], pool["errors"], front.backend(host.address)["errors"]) == (1, 1, 1)


async def test_latencies_are_those_that_the_client_sees(one: Any, http: Any) -> None:
    _, front = one
    client = await http.open(front.port)
    seen = []
    for _ in range(20):
        start = time.monotonic()
        await client.ask("POST", "/slow/50", b"x")
        seen.append((time.monotonic() - start) * 1000)
    await client.close()
    latency = front.status()["pools"][0]["latency"]
    assert latency["count"] == 20
    assert latency["sum_ms"] == pytest.approx(sum(seen), rel=0.05)
