"""One client connection: reads requests, places each on a host, passes bodies on, answers refusals itself.

One request at a time; what a client sends ahead waits in a bounded buffer. No task and no timer per request: a
connection has one deadline, which the proxy looks at four times a second.
"""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Protocol, cast

from fleet_balancer.front import MAX_PEEK, Front, Route
from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder, encode_chunk, encode_end
from fleet_balancer.http.grammar import CHUNKED
from fleet_balancer.http.request import RequestHead, parse_request
from fleet_balancer.http.response import ResponseHead, refusal_bytes
from fleet_balancer.member import Member
from fleet_balancer.pool import Claim, Outcome, Pool, Ticket
from fleet_balancer.settings import Settings
from fleet_balancer.upstream import Upstream
from fleet_wire.refusal import Refusal

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A client that closes its sending side may still read (half-close) or be gone: no telling which. It gets what
# arrives within this many seconds, then the host is told to stop.
HALF_CLOSE_GRACE_S = 0.05
LINGER_S = 2.0
# Sending these twice is harmless (RFC 9110 9.2.2), so a kept connection that turns out dead is worth a second try.
_SAFE = frozenset((b"GET", b"HEAD"))


class Phase(enum.IntEnum):
    """Where a connection's present request is."""

    HEAD = 0  # none: the next head is awaited
    PEEK = 1  # its body is awaited, because it names the model
    QUEUED = 2  # no host may take it yet
    CONNECTING = 3  # a connection to its host is being made
    SENT = 4  # it went to a host
    LINGER = 5  # refused; what the client still sends is thrown away
    CLOSED = 6


# A member of an enum is found by two look-ups; these are compared on every event.
_HEAD, _PEEK, _QUEUED, _CONNECTING, _SENT, _LINGER, _CLOSED = Phase


class House(Protocol):
    """What a client's connection needs from the proxy around it."""

    front: Front
    settings: Settings
    loop: asyncio.AbstractEventLoop
    clients: set[Client]
    stopping: bool

    def next_id(self) -> bytes: ...
    def idle_connection(self, member: Member) -> Upstream | None: ...
    def connect(self, client: Client, claim: Claim) -> None: ...
    def serve_waiting(self) -> None: ...
    def left(self, client: Client) -> None: ...


