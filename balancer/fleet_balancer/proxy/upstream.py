"""One connection to a host: reads responses, hands them to the client connection that it serves now.

Decides where a response ends, and whether the connection may serve another request. A connection that got a byte
nobody asked for is closed: what follows on it could be taken for the answer to somebody else's request.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol, cast

from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder, encode_chunk, encode_end
from fleet_balancer.http.grammar import CHUNKED, UNTIL_CLOSE
from fleet_balancer.http.response import BadResponse, ResponseHead, parse_response
from fleet_balancer.member.member import Member
from fleet_balancer.proxy.settings import Settings

# What `_left` says while the head of a response is awaited; other values as ResponseHead.length.
_HEAD = -3
# After a 101: no responses any more.
_TUNNEL = -4
MAX_INTERIM = 16
# Longer heads are not remembered.
KNOWN_BYTES = 1024


class Asker(Protocol):
    """Whom a connection serves: gets the reply piece by piece, and says how it wants it."""

    body_left: int
    chunks_reply: bool

    def reply(self, upstream: Upstream, head: ResponseHead, body: bytes) -> bool: ...
    def interim(self, kept: bytes) -> None: ...
    def switch(self, upstream: Upstream, head: ResponseHead) -> bool: ...
    def send(self, data: bytes) -> None: ...
    def reply_done(self, head: ResponseHead, now: float) -> None: ...
    def upstream_lost(self, upstream: Upstream, reason: str) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...


class Tunneled(Asker, Protocol):
    """Whom a connection serves after a 101."""

    def host_ended(self) -> None: ...


class Shelf(Protocol):
    """Where a connection goes when nobody needs it."""

    settings: Settings

    def keep(self, upstream: Upstream, now: float) -> None: ...
    def forget(self, upstream: Upstream) -> None: ...
    def doubt(self, member: Member) -> None: ...


class Upstream(asyncio.Protocol):
    """A connection to `member`; `client` is whom it serves, None while it is idle."""

    __slots__ = (
        "_buffer",
        "_decoder",
        "_head",
        "_interim",
        "_known",
        "_known_bytes",
        "_left",
        "_method",
        "_read_paused",
        "_shelf",
        "_tunnel",
        "answered",
        "client",
        "idle_since",
        "member",
        "reused",
        "transport",
        "write_paused",
    )

    def __init__(self, shelf: Shelf, member: Member) -> None:
        self._shelf = shelf
        self.member = member
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before any other call
        self.client: Asker | None = None
        self.idle_since = 0.0
        self.reused = False
        self.answered = False
        self.write_paused = False
        self._method = b""
        self._left = _HEAD
        self._buffer = b""
        self._decoder: ChunkedDecoder | None = None
        self._head: ResponseHead | None = None
        # The last head and its bytes: a host mostly says the same again, and then it means the same.
        self._known: ResponseHead | None = None
        self._known_bytes = b""
        self._read_paused = False
        self._interim = 0
        self._tunnel: Tunneled | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, asker: Asker, method: bytes, data: bytes) -> None:
        """Send a request, or its beginning. From now on, what arrives answers it."""
        self.client = asker
        self.answered = False
        self._method = method
        self._left = _HEAD
        try:
            self.transport.write(data)
        except RuntimeError:
            pass  # the connection ended just now; connection_lost follows

    def send(self, data: bytes) -> None:
        """Send more of the request."""
        try:
            self.transport.write(data)
        except RuntimeError:
            pass

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            self._shelf.forget(self)
            self.transport.abort()
            return
        left = self._left
        if left == _HEAD:
            self._read_head(client, data)
        elif left > 0:
            size = len(data)
            if size < left:
                self._left = left - size
                client.send(data)
            else:
                client.send(data[:left] if size > left else data)
                self._finish(size == left)
        elif left == CHUNKED:
            self._read_chunks(client, data)
        else:
            client.send(encode_chunk(data) if client.chunks_reply else data)

    def eof_received(self) -> bool:
        """The host closed its side: the end of a body without a length, else the end of the connection; a tunnel stays
        open the other way."""
        if self._left == _TUNNEL and self._tunnel is not None:
            self._tunnel.host_ended()
            return True
        if self.client is not None and self._left != UNTIL_CLOSE:
            self._shelf.doubt(self.member)
        elif self.client is not None:
            if self.client.chunks_reply:
                self.client.send(encode_end(b""))
            self._finish(False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        client, self.client = self.client, None
        if client is None:
            self._shelf.forget(self)
        else:
            self._shelf.doubt(self.member)
            client.upstream_lost(
                self, str(exc) if exc else "closed the connection before its answer was complete"
            )

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.client is not None:
            self.client.hold()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.client is not None:
            self.client.release()

    def pause_reading(self) -> None:
        """The client can't keep up."""
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def drop(self, flush: bool = False) -> None:
        """Close, at once or with what is still to be sent; whoever was served hears nothing of it."""
        self.client = None
        self._tunnel = None
        if flush:
            self.transport.close()
        else:
            self.transport.abort()

    def become(self, tunnel: Tunneled) -> None:
        """The host switched protocols: from now on, what arrives is the tunnel's."""
        self.client = self._tunnel = tunnel
        self._left = _TUNNEL

    def end(self) -> None:
        """Tell the host that nothing more comes."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _read_head(self, client: Asker, data: bytes) -> None:
        self.answered = True
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        head = self._known
        if head is None or not data.startswith(self._known_bytes) or self._method == b"HEAD":
            try:
                head = parse_response(data, self._method, self._shelf.settings.limits)
            except BadResponse as error:
                self.drop()
                client.upstream_lost(self, f"answered with what is not HTTP/1.1: {error}")
                return
            if head is None:
                self._buffer = data
                return
            if head.status < 200:
                self._skip_interim(client, data, head)
                return
            if head.size <= KNOWN_BYTES and self._method != b"HEAD":
                self._known = head
                self._known_bytes = data[: head.size]
        self._head = head
        length = head.length
        begin = head.size
        if length >= 0:
            if not client.reply(self, head, data[begin : begin + length]):
                return
            over = len(data) - begin - length
            if over < 0:
                self._left = -over
            else:
                self._finish(not over)
            return
        if not client.reply(self, head, b""):
            return
        self._left = length
        if length == CHUNKED:
            self._decoder = ChunkedDecoder()
        if len(data) > begin:
            self.data_received(data[begin:])

    def _skip_interim(self, client: Asker, data: bytes, head: ResponseHead) -> None:
        """1xx before the real answer. 100 was answered by the balancer; 101 is no answer unless it was asked for."""
        status = head.status
        self._interim += 1
        if status == 101 and client.switch(self, head):
            if len(data) > head.size and self.client is not None:
                self.client.send(data[head.size :])
            return
        if status == 101 or self._interim > MAX_INTERIM:
            self.drop()
            client.upstream_lost(
                self, "switched protocols unasked" if status == 101 else "sent too many 1xx answers"
            )
            return
        if status != 100:
            client.interim(head.kept)
        if len(data) > head.size:
            self._read_head(client, data[head.size :])

    def _read_chunks(self, client: Asker, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            raise AssertionError("a chunked response has a decoder")
        try:
            payload = decoder.feed(data)
        except BadChunk as error:
            self.drop()
            client.upstream_lost(self, f"broke the chunked coding: {error}")
            return
        if client.chunks_reply:
            out = encode_chunk(payload)
            if decoder.done:
                out += encode_end(decoder.trailers)
        else:
            out = payload
        if out:
            client.send(out)
        if decoder.done:
            self._decoder = None
            self._finish(not decoder.rest)

    def _finish(self, clean: bool) -> None:
        """The response is complete. `clean`: nothing came after it."""
        client, self.client = self.client, None
        head = self._head
        if client is None or head is None:
            raise AssertionError("a response answers somebody")
        now = monotonic()
        if clean and head.keep_alive and not client.body_left and not self.write_paused:
            self.reused = True
            self._head = None
            if self._interim:
                self._interim = 0
            if self._read_paused:
                self.resume_reading()
            self._shelf.keep(self, now)
        else:
            self.transport.abort()
        client.reply_done(head, now)
