"""One HTTP call as the handlers see it: the headers that count, the body within bounds, and the reply. No FastAPI."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fleet_agent.queue.batcher import PRIORITIES
from fleet_wire.refusal import Refusal

MAX_BODY = 64 * 1024 * 1024
_BODY_TIMEOUT_S = 60.0
_LONGEST_TIMEOUT_MS = 86_400_000.0

Headers = Mapping[bytes, bytes]  # by lower-case name
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = ((b"content-type", b"application/json"),)
_VISIBLE = re.compile(rb"[!-~]+")

# A request's own number: unguessable per process, counted within it.
_RUN = os.urandom(8).hex().encode()
_NUMBERS = itertools.count(1)


class ClientGone(Exception):
    """The client closed the connection; nobody waits for the reply."""


@dataclass(slots=True)
class Reply:
    """What goes back. `headers` are lower-case pairs of bytes."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = _JSON


class Call:
    """A request whose headers have come. Raises Refusal `bad_request` for headers that can't be understood."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.receive = receive
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.arrived = time.monotonic()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id(self.headers.get(b"x-request-id"))

    @property
    def identified(self) -> Headers:
        """The headers, with the request's own id where the client gave none."""
        return {**self.headers, b"x-request-id": self.request_id}

    async def body(self) -> bytes:
        """All of it. Raises Refusal `too_large`, `request_timeout`, `bad_request`; ClientGone."""
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > MAX_BODY:
            raise _too_large()
        if b"content-encoding" in self.headers:
            raise Refusal("bad_request", "a compressed body is not taken; send it without Content-Encoding")
        message = await self.receive_within(_BODY_TIMEOUT_S) if length != b"0" else await self.receive()
        if not message.get("more_body", False):
            return _chunk(message)
        chunks = [_chunk(message)]
        size = len(chunks[0])
        while message.get("more_body", False):
            message = await self.receive_within(_BODY_TIMEOUT_S)
            chunk = _chunk(message)
            size += len(chunk)
            if size > MAX_BODY:
                raise _too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    async def receive_within(self, seconds: float) -> Message:
        try:
            async with asyncio.timeout(seconds):
                return await self.receive()
        except TimeoutError:
            raise Refusal("request_timeout", f"the body stopped coming for {seconds:.0f} s") from None

    async def gone(self) -> None:
        """Returns when the client has closed the connection. Only after `body`."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def parse_json(body: bytes) -> Any:
    """Raises Refusal `bad_request` for what isn't JSON (NaN, infinities and deep nesting included)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal("bad_request", f"the body is not valid JSON: {error}") from None


def refused(refusal: Refusal) -> Reply:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers()]
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body isn't read
    return Reply(refusal.body(), refusal.status, tuple(headers))


def _chunk(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    return body


def _too_large() -> Refusal:
    return Refusal(
        "too_large", f"the body is larger than {MAX_BODY // 2**20} MiB; send fewer instances at a time"
    )


def deadline_of(headers: Headers, arrived: float | None = None) -> float | None:
    """When the answer must be there, by `x-request-timeout-ms` after `arrived` (time.monotonic(); None: now); None
    without that header. Raises Refusal `bad_request`.
    """
    raw = headers.get(b"x-request-timeout-ms")
    if raw is None:
        return None
    try:
        timeout_ms = float(raw)
    except ValueError:
        timeout_ms = math.nan
    if not 0 < timeout_ms <= _LONGEST_TIMEOUT_MS:
        text = raw.decode("latin-1")[:40]
        raise Refusal(
            "bad_request", f"x-request-timeout-ms is milliseconds between 0 and a day, not {text!r}"
        )
    return (time.monotonic() if arrived is None else arrived) + timeout_ms / 1000.0


def priority_of(headers: Headers) -> int:
    """`x-fleet-priority`, as the balancer reads it: 0 to 9, higher first; what is no whole number is 0, what lies
    outside is moved to the nearer end."""
    raw = headers.get(b"x-fleet-priority")
    if raw is None:
        return 0
    if raw[:1] == b"-" or not raw.isdigit():
        return 0
    return min(int(raw[:4]), PRIORITIES[-1])


def request_id(given: bytes | None) -> bytes:
    """The client's, if it is 1 to 128 visible ASCII characters, else a new one."""
    if given and len(given) <= 128 and _VISIBLE.fullmatch(given):
        return given
    return b"%s%08x" % (_RUN, next(_NUMBERS))


def with_new_ids(heads: Sequence[bytes], bodies: Sequence[bytes]) -> list[bytes]:
    """Replies whose heads end where the request's id belongs, with new ones."""
    numbered = zip(heads, _NUMBERS, bodies)  # noqa: B905 - the numbers don't end
    return [b"%s%s%08x\r\n\r\n%s" % (head, _RUN, number, body) for head, number, body in numbered]
