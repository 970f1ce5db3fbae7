"""Which requests a second host gets, after the first one failed; hedging; and that each counts once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


async def body_of(reader: asyncio.StreamReader, head: str) -> bytes:
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
    if "transfer-encoding" in fields:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
        return body
    return await reader.readexactly(int(fields.get("content-length", 0)))


def answering(answer: bytes, bodies: list[bytes]) -> Script:
    """Reads the request's body, then answers; an empty answer is a hang-up."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        bodies.append(await body_of(reader, head))
        if not answer:
            raise ConnectionAbortedError
        writer.write(answer)

    return script


def counts(front: Any) -> tuple[dict[str, Any], int]:
    """The pool's status, and how far its arithmetic is off."""
    pool = front.status()["pools"][0]
    sum_of_ends = sum(pool[k] for k in ("completed", "errors", "refused", "abandoned", "in_flight", "queued"))
    return pool, pool["arrivals"] - sum_of_ends


FULL = b"HTTP/1.1 503 Full\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
SHAKY = b"HTTP/1.1 502 Bad\r\ncontent-length: 3\r\n\r\nbad"


@pytest.mark.parametrize("failure", [b"", SHAKY, FULL], ids=["hang-up", "502", "503"])
@pytest.mark.parametrize(
    ("method", "body", "headers", "pool"),
    [
        ("GET", b"", {}, {}),
        ("POST", b"x" * 1000, {"Idempotency_Key": "abc"}, {}),
        ("POST", b"x" * 1000, {}, {"retry": "idempotent"}),
    ],
    ids=["GET", "key", "pool"],
)
async def test_what_was_declared_harmless_goes_to_another_host(
    scripted: Any,
    front_of: Any,
    http: Any,
    failure: bytes,
    method: str,
    body: bytes,
    headers: dict[str, str],
    pool: Any,
) -> None:
    failed: list[bytes] = []
    served: list[bytes] = []
    async with (
        scripted(answering(failure, failed)) as bad,
        scripted(answering(OK, served)) as good,
    ):
        front = await front_of(bad, good, **pool)
        client = await http.open(front.port)
        while not failed:  # until the failing host had its turn
            reply = await client.ask(method, "/x", body, **headers)
            assert (reply.status, reply.body) == (200, b"ok")
        assert failed == [body]
        assert set(served) == {body}
        status, off_by = counts(front)
        assert off_by == 0 and status["errors"] == 0 and status["completed"] == status["arrivals"]
        await client.close()


@pytest.mark.parametrize("failure", [b"", SHAKY], ids=["hang-up", "502"])
async def test_a_post_that_nobody_declared_is_never_sent_twice(
    scripted: Any, front_of: Any, http: Any, failure: bytes
) -> None:
    failed: list[bytes] = []
    served: list[bytes] = []
    async with scripted(answering(failure, failed)) as bad, scripted(answering(OK, served)) as good:
        front = await front_of(bad, good)
        client = await http.open(front.port)
        sent = 0
        while not failed:
            sent += 1
            reply = await client.ask("POST", "/x", b"%d" % sent)
            assert reply.status == (502 if failed else 200)
        assert sorted(failed + served, key=int) == [b"%d" % i for i in range(1, sent + 1)]
        await client.close()


async def test_a_chunked_body_that_is_declared_harmless_is_sent_again_whole(
    scripted: Any, front_of: Any
) -> None:
    failed: list[bytes] = []
    served: list[bytes] = []
    async with scripted(answering(b"", failed)) as bad, scripted(answering(OK, served)) as good:
        front = await front_of(bad, good)
        while not failed:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(
                b"POST / HTTP/1.1\r\nhost: t\r\nidempotency-key: 1\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for piece in (b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"):
                await asyncio.sleep(0.01)
                writer.write(piece)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()
        assert failed == [b"hello world"] and set(served) == {b"hello world"}


async def test_a_body_too_long_to_be_held_is_not_sent_again(scripted: Any, front_of: Any, http: Any) -> None:
    failed: list[bytes] = []
    async with scripted(answering(b"", failed)) as bad, scripted(answering(OK, [])) as good:
        front = await front_of(bad, good)
        client = await http.open(front.port)
        while not failed:
            reply = await client.ask("PUT", "/x", b"x" * 300_000, Idempotency_Key="1")
            assert reply.status == (502 if failed else 200)
        await client.close()


async def test_where_the_second_host_fails_too_the_client_hears_it_once(
    scripted: Any, front_of: Any, http: Any
) -> None:
    one: list[bytes] = []
    two: list[bytes] = []
    async with scripted(answering(SHAKY, one)) as a, scripted(answering(SHAKY, two)) as b:
        front = await front_of(a, b)
        client = await http.open(front.port)
        reply = await client.ask("GET", "/x")
        assert (reply.status, reply.body) == (502, b"bad")
        assert len(one) == len(two) == 1
        status, off_by = counts(front)
        assert off_by == 0 and status["errors"] == 1
        await client.close()


async def test_retries_stop_where_their_budget_is_spent(scripted: Any, front_of: Any, http: Any) -> None:
    one: list[bytes] = []
    two: list[bytes] = []
    async with scripted(answering(SHAKY, one)) as a, scripted(answering(SHAKY, two)) as b:
        front = await front_of(a, b, ejection={"enabled": False})
        client = await http.open(front.port)
        start = time.monotonic()
        for _ in range(200):
            assert (await client.ask("GET", "/x")).status == 502
        again = len(one) + len(two) - 200
        # One second's worth to begin with, a fifth of the requests, and 10 a second.
        assert 10 <= again <= 10 + 0.2 * 200 + 10 * (time.monotonic() - start) + 1
        await client.close()


async def test_a_slow_answer_is_overtaken_by_a_second_copy_and_counts_once(
    scripted: Any, front_of: Any, http: Any
) -> None:
    slow = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        if "GET /slow" in head and not slow.is_set():
            slow.set()
            await reader.readexactly(1)  # until it is cancelled
        writer.write(OK)

    async with scripted(script) as a, scripted(script) as b:
        front = await front_of(a, b, hedge=True)
        client = await http.open(front.port)
        for _ in range(150):  # so that the p95 is known
            assert (await client.ask("GET", "/fast")).status == 200
        await asyncio.sleep(0.4)  # the balancer learns four times a second
        start = time.monotonic()
        reply = await client.ask("GET", "/slow")
        assert (reply.status, reply.body) == (200, b"ok")
        assert time.monotonic() - start < 2
        assert sum("GET /slow" in head for head in a.heads + b.heads) == 2
        # The slow copy was cancelled.
        waits = [asyncio.create_task(host.left.wait()) for host in (a, b)]
        done, rest = await asyncio.wait(waits, timeout=2, return_when=asyncio.FIRST_COMPLETED)
        assert done
        for wait in rest:
            wait.cancel()
        status, off_by = counts(front)
        assert off_by == 0 and status["in_flight"] == 0 and status["completed"] == 151
        # A POST that nobody declared is not hedged.
        slow.clear()
        client.send("POST", "/slow", b"x")
        await asyncio.sleep(0.3)
        assert sum("POST /slow" in head for head in a.heads + b.heads) == 1
        await client.close()