class Client(asyncio.Protocol):
    """A client's connection. `body_left`: bytes of the request's body still to come, CHUNKED, or 0."""

    __slots__ = (
        "_address",
        "_advancing",
        "_arrived",
        "_buffer",
        "_claim",
        "_decoder",
        "_forwarded",
        "_forwarded_host",
        "_head",
        "_house",
        "_id_line",
        "_keep",
        "_model",
        "_pool",
        "_read_paused",
        "_replying",
        "_ticket",
        "_timer",
        "_tried",
        "body_left",
        "chunks_reply",
        "deadline",
        "last_data",
        "phase",
        "transport",
        "upstream",
        "write_paused",
    )

    def __init__(self, house: House) -> None:
        self._house = house
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before any other call
        self.phase = _HEAD
        self.deadline = 0.0
        self.last_data = 0.0
        self.body_left = 0
        self.chunks_reply = False
        self.upstream: Upstream | None = None
        self._buffer = b""
        self._head: RequestHead = cast(RequestHead, None)  # set while phase is not HEAD
        self._pool: Pool | None = None
        self._model: str | None = None
        self._claim: Claim | None = None
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._decoder: ChunkedDecoder | None = None
        self._tried: set[Member] | None = None
        self._id_line = b""
        self._arrived = 0.0
        self._keep = True
        self._replying = False
        self._read_paused = False
        self.write_paused = False
        self._advancing = False
        self._forwarded = b""
        self._forwarded_host: bytes | None = None
        self._address = b"unknown"

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self._address = str(peer[0]).encode()
        self.deadline = time.monotonic() + self._house.settings.header_timeout_s
        self._house.clients.add(self)

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase == _HEAD:
            if self._buffer:
                data = self._buffer + data
            else:
                self._arrived = time.monotonic()
            if self._read_head(data) and self._buffer:
                self._advance()
            return
        if phase >= _LINGER:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if phase == _SENT and self.body_left:
            self.last_data = time.monotonic()
            self._pump()
        elif phase == _PEEK:
            self.last_data = time.monotonic()
            self._peek()
        if len(self._buffer) > self._house.settings.buffer:
            self._pause_reading()

    def eof_received(self) -> bool:
        """Answer what was asked in full, shortly; see HALF_CLOSE_GRACE_S."""
        if _QUEUED <= self.phase <= _SENT and (not self.body_left or 0 < self.body_left <= len(self._buffer)):
            self._keep = False
            self._house.loop.call_later(HALF_CLOSE_GRACE_S, self._gone)
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.left(self)
        if self.phase != _CLOSED:
            self._let_go("abandoned")
            self.phase = _CLOSED

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.upstream is not None:
            self.upstream.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.upstream is not None:
            self.upstream.resume_reading()

    # Reading requests.

    def _advance(self) -> None:
        """Read the requests that the client sent ahead. A loop: each may be answered at once."""
        if self._advancing:
            return
        self._advancing = True
        while self.phase == _HEAD and self._buffer:
            if not self._read_head(self._buffer):
                break
        self._advancing = False

    def _read_head(self, data: bytes) -> bool:
        """Take a request off `data`; False while its head is unfinished."""
        try:
            head = parse_request(data, self._house.settings.limits)
        except Refusal as refusal:
            self._buffer = b""
            self.body_left = 0
            self._id_line = b"x-request-id: %b\r\n" % self._house.next_id()
            self._refuse(refusal, close=True)
            return True
        if head is None:
            if not self._buffer:
                self.deadline = self._arrived + self._house.settings.header_timeout_s
            self._buffer = data
            return False
        self._head = head
        self._buffer = data[head.size :] if len(data) > head.size else b""
        self._keep = head.keep_alive
        self.body_left = head.length
        self._id_line = b"x-request-id: %b\r\n" % (head.request_id or self._house.next_id())
        if head.length == CHUNKED:
            self._decoder = ChunkedDecoder()
        try:
            route = self._house.front.route(head.target, head.model)
        except Refusal as refusal:
            self._refuse(refusal)
            return True
        if route.pool is None:
            self.phase = _PEEK
            self.last_data = self._arrived
            self.deadline = self._arrived + self._house.settings.body_timeout_s
            if head.expects and 0 < head.length <= MAX_PEEK and not self._buffer:
                head.expects = False
                self.send(CONTINUE)
            self._peek()
        else:
            self._place(route.pool, route.model)
        return True

    def _peek(self) -> None:
        """Route by the model that the body names, once the body is here; it goes on unchanged."""
        length = self._head.length
        front = self._house.front
        try:
            route: Route
            if not 0 < length <= MAX_PEEK:
                route = front.route_without_model()
            elif len(self._buffer) >= length:
                route = front.route_body(self._buffer[:length])
            else:
                return
            if route.pool is None:
                raise AssertionError("a body's route has a pool")
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self._place(route.pool, route.model)

    # Placing a request on a host.

    def _place(self, pool: Pool, model: str | None) -> None:
        self._pool = pool
        self._model = model
        pool.arrivals += 1
        now = self._arrived
        self.deadline = now + pool.config.request_timeout_s
        if self._head.timeout_ms is not None:
            self.deadline = min(self.deadline, now + self._head.timeout_ms / 1000.0)
            delay = max(0.0, self.deadline - time.monotonic())
            self._timer = self._house.loop.call_later(delay, self.expire)
        claim = pool.claim(model, now)
        if claim is None:
            self._wait()
        else:
            self._take(claim)

    def _wait(self) -> None:
        """No host may take it: queue it."""
        pool = self._pool
        if pool is None:
            raise AssertionError("a placed request has a pool")
        until = min(time.monotonic() + pool.config.queue_timeout_s, self.deadline)
        ticket = Ticket(self, self._model, until)
        try:
            pool.wait(ticket)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self._ticket = ticket
        self.phase = _QUEUED

    def admitted(self, result: Claim | Refusal) -> None:
        """The wait is over."""
        self._ticket = None
        if isinstance(result, Refusal):
            self._refuse(result)
            self._advance()
        else:
            self._take(result)

    def _take(self, claim: Claim) -> None:
        self._claim = claim
        upstream = self._house.idle_connection(claim.member)
        if upstream is None:
            self.phase = _CONNECTING
            self._house.connect(self, claim)
        else:
            self._send(upstream)

    def connected(self, claim: Claim, upstream: Upstream) -> bool:
        """`upstream` was made for `claim`; False where the request has gone away in the meantime."""
        if self._claim is not claim or self.phase != _CONNECTING:
            return False
        self._send(upstream)
        return True

    def connect_failed(self, claim: Claim, fault_of_host: bool) -> None:
        """Nothing was sent: another host may take it, else it waits."""
        pool = self._pool
        if self._claim is not claim or self.phase != _CONNECTING or pool is None:
            return
        self._claim = None
        if not fault_of_host:
            pool.settle(claim, "refused")
            self._refuse(Refusal("unavailable", "the balancer has no free socket to reach a host with", 1.0))
            self._advance()
            return
        pool.settle(claim, "retry")
        if self._tried is None:
            self._tried = set()
        self._tried.add(claim.member)
        next_claim = pool.claim(self._model, time.monotonic(), self._tried)
        if next_claim is None:
            self._tried = None
            self._wait()
            self._advance()
        else:
            self._take(next_claim)

    def _send(self, upstream: Upstream) -> None:
        """Send the request on `upstream`, as far as it is here."""
        self.phase = _SENT
        self.upstream = upstream
        head = self._head
        upstream.serve(self, head.method)
        if self.write_paused:
            upstream.pause_reading()
        if head.host != self._forwarded_host:
            self._forward_host(head.host, upstream.member)
        authorization = upstream.member.authorization
        out = [head.kept, head.authorization if authorization is None else authorization, self._forwarded]
        if head.request_id is None:
            out.append(self._id_line)
        if head.timeout_ms is not None:
            left_ms = max(1, round((self.deadline - time.monotonic()) * 1000.0))
            out.append(b"x-request-timeout-ms: %d\r\n" % left_ms)
        left = self.body_left
        if not left:
            out.append(b"\r\n")
            upstream.send(b"".join(out))
            return
        if left == CHUNKED:
            out.append(b"transfer-encoding: chunked\r\n")
        out.append(b"\r\n")
        buffer = self._buffer
        if 0 < left <= len(buffer):
            # The usual case: the whole body came with the head.
            self.body_left = 0
            if left == len(buffer):
                out.append(buffer)
                self._buffer = b""
            else:
                out.append(buffer[:left])
                self._buffer = buffer[left:]
            upstream.send(b"".join(out))
            if self._read_paused:
                self.release()
            return
        upstream.send(b"".join(out))
        self.last_data = time.monotonic()
        if buffer:
            self._pump()
        elif head.expects:
            self.send(CONTINUE)
        self.release()

    def _forward_host(self, host: bytes, member: Member) -> None:
        """The lines that say who asked for which host; one client's requests mostly have them in common."""
        self._forwarded_host = host or None
        self._forwarded = b"x-forwarded-for: %b\r\nx-forwarded-proto: http\r\n" % self._address
        if host:
            self._forwarded += b"x-forwarded-host: %b\r\n" % host
        else:
            self._forwarded += b"host: %b\r\n" % member.address.encode()

    def _pump(self) -> None:
        """Pass on what is here of the body."""
        upstream = self.upstream
        if upstream is None:
            raise AssertionError("a sent request has a connection")
        data = self._buffer
        left = self.body_left
        if left > 0:
            size = len(data)
            if size <= left:
                self._buffer = b""
                self.body_left = left - size
                upstream.send(data)
            else:
                self._buffer = data[left:]
                self.body_left = 0
                upstream.send(data[:left])
            return
        decoder = self._decoder
        if decoder is None:
            raise AssertionError("a chunked request has a decoder")
        self._buffer = b""
        try:
            payload = decoder.feed(data)
        except BadChunk as error:
            self._break_off(Refusal("bad_request", f"the chunked body is broken: {error}"), "refused")
            return
        if decoder.total > self._house.settings.limits.body:
            limit = self._house.settings.limits.body
            self._break_off(Refusal("too_large", f"the body is longer than {limit} bytes"), "refused")
            return
        out = encode_chunk(payload)
        if decoder.done:
            out += encode_end(decoder.trailers)
            self._buffer = decoder.rest
            self._decoder = None
            self.body_left = 0
        if out:
            upstream.send(out)

    # Answering.

    def send(self, data: bytes) -> None:
        """Write to the client, unless it is gone already: the loop says so to connection_lost one turn later."""
        transport = self.transport
        if not transport.is_closing():
            transport.write(data)

    def reply_head(self, head: ResponseHead) -> bytes:
        """The head of the reply as the client gets it."""
        self._replying = True
        out = head.kept + self._id_line
        minor = self._head.minor
        if self._keep and minor and head.length >= 0 and not self.body_left and not self._house.stopping:
            return out + b"\r\n"  # the usual reply
        if head.length < 0:
            self.chunks_reply = minor == 1
            if minor:
                out += b"transfer-encoding: chunked\r\n"
            else:
                self._keep = False
        if self.body_left or self._house.stopping:
            self._keep = False
        if not self._keep:
            return out + b"connection: close\r\n\r\n"
        return out + (b"\r\n" if minor else b"connection: keep-alive\r\n\r\n")

    def interim(self, kept: bytes) -> None:
        """A 1xx of the host other than 100."""
        if self._head.minor:
            self.send(kept + b"\r\n")

    def reply_done(self, status: int) -> None:
        """The host's reply is complete."""
        now = time.monotonic()
        claim, self._claim = self._claim, None
        if claim is None:
            raise AssertionError("a reply answers a claim")
        claim.pool.settle(claim, "completed" if status < 500 else "error", (now - self._arrived) * 1000.0)
        self.upstream = None
        self._replying = False
        self._reset()
        if not self._keep:
            self._linger()
            return
        self.phase = _HEAD
        self.deadline = now + self._house.settings.idle_timeout_s
        if self._read_paused:
            self._resume_reading()
        if self._buffer:
            self._sent_ahead(now)
            self._advance()

    def upstream_lost(self, upstream: Upstream, reason: str) -> None:
        """The host broke off, or answered with what can't be passed on."""
        self.upstream = None
        claim = self._claim
        if claim is None:
            return
        if upstream.reused and not upstream.answered and self._head.method in _SAFE and not self._head.length:
            # A kept connection that the host closed just now: safe to send again, and on a new connection, so once.
            self.phase = _CONNECTING
            self._house.connect(self, claim)
            return
        self._break_off(Refusal("bad_gateway", f"host {claim.member.name} {reason}"), "error")

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self.phase
        if phase == _HEAD:
            if self._buffer:
                self._refuse(Refusal("request_timeout", "the headers did not arrive in time"), close=True)
            else:
                self._close()
        elif phase == _PEEK:
            self._refuse(Refusal("request_timeout", "the body did not arrive in time"), close=True)
        elif phase == _QUEUED:
            self._house.serve_waiting()
        elif phase < _LINGER:
            self._break_off(
                Refusal("deadline_exceeded", "no complete answer before the request's deadline"), "error"
            )
        else:
            self.transport.abort()

    def check_body(self, now: float) -> None:
        """Refuse a client that stopped in the middle of a body."""
        stalled = now - self.last_data > self._house.settings.body_timeout_s
        if self.phase == _SENT and self.body_left and stalled and not self._read_paused:
            self._break_off(Refusal("request_timeout", "the body did not arrive in time"), "refused")

    def _break_off(self, refusal: Refusal, outcome: Outcome) -> None:
        """End a request that has a claim: with a refusal, or, where a reply has begun, by closing in its midst."""
        replying = self._replying
        self._let_go(outcome)
        if replying:
            self._close()
            return
        self._refuse(refusal)
        self._advance()

    def _refuse(self, refusal: Refusal, *, close: bool = False) -> None:
        """Answer a request that has no claim (any more)."""
        head: RequestHead | None = self._head
        self._reset()
        left = self.body_left
        if left > 0 and len(self._buffer) >= left:
            self._buffer = self._buffer[left:]
            left = self.body_left = 0
        keep = self._keep and not close and not left and not self._house.stopping
        bodiless = head is not None and head.method == b"HEAD" and not close
        self.send(refusal_bytes(refusal, self._id_line, close=not keep, bodiless=bodiless))
        if keep:
            now = time.monotonic()
            self.phase = _HEAD
            self.deadline = now + self._house.settings.idle_timeout_s
            if self._read_paused:
                self._resume_reading()
            if self._buffer:
                self._sent_ahead(now)
        else:
            self._linger()

    def _sent_ahead(self, now: float) -> None:
        """The next request's clock starts when its turn comes."""
        self._arrived = now
        self.deadline = now + self._house.settings.header_timeout_s

    def _reset(self) -> None:
        """Forget the present request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._decoder = None
        self._tried = None
        self._pool = None

    def _let_go(self, outcome: Outcome) -> None:
        """Give back whatever the present request holds."""
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            if self._pool is not None:
                self._pool.leave(ticket)
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.pool.settle(claim, outcome)
        self._replying = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Closing.

    def _linger(self) -> None:
        """Send what is left, say that it is the end, and read on for a while: closing with unread input would reset
        the connection, and the reply could be lost with it."""
        self.phase = _LINGER
        self._buffer = b""
        self._allow_flush()
        if self.transport.is_closing():
            return
        if not self.body_left and not self._read_paused:
            self.transport.close()
            return
        if self._read_paused:
            self._resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._let_go("abandoned")
        self.phase = _LINGER
        self._allow_flush()
        self.transport.close()

    def _allow_flush(self) -> None:
        """A slow reader gets the time of a slow writer."""
        unsent = self.transport.get_write_buffer_size()
        self.deadline = time.monotonic() + (self._house.settings.body_timeout_s if unsent else LINGER_S)

    def _gone(self) -> None:
        if self.phase != _CLOSED and self.phase != _LINGER:
            self._let_go("abandoned")
            self.transport.abort()

    def stop(self) -> None:
        """The balancer stops: an idle connection closes now, a busy one after its reply."""
        if self.phase == _HEAD and not self._buffer:
            self._close()

    # Back-pressure.

    def hold(self) -> None:
        """The host can't keep up: stop reading its body."""
        if self.body_left:
            self._pause_reading()

    def release(self) -> None:
        """The host can take more."""
        room = len(self._buffer) <= self._house.settings.buffer
        if self._read_paused and room and self.upstream is not None and not self.upstream.write_paused:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        self._read_paused = False
        self.last_data = time.monotonic()
        if not self.transport.is_closing():
            self.transport.resume_reading()
