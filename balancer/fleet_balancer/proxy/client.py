"""One client's connection: reads requests, hands each to an Exchange, answers refusals itself, closes.

One request at a time; what a client sends ahead waits in a bounded buffer. A connection has one deadline, which the
proxy looks at four times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import Protocol, cast

from fleet_balancer.http.request import parse_request
from fleet_balancer.http.response import refusal_bytes
from fleet_balancer.member.member import Member
from fleet_balancer.proxy import placing
from fleet_balancer.proxy.exchange import Exchange
from fleet_balancer.proxy.placing import Placing
from fleet_balancer.proxy.tunnel import Tunnel
from fleet_wire.refusal import Refusal

LINGER_S = 2.0
# Host, pool, model, key and retries of what was no request.
_NOBODY = (None, None, None, None, 0)


class House(placing.House, Protocol):
    """What a client's connection needs from the proxy around it."""

    clients: set[Client]
    proto: bytes
    # Names for requests that come without one: the prefix, and a number of which each is used once.
    id_prefix: bytes
    ids: Iterator[int]

    def left(self, client: Client) -> None: ...


class Client(asyncio.Protocol):
    """`exchange`: the request that it has now; None: the next head is awaited, or the connection is `closing`."""

    __slots__ = (
        "_advancing",
        "_arrived",
        "_house",
        "address",
        "buffer",
        "closing",
        "deadline",
        "exchange",
        "forwarded",
        "forwarded_host",
        "keep",
        "read_paused",
        "transport",
        "write_paused",
    )

    def __init__(self, house: House) -> None:
        self._house = house
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before any other call
        self.exchange: Exchange | Tunnel | None = None
        self.buffer = b""
        self.deadline = 0.0
        self.keep = True
        # Refused or closed: what the client still sends is thrown away.
        self.closing = False
        self.read_paused = False
        self.write_paused = False
        self._arrived = 0.0
        self._advancing = False
        self.forwarded = b""
        self.forwarded_host: bytes | None = None
        self.address = b"unknown"

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self.address = str(peer[0]).encode()
        self.deadline = monotonic() + self._house.settings.header_timeout_s
        self._house.clients.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.closing:
                return
            if self.buffer:
                data = self.buffer + data
            else:
                self._arrived = monotonic()
            if self._read_head(data) and self.buffer:
                self.advance()
            return
        self.buffer = self.buffer + data if self.buffer else data
        exchange.more()
        if len(self.buffer) > self._house.settings.buffer:
            self.pause_reading()

    def eof_received(self) -> bool:
        """The client sends nothing more; True where it is still answered."""
        if not self.transport.can_write_eof():
            return False  # TLS: the loop ends the connection, whatever is said here
        return self.exchange is not None and self.exchange.client_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.left(self)
        self._abandon()
        self.closing = True

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.resume_reading()

    # Reading requests.

    def advance(self) -> None:
        """Read the requests that the client sent ahead. A loop: each may be answered at once."""
        if self._advancing:
            return
        self._advancing = True
        while self.exchange is None and self.buffer and not self.closing:
            if not self._read_head(self.buffer):
                break
        self._advancing = False

    def _read_head(self, data: bytes) -> bool:
        """Take a request off `data`; False while its head is unfinished."""
        house = self._house
        try:
            head = parse_request(data, house.settings.limits)
        except Refusal as refusal:
            self.buffer = b""
            self.keep = False
            self.refuse(refusal)
            return True
        if head is None:
            if not self.buffer:
                self.deadline = self._arrived + house.settings.header_timeout_s
            self.buffer = data
            return False
        self.buffer = data[head.size :]
        self.keep = head.keep_alive
        given = head.request_id
        if given is None:
            id_line = b"x-request-id: %b-%x\r\n" % (house.id_prefix, next(house.ids))
        else:
            id_line = b"x-request-id: %b\r\n" % given
        self.exchange = exchange = Exchange(house, self, head, id_line, self._arrived)
        front = house.front
        keyring = front.keyring
        try:
            if keyring is not None:
                exchange.use = keyring.check(head.authorization, head.api_key, self._arrived)
                head.authorization = b""
            elif head.api_key:
                head.kept += head.api_key
            route = front.route(head.target, head.model, head.version)
        except Refusal as refusal:
            if keyring is not None and exchange.use is None:
                exchange.use = keyring.known(head.authorization, head.api_key)  # one that came too often
            exchange.refuse(refusal)
            return True
        if route.pool is None:
            exchange.peek()
        else:
            exchange.place(route)
        return True

    def forwarding(self, host: bytes, member: Member) -> bytes:
        """The lines that say who asked for which host; one client's requests mostly have them in common."""
        if host != self.forwarded_host:
            self.forwarded_host = host or None
            proto = self._house.proto
            node = b'"[%b]"' % self.address if b":" in self.address else self.address
            self.forwarded = b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\n" % (self.address, proto)
            if host:
                self.forwarded += b'x-forwarded-host: %b\r\nforwarded: for=%b;host="%b";proto=%b\r\n' % (
                    host,
                    node,
                    host,
                    proto,
                )
            else:
                self.forwarded += b"forwarded: for=%b;proto=%b\r\nhost: %b\r\n" % (
                    node,
                    proto,
                    member.address.encode(),
                )
        return self.forwarded

    # Answering.

    def send(self, data: bytes) -> None:
        """Write to the client, unless it is gone already: the loop says so to connection_lost one turn later."""
        try:
            self.transport.write(data)
        except RuntimeError:
            pass

    def done(self, now: float) -> None:
        """The present request has its whole reply."""
        exchange, self.exchange = self.exchange, None
        if not self.keep:
            self._linger(exchange is not None and exchange.body_left != 0)
            return
        self.deadline = now + self._house.settings.idle_timeout_s
        if self.read_paused:
            self._resume_reading()
        if self.buffer:
            self._sent_ahead(now)
            self.advance()

    def refuse(self, refusal: Refusal, request: Placing | None = None) -> None:
        """Answer a request that holds nothing (any more); `request` None: what came was no request."""
        self.exchange = None
        left = 0
        bodiless = False
        if request is None:
            id_line = b"x-request-id: %b-%x\r\n" % (self._house.id_prefix, next(self._house.ids))
            if self._house.access_log is not None:
                now = monotonic()
                self._house.access_log.record(
                    id_line[14:-2],
                    refusal.status,
                    self._arrived,
                    now,
                    self.address,
                    b"-",
                    b"-",
                    len(refusal.body()),
                    *_NOBODY,
                    refusal.code,
                )
        else:
            id_line = request.id_line
            bodiless = request.head.method == b"HEAD"
            left = request.body_left
            if 0 < left <= len(self.buffer):
                self.buffer = self.buffer[left:]
                left = 0
        keep = self.keep and not left and not self._house.stopping
        self.send(refusal_bytes(refusal, id_line, close=not keep, bodiless=bodiless))
        if not keep:
            self._linger(left != 0)
            return
        now = monotonic()
        self.deadline = now + self._house.settings.idle_timeout_s
        if self.read_paused:
            self._resume_reading()
        if self.buffer:
            self._sent_ahead(now)

    def switch(self, tunnel: Tunnel) -> None:
        """The present request has become `tunnel`."""
        self.exchange = tunnel
        if self.buffer:
            tunnel.more()
        self.release()

    def _sent_ahead(self, now: float) -> None:
        """The next request's clock starts when its turn comes."""
        self._arrived = now
        self.deadline = now + self._house.settings.header_timeout_s

    def expire(self) -> None:
        """The deadline has passed."""
        if self.closing:
            self.transport.abort()
        elif self.exchange is not None:
            self.exchange.expire()
        elif self.buffer:
            self.keep = False
            self.refuse(Refusal("request_timeout", "the headers did not arrive in time"))
        else:
            self.close()

    # Closing.

    def _linger(self, unread: bool) -> None:
        """Send what is left, say that it is the end, and read on for a while: closing with unread input would reset
        the connection, and the reply could be lost with it. `unread`: more input is to be expected."""
        self.closing = True
        self.buffer = b""
        self._allow_flush()
        if self.transport.is_closing():
            return
        if not unread and not self.read_paused:
            self.transport.close()
            return
        if self.read_paused:
            self._resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        """Close, with what is under way broken off."""
        self._abandon()
        self.closing = True
        self._allow_flush()
        self.transport.close()

    def _abandon(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abandon()

    def _allow_flush(self) -> None:
        """A slow reader gets the time of a slow writer."""
        unsent = self.transport.get_write_buffer_size()
        self.deadline = monotonic() + (self._house.settings.body_timeout_s if unsent else LINGER_S)

    def gone(self) -> None:
        """The client is taken to have left."""
        if not self.closing:
            self._abandon()
            self.transport.abort()

    def stop(self) -> None:
        """The balancer stops: an idle connection closes now, a busy one after its reply."""
        if self.exchange is None and not self.buffer and not self.closing:
            self.close()

    # Back-pressure.

    def pause_reading(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def release(self) -> None:
        """The host can take more."""
        upstream = None if self.exchange is None else self.exchange.upstream
        room = len(self.buffer) <= self._house.settings.buffer
        if self.read_paused and room and upstream is not None and not upstream.write_paused:
            self._resume_reading()

    def _resume_reading(self) -> None:
        self.read_paused = False
        if self.exchange is not None:
            self.exchange.last_data = monotonic()
        if not self.transport.is_closing():
            self.transport.resume_reading()
