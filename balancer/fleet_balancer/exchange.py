"""One request on its way: placed on a host, sent, answered.

Decides what happens between a request's head and the last byte of its reply: which host is tried, who waits, what is
sent again and what never is, and with which outcome the pool's claim is given back. The connections at both ends
belong to others (Caller, Upstream). No task and no timer per request: the caller's one deadline is looked at four
times a second.
"""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Protocol

from fleet_balancer.front import MAX_PEEK, Front, Route
from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder, encode_chunk, encode_end
from fleet_balancer.http.grammar import CHUNKED
from fleet_balancer.http.request import RequestHead
from fleet_balancer.http.response import ResponseHead
from fleet_balancer.member import Member
from fleet_balancer.pool import Claim, Outcome, Pool, Ticket
from fleet_balancer.settings import Settings
from fleet_balancer.upstream import Upstream
from fleet_wire.refusal import Refusal

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Sending these twice is harmless (RFC 9110 9.2.2), so a kept connection that turns out dead is worth a second try.
_SAFE = frozenset((b"GET", b"HEAD"))


class Phase(enum.IntEnum):
    """Where a request is."""

    PEEK = 1  # its body is awaited, because it names the model
    QUEUED = 2  # no host may take it yet
    CONNECTING = 3  # a connection to its host is being made
    SENT = 4  # it went to a host
    ENDED = 5


# A member of an enum is found by two look-ups; these are compared on every event.
_PEEK, _QUEUED, _CONNECTING, _SENT, _ENDED = Phase


class House(Protocol):
    """What a request needs from the proxy around it."""

    front: Front
    settings: Settings
    loop: asyncio.AbstractEventLoop
    stopping: bool

    def idle_connection(self, member: Member, now: float) -> Upstream | None: ...
    def connect(self, exchange: Exchange, claim: Claim) -> None: ...
    def serve_waiting(self) -> None: ...


class Caller(Protocol):
    """The client's connection, as its present request sees it. `buffer`: bytes after the head, not passed on yet."""

    buffer: bytes
    deadline: float
    keep: bool
    read_paused: bool
    write_paused: bool

    def send(self, data: bytes) -> None: ...
    def forwarded(self, host: bytes, member: Member) -> bytes: ...
    def done(self, now: float) -> None: ...
    def refuse(self, refusal: Refusal, exchange: Exchange | None = None) -> None: ...
    def advance(self) -> None: ...
    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def release(self) -> None: ...


