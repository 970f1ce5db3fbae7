"""A connection to one host for questions, kept between them: GET, and what comes back, within a time.

Kept, because a connection each time costs several times the question; and because it ends at once where the host's
process ends, which nobody would notice otherwise until the next question. Every FRESH_EVERY-th question goes over a new
connection: whether the host still accepts is part of what is asked. Never believes a reply's size or shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder
from fleet_balancer.http.grammar import CHUNKED, UNTIL_CLOSE, Limits
from fleet_balancer.http.response import BadResponse, ResponseHead, parse_response
from fleet_balancer.member.member import Member

MAX_REPLY = 1024 * 1024
FRESH_EVERY = 10
# A host that closes this many kept connections in a row before they are used again does not want them kept.
PATIENCE = 3
_LIMITS = Limits()


class ProbeFailed(Exception):
    """str() says what went wrong, for the status page."""


class NobodyListens(ProbeFailed):
    """The connection was refused."""


class _Gone(Exception):
    """The connection ended before anything of the answer came."""


class Line:
    """`hung_up` is called where the host closes the kept connection while nothing is asked."""

    def __init__(self, member: Member, hung_up: Callable[[], None] | None = None) -> None:
        self._member = member
        self._hung_up = hung_up
        self._wire: _Wire | None = None
        self._asked = 0
        self._closed_early = 0

    async def get(self, path: str, token: str | None, timeout_s: float) -> tuple[int, bytes]:
        """Status and body. Raises ProbeFailed. One question at a time."""
        self._asked += 1
        if self._asked % FRESH_EVERY == 0:
            self.close()
        authorization = f"authorization: Bearer {token}\r\n" if token else ""
        question = (
            f"GET {path} HTTP/1.1\r\nhost: {self._member.address}\r\nuser-agent: fleet-balancer (probe)\r\n"
            f"{authorization}\r\n"
        ).encode()
        answered = False
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._ask(question)
            answered = True
            return reply
        except TimeoutError:
            raise ProbeFailed(f"{path} gave no answer within {timeout_s:g} s") from None
        except ConnectionRefusedError as error:
            raise NobodyListens(f"{path}: {error.strerror or error}") from None
        except _Gone:
            raise ProbeFailed(f"{path}: the connection was closed before an answer came") from None
        except (OSError, BadResponse, BadChunk) as error:
            raise ProbeFailed(f"{path}: {error}") from None
        finally:
            if not answered:
                self.close()

    async def _ask(self, question: bytes) -> tuple[int, bytes]:
        if self._wire is not None:
            try:
                reply = await self._wire.ask(question)
            except _Gone:
                pass  # closed just now, before it came: ask again, on a new one
            else:
                self._closed_early = 0
                return self._taken(reply)
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: _Wire(self), self._member.host, self._member.port)
        self._wire = wire
        return self._taken(await wire.ask(question))

    def _taken(self, reply: _Reply) -> tuple[int, bytes]:
        if not reply.clean or self._closed_early >= PATIENCE:
            self.close()
        return reply.status, reply.body

    def lost(self, wire: _Wire) -> None:
        """The host closed a connection on which nothing was asked."""
        if self._wire is wire:
            self._wire = None
            self._closed_early += 1
            if self._hung_up is not None:
                self._hung_up()

    def close(self) -> None:
        """Close the kept connection; the next question makes a new one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.transport.abort()


class _Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before any other call
        self._reply = _Reply()
        self._awaited: asyncio.Future[_Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def ask(self, question: bytes) -> _Reply:
        if self.transport.is_closing():
            raise _Gone
        self._reply = _Reply()
        self._awaited = asyncio.get_running_loop().create_future()
        self.transport.write(question)
        try:
            return await self._awaited
        finally:
            self._awaited = None

    def data_received(self, data: bytes) -> None:
        if self._awaited is None or self._awaited.done():
            self.transport.abort()  # nobody asked for this
            return
        try:
            if self._reply.feed(data):
                self._awaited.set_result(self._reply)
        except (BadResponse, BadChunk, ProbeFailed) as error:
            self._awaited.set_exception(error)

    def eof_received(self) -> None:
        if self._awaited is not None and not self._awaited.done() and self._reply.ends_with_connection:
            self._awaited.set_result(self._reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._awaited is None:
            self._line.lost(self)
        elif not self._awaited.done():
            self._awaited.set_exception(
                ProbeFailed("the connection was closed in the midst of an answer")
                if self._reply.begun
                else _Gone()
            )


class _Reply:
    """An answer, as far as it is here. `clean`: the connection may be used for another."""

    def __init__(self) -> None:
        self.body = b""
        self._data = b""
        self._head: ResponseHead | None = None
        self._decoder: ChunkedDecoder | None = None

    def feed(self, data: bytes) -> bool:
        """More came; True where it is complete. Raises BadResponse, BadChunk, ProbeFailed."""
        head = self._head
        if head is None:
            self._data += data
            while (head := parse_response(self._data, b"GET", _LIMITS)) is not None and head.status < 200:
                self._data = self._data[head.size :]
            if head is None:
                return False
            self._head = head
            self._decoder = ChunkedDecoder() if head.length == CHUNKED else None
            data = self._data[head.size :]
        self.body += data if self._decoder is None else self._decoder.feed(data)
        if len(self.body) > MAX_REPLY:
            raise ProbeFailed(f"the answer is longer than {MAX_REPLY} bytes")
        if self._decoder is not None:
            return self._decoder.done
        return head.length != UNTIL_CLOSE and len(self.body) >= head.length

    @property
    def status(self) -> int:
        return 0 if self._head is None else self._head.status

    @property
    def begun(self) -> bool:
        return bool(self._data)

    @property
    def ends_with_connection(self) -> bool:
        return self._head is not None and self._head.length == UNTIL_CLOSE

    @property
    def clean(self) -> bool:
        head = self._head
        if head is None or not head.keep_alive or head.length == UNTIL_CLOSE:
            return False
        return len(self.body) == head.length if self._decoder is None else not self._decoder.rest