class Exchange:
    """`body_left`: bytes of the request's body still to come, CHUNKED, or 0. `arrived`: the head's first byte.

    Defaults stand in the class and not in slots: an exchange is made for each request, and most never change.
    """

    phase: Phase = _PEEK
    pool: Pool | None = None
    model: str | None = None
    claim: Claim | None = None
    upstream: Upstream | None = None
    chunks_reply = False
    last_data = 0.0
    _ticket: Ticket | None = None
    _timer: asyncio.TimerHandle | None = None
    _decoder: ChunkedDecoder | None = None
    _tried: set[Member] | None = None
    _replying = False

    def __init__(
        self, house: House, caller: Caller, head: RequestHead, id_line: bytes, arrived: float
    ) -> None:
        self.house = house
        self.caller = caller
        self.head = head
        self.id_line = id_line
        self.arrived = arrived
        self.body_left = head.length

    # Placing it on a host.

    def peek(self) -> None:
        """Only the body says which model: await it."""
        caller = self.caller
        head = self.head
        self.last_data = self.arrived
        caller.deadline = self.arrived + self.house.settings.body_timeout_s
        if head.expects and 0 < head.length <= MAX_PEEK and not caller.buffer:
            head.expects = False
            caller.send(CONTINUE)
        self._peek()

    def _peek(self) -> None:
        """Route by the model that the body names, once the body is here; it goes on unchanged."""
        length = self.head.length
        front = self.house.front
        buffer = self.caller.buffer
        try:
            route: Route
            if not 0 < length <= MAX_PEEK:
                route = front.route_without_model()
            elif len(buffer) >= length:
                route = front.route_body(buffer[:length])
            else:
                return
            if route.pool is None:
                raise AssertionError("a body's route has a pool")
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self.place(route.pool, route.model)

    def place(self, pool: Pool, model: str | None) -> None:
        """It belongs to `pool`: from here on it is counted there."""
        self.pool = pool
        self.model = model
        pool.arrivals += 1
        now = self.arrived
        caller = self.caller
        caller.deadline = now + pool.config.request_timeout_s
        if self.head.timeout_ms is not None:
            caller.deadline = min(caller.deadline, now + self.head.timeout_ms / 1000.0)
            delay = max(0.0, caller.deadline - time.monotonic())
            self._timer = self.house.loop.call_later(delay, self.expire)
        claim = pool.claim(model, now)
        if claim is None:
            self._wait(pool)
        else:
            self._take(claim, now)

    def _wait(self, pool: Pool) -> None:
        """No host may take it: queue it."""
        until = min(time.monotonic() + pool.config.queue_timeout_s, self.caller.deadline)
        ticket = Ticket(self, self.model, until)
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
            self.caller.advance()
        else:
            self._take(result, time.monotonic())

    def _take(self, claim: Claim, now: float) -> None:
        self.claim = claim
        upstream = self.house.idle_connection(claim.member, now)
        if upstream is None:
            self.phase = _CONNECTING
            self.house.connect(self, claim)
        else:
            self._send(upstream)

    def connected(self, claim: Claim, upstream: Upstream) -> bool:
        """`upstream` was made for `claim`; False where the request has gone away in the meantime."""
        if self.claim is not claim or self.phase != _CONNECTING:
            return False
        self._send(upstream)
        return True

    def connect_failed(self, claim: Claim, fault_of_host: bool) -> None:
        """Nothing was sent: another host may take it, else it waits."""
        pool = self.pool
        if self.claim is not claim or self.phase != _CONNECTING or pool is None:
            return
        self.claim = None
        if not fault_of_host:
            pool.settle(claim, "refused")
            self._refuse(Refusal("unavailable", "the balancer has no free socket to reach a host with", 1.0))
            self.caller.advance()
            return
        pool.settle(claim, "retry")
        if self._tried is None:
            self._tried = set()
        self._tried.add(claim.member)
        now = time.monotonic()
        next_claim = pool.claim(self.model, now, self._tried)
        if next_claim is None:
            self._tried = None
            self._wait(pool)
            self.caller.advance()
        else:
            self._take(next_claim, now)

    # Sending it.

    def _send(self, upstream: Upstream) -> None:
        """Send the request on `upstream`, as far as it is here."""
        self.phase = _SENT
        self.upstream = upstream
        caller = self.caller
        head = self.head
        upstream.serve(self, head.method)
        if caller.write_paused:
            upstream.pause_reading()
        member = upstream.member
        authorization = member.authorization
        out = [
            head.kept,
            head.authorization if authorization is None else authorization,
            caller.forwarded(head.host, member),
        ]
        if head.request_id is None:
            out.append(self.id_line)
        if head.timeout_ms is not None:
            left_ms = max(1, round((caller.deadline - time.monotonic()) * 1000.0))
            out.append(b"x-request-timeout-ms: %d\r\n" % left_ms)
        left = self.body_left
        if not left:
            out.append(b"\r\n")
            upstream.send(b"".join(out))
            return
        if left == CHUNKED:
            out.append(b"transfer-encoding: chunked\r\n")
            self._decoder = ChunkedDecoder()
        out.append(b"\r\n")
        buffer = caller.buffer
        if 0 < left <= len(buffer):
            # The usual case: the whole body came with the head.
            self.body_left = 0
            if left == len(buffer):
                out.append(buffer)
                caller.buffer = b""
            else:
                out.append(buffer[:left])
                caller.buffer = buffer[left:]
            upstream.send(b"".join(out))
            if caller.read_paused:
                caller.release()
            return
        upstream.send(b"".join(out))
        self.last_data = time.monotonic()
        if buffer:
            self._pump()
        elif head.expects:
            caller.send(CONTINUE)
        caller.release()

    def more(self) -> None:
        """More of the client's bytes are in its buffer."""
        if self.phase == _SENT:
            if self.body_left:
                self.last_data = time.monotonic()
                self._pump()
        elif self.phase == _PEEK:
            self.last_data = time.monotonic()
            self._peek()

    def _pump(self) -> None:
        """Pass on what is here of the body."""
        upstream = self.upstream
        if upstream is None:
            raise AssertionError("a sent request has a connection")
        caller = self.caller
        data = caller.buffer
        left = self.body_left
        if left > 0:
            size = len(data)
            if size <= left:
                caller.buffer = b""
                self.body_left = left - size
                upstream.send(data)
            else:
                caller.buffer = data[left:]
                self.body_left = 0
                upstream.send(data[:left])
            return
        decoder = self._decoder
        if decoder is None:
            raise AssertionError("a chunked request has a decoder")
        caller.buffer = b""
        try:
            payload = decoder.feed(data)
        except BadChunk as error:
            self._break_off(Refusal("bad_request", f"the chunked body is broken: {error}"), "refused")
            return
        limit = self.house.settings.limits.body
        if decoder.total > limit:
            self._break_off(Refusal("too_large", f"the body is longer than {limit} bytes"), "refused")
            return
        out = encode_chunk(payload)
        if decoder.done:
            out += encode_end(decoder.trailers)
            caller.buffer = decoder.rest
            self._decoder = None
            self.body_left = 0
        if out:
            upstream.send(out)

    # Answering it.

    def send(self, data: bytes) -> None:
        self.caller.send(data)

    def reply_head(self, head: ResponseHead) -> bytes:
        """The head of the reply as the client gets it."""
        self._replying = True
        caller = self.caller
        out = head.kept + self.id_line
        minor = self.head.minor
        stopping = self.house.stopping
        if caller.keep and minor and head.length >= 0 and not self.body_left and not stopping:
            return out + b"\r\n"  # the usual reply
        if head.length < 0:
            self.chunks_reply = minor == 1
            if minor:
                out += b"transfer-encoding: chunked\r\n"
            else:
                caller.keep = False
        if self.body_left or stopping:
            caller.keep = False
        if not caller.keep:
            return out + b"connection: close\r\n\r\n"
        return out + (b"\r\n" if minor else b"connection: keep-alive\r\n\r\n")

    def interim(self, kept: bytes) -> None:
        """A 1xx of the host other than 100."""
        if self.head.minor:
            self.caller.send(kept + b"\r\n")

    def reply_done(self, status: int, now: float) -> None:
        """The host's reply is complete."""
        claim, self.claim = self.claim, None
        if claim is None:
            raise AssertionError("a reply answers a claim")
        claim.pool.settle(claim, "completed" if status < 500 else "error", (now - self.arrived) * 1000.0)
        self.upstream = None
        self._end()
        self.caller.done(now)

    def upstream_lost(self, upstream: Upstream, reason: str) -> None:
        """The host broke off, or answered with what can't be passed on."""
        self.upstream = None
        claim = self.claim
        if claim is None:
            return
        if upstream.reused and not upstream.answered and self.head.method in _SAFE and not self.head.length:
            # A kept connection that the host closed just now: safe to send again, and on a new connection, so once.
            self.phase = _CONNECTING
            self.house.connect(self, claim)
            return
        self._break_off(Refusal("bad_gateway", f"host {claim.member.name} {reason}"), "error")

    # Ending it early.

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self.phase
        if phase == _PEEK:
            self.caller.keep = False
            self._refuse(Refusal("request_timeout", "the body did not arrive in time"))
        elif phase == _QUEUED:
            self.house.serve_waiting()
        elif phase != _ENDED:
            self._break_off(
                Refusal("deadline_exceeded", "no complete answer before the request's deadline"), "error"
            )

    def check_body(self, now: float) -> None:
        """Refuse a client that stopped in the middle of a body."""
        stalled = now - self.last_data > self.house.settings.body_timeout_s
        if self.phase == _SENT and stalled and not self.caller.read_paused:
            self._break_off(Refusal("request_timeout", "the body did not arrive in time"), "refused")

    def _break_off(self, refusal: Refusal, outcome: Outcome) -> None:
        """End it: with a refusal, or, where a reply has begun, by closing in its midst."""
        replying = self._replying
        self.let_go(outcome)
        if replying:
            self.caller.close()
            return
        self.caller.refuse(refusal, self)
        self.caller.advance()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer it here; it has no claim (any more)."""
        self._end()
        self.caller.refuse(refusal, self)

    def let_go(self, outcome: Outcome) -> None:
        """Give back whatever it holds."""
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            if self.pool is not None:
                self.pool.leave(ticket)
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()
        claim, self.claim = self.claim, None
        if claim is not None:
            claim.pool.settle(claim, outcome)
        self._end()

    def _end(self) -> None:
        self.phase = _ENDED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Back-pressure.

    def answers_when_half_closed(self) -> bool:
        """Whether all of the request is here, so that a client that only closed its sending side can be answered."""
        left = self.body_left
        return _QUEUED <= self.phase <= _SENT and (not left or 0 < left <= len(self.caller.buffer))

    def hold(self) -> None:
        """The host can't keep up: stop reading its body."""
        if self.body_left:
            self.caller.pause_reading()

    def release(self) -> None:
        """The host can take more."""
        self.caller.release()
