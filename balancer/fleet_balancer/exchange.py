"""One request on its way: placed on a host, sent, answered.

Decides what happens between a request's head and the last byte of its reply: which host is tried, who waits, what is
sent again and what never is, and with which outcome the pool's claim is given back. The connections at both ends
belong to others (Caller, Upstream). No task and no timer per request: the caller's one deadline is looked at four
times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from fleet_balancer.access_log import AccessLogWriter
from fleet_balancer.ask import Ask
from fleet_balancer.asking import ask_of
from fleet_balancer.front import MAX_PEEK, Front, Route
from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder, encode_chunk, encode_end
from fleet_balancer.http.grammar import CHUNKED, tokens_of
from fleet_balancer.http.request import RequestHead
from fleet_balancer.http.response import ResponseHead
from fleet_balancer.keys import KeyUse
from fleet_balancer.member import Member
from fleet_balancer.outcome import Outcome, outcome_of
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_balancer.second_copy import SecondCopy
from fleet_balancer.settings import Settings
from fleet_balancer.tunnel import Tunnel
from fleet_balancer.upstream import Upstream
from fleet_wire.refusal import Refusal

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Sending these twice is harmless (RFC 9110 9.2.2).
_SAFE = frozenset((b"GET", b"HEAD"))
# How often one request is sent again after its first bytes went out.
MAX_RESENDS = 3
# A body longer than this goes out beside the head, not copied behind it.
_COPIED = 32 * 1024
# A client that closes its sending side may still read (half-close) or be gone: no telling which. It gets what
# arrives within this many seconds, then the host is told to stop.
HALF_CLOSE_GRACE_S = 0.05
# What the access log says where the client left before its reply was complete (nginx's number).
_CLIENT_LEFT = 499

# Where a request is.
_PEEK = 1  # its body is awaited, because it names the model
_QUEUED = 2  # no host may take it yet
_CONNECTING = 3  # a connection to its host is being made
_SENT = 4  # it went to a host
_SWITCHED = 5  # it became a tunnel
_ENDED = 6


class House(Protocol):
    """What a request needs from the proxy around it."""

    front: Front
    settings: Settings
    loop: asyncio.AbstractEventLoop
    stopping: bool
    access_log: AccessLogWriter | None

    def idle_connection(self, member: Member, now: float) -> Upstream | None: ...
    def connect(self, asker: Exchange | SecondCopy, claim: Claim) -> None: ...
    def serve_waiting(self) -> None: ...
    def deliver(self, served: Sequence[tuple[Ticket, Claim | Refusal]]) -> None: ...


class Caller(Protocol):
    """The client's connection, as its present request sees it. `buffer`: bytes after the head, not passed on yet."""

    address: bytes
    buffer: bytes
    deadline: float
    keep: bool
    read_paused: bool
    transport: asyncio.Transport
    write_paused: bool

    def send(self, data: bytes) -> None: ...
    def forwarded(self, host: bytes, member: Member) -> bytes: ...
    def done(self, now: float) -> None: ...
    def refuse(self, refusal: Refusal, exchange: Exchange | None = None) -> None: ...
    def advance(self) -> None: ...
    def close(self) -> None: ...
    def gone(self) -> None: ...
    def switch(self, tunnel: Tunnel) -> None: ...
    def pause_reading(self) -> None: ...
    def release(self) -> None: ...


class Exchange:
    """`body_left`: bytes of the request's body still to come, CHUNKED, or 0. `arrived`: the head's first byte.

    `use`: whose API key it came with. `repeats`: it was declared idempotent, so its body is held until a reply has
    begun; `held`: what has gone out of the body so far, None where that has become too much.
    Defaults stand in the class and not in slots: an exchange is made for each request, and most never change.
    """

    phase = _PEEK
    pool: Pool | None = None
    model: str | None = None
    claim: Claim | None = None
    upstream: Upstream | None = None
    use: KeyUse | None = None
    chunks_reply = False
    last_data = 0.0
    repeats = False
    resends = 0
    retries = 0
    status = 0
    sent = 0
    held: bytes | None = None
    _ask: Ask | None = None
    _ticket: Ticket | None = None
    _second: SecondCopy | None = None
    _hedge: asyncio.TimerHandle | None = None
    _timer: asyncio.TimerHandle | None = None
    _decoder: ChunkedDecoder | None = None
    _tried: set[Member] | None = None
    _replying = False
    _switched_after_ms = 0.0

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
            if not 0 < length <= MAX_PEEK:
                route = front.route_without_model()
            elif len(buffer) >= length:
                route = front.route_body(buffer[:length], self.head.version)
            else:
                return
        except Refusal as refusal:
            self.refuse(refusal)
            return
        self.place(route)

    def place(self, route: Route) -> None:
        """It belongs to the route's pool: from here on it is counted there."""
        pool = route.pool
        if pool is None:
            raise AssertionError("a request is placed once its pool is known")
        head = self.head
        asking = pool.asking
        use = self.use
        if use is not None and use.pools is not None:
            try:
                use.allow(pool.name)
            except Refusal as refusal:
                self.refuse(refusal)
                return
        if head.unusual or asking is not None or use is not None or route.version is not None:
            self._ask = ask_of(head, asking, use, route.version)
            self.repeats = head.idempotent or (
                asking is not None and (asking.repeats or (asking.hedges and head.method in _SAFE))
            )
        self.pool = pool
        self.model = model = route.model
        pool.arrivals += 1
        now = self.arrived
        caller = self.caller
        caller.deadline = now + pool.config.request_timeout_s
        if head.timeout_ms is not None:
            caller.deadline = min(caller.deadline, now + head.timeout_ms / 1000.0)
            delay = max(0.0, caller.deadline - monotonic())
            self._timer = self.house.loop.call_later(delay, self.expire)
        claim = pool.claim(model, now, (), self._ask)
        if claim is None:
            self._wait(pool)
        else:
            self._take(claim, now)

    def _wait(self, pool: Pool) -> None:
        """No host may take it: queue it."""
        now = monotonic()
        ticket = Ticket(
            self, self.model, min(now + pool.config.queue_timeout_s, self.caller.deadline), self._ask
        )
        try:
            served = pool.wait(ticket, now)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        self._ticket = ticket
        self.phase = _QUEUED
        if served:
            self.house.deliver(served)

    def admitted(self, result: Claim | Refusal) -> None:
        """The wait is over."""
        self._ticket = None
        if isinstance(result, Refusal):
            self.refuse(result)
            self.caller.advance()
        else:
            self._take(result, monotonic())

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
        if not fault_of_host:
            self._settle("refused")
            self.refuse(Refusal("unavailable", "the balancer has no free socket to reach a host with", 1.0))
            self.caller.advance()
            return
        self._settle("retry")
        self._elsewhere(pool, claim.member)

    def _elsewhere(self, pool: Pool, failed: Member) -> None:
        """Its claim on `failed` was given back: another host may take it, else it waits."""
        self.retries += 1
        if self._tried is None:
            self._tried = set()
        self._tried.add(failed)
        now = monotonic()
        claim = pool.claim(self.model, now, self._tried, self._ask)
        if claim is None:
            self._tried = None
            self._wait(pool)
            self.caller.advance()
        else:
            self._take(claim, now)

    # Sending it.

    def _send(self, upstream: Upstream) -> None:
        """Send the request on `upstream`, as far as it is here."""
        self.phase = _SENT
        self.upstream = upstream
        caller = self.caller
        head = self.head
        member = upstream.member
        authorization = member.authorization
        if authorization is None:
            authorization = head.authorization
        if caller.write_paused:
            upstream.pause_reading()
        buffer = caller.buffer
        forwarded = caller.forwarded(head.host, member)
        if self.body_left == len(buffer) <= _COPIED and not head.unusual and not self.repeats:
            # The usual case: the whole body came with the head.
            self.body_left = 0
            caller.buffer = b""
            upstream.ask(
                self,
                head.method,
                b"".join((head.kept, authorization, forwarded, self.id_line, b"\r\n", buffer)),
            )
            if caller.read_paused:
                caller.release()
            return
        upstream.ask(self, head.method, self._unusual_request(upstream))
        if self.held:
            upstream.send(self.held)
        elif self.repeats:
            self.held = b""
        if self.body_left:
            if self.body_left == CHUNKED and self._decoder is None:
                self._decoder = ChunkedDecoder()
            self.last_data = monotonic()
            if buffer:
                self._pump()
            elif head.expects:
                caller.send(CONTINUE)
        caller.release()
        if self.repeats and not self.body_left and self._hedge is None:
            self._may_hedge()

    def _unusual_request(self, upstream: Upstream) -> bytes:
        """The head, as `upstream`'s host gets it."""
        caller = self.caller
        head = self.head
        member = upstream.member
        authorization = head.authorization if member.authorization is None else member.authorization
        out = [head.kept, authorization, caller.forwarded(head.host, member), self.id_line]
        if head.timeout_ms is not None:
            left_ms = max(1, round((caller.deadline - monotonic()) * 1000.0))
            out.append(b"x-request-timeout-ms: %d\r\n" % left_ms)
        if head.length == CHUNKED:
            out.append(b"transfer-encoding: chunked\r\n")
        if head.upgrade is not None:
            out.append(b"connection: upgrade\r\nupgrade: %b\r\n" % head.upgrade)
        out.append(b"\r\n")
        return b"".join(out)

    def more(self) -> None:
        """More of the client's bytes are in its buffer."""
        if self.phase == _SENT:
            if self.body_left:
                self.last_data = monotonic()
                self._pump()
        elif self.phase == _PEEK:
            self.last_data = monotonic()
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
            else:
                caller.buffer = data[left:]
                self.body_left = 0
                data = data[:left]
            if self.held is not None:
                self._hold(data)
            upstream.send(data)
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
            if self.held is not None:
                self._hold(out)
            upstream.send(out)

    def _hold(self, data: bytes) -> None:
        """Keep what went out of the body, for another host, while that is little."""
        held = (self.held or b"") + data
        self.held = held if len(held) <= self.house.settings.buffer else None

    # Answering it.

    def send(self, data: bytes) -> None:
        """A piece of the reply's body."""
        self.sent += len(data)
        self.caller.send(data)

    def reply(self, upstream: Upstream, head: ResponseHead, body: bytes) -> bool:
        """The reply's head, and what has come of its body; False where it is not wanted and `upstream` was dropped."""
        if head.status >= 500 and (self._left_to_copy() or self._resent_for(head)):
            return False
        if self._second is not None:
            self._cancel_copy()
        self._replying = True
        self.status = head.status
        self.sent = len(body)
        caller = self.caller
        minor = self.head.minor
        if caller.keep and minor and head.length >= 0 and not self.body_left and not self.house.stopping:
            out = b"".join((head.kept, self.id_line, b"\r\n", body))  # the usual reply
        else:
            out = self._unusual_head(head) + body
        try:
            caller.transport.write(out)
        except RuntimeError:
            pass  # the client is gone; connection_lost follows
        return True

    def _unusual_head(self, head: ResponseHead) -> bytes:
        caller = self.caller
        minor = self.head.minor
        out = head.kept + self.id_line
        if head.length < 0:
            self.chunks_reply = minor == 1
            if minor:
                out += b"transfer-encoding: chunked\r\n"
            else:
                caller.keep = False
        if self.body_left or self.house.stopping:
            caller.keep = False
        if not caller.keep:
            return out + b"connection: close\r\n\r\n"
        return out + (b"\r\n" if minor else b"connection: keep-alive\r\n\r\n")

    def interim(self, kept: bytes) -> None:
        """A 1xx of the host other than 100."""
        if self.head.minor:
            self.caller.send(kept + b"\r\n")

    def reply_done(self, head: ResponseHead, now: float) -> None:
        """The host's reply is complete."""
        claim, self.claim = self.claim, None
        if claim is None:
            raise AssertionError("a reply answers a claim")
        pool = claim.pool
        status = head.status
        outcome: Outcome = "completed"
        if status >= 400:
            own_deadline = self.head.timeout_ms is not None
            outcome = outcome_of(status, retry_after=head.retry_after, own_deadline=own_deadline)
        pool.settle(claim, outcome, (now - self.arrived) * 1000.0, now)
        if head.load is not None:
            pool.reported_inline(claim.member, head.load, now)
        self.upstream = None
        if self.house.access_log is not None:
            self._log(now, claim.member)
        if self._timer is not None or self._hedge is not None:
            self._stop_timers()
        self.phase = _ENDED
        if pool.waiting:
            self.house.deliver(pool.freed(claim.member, now))
        self.caller.done(now)

    def upstream_lost(self, upstream: Upstream, reason: str) -> None:
        """The host broke off, or answered with what can't be passed on."""
        self.upstream = None
        claim = self.claim
        if claim is None:
            return
        if not self._replying and self._left_to_copy():
            return
        if not self._replying and not upstream.answered and self._may_resend(claim.pool):
            if upstream.reused:
                # A kept connection that the host closed just now: a new one to the same host says which it was.
                self.resends += 1
                self.retries += 1
                self.phase = _CONNECTING
                self.house.connect(self, claim)
                return
            if self._resend(claim, "resent"):
                return
        self._break_off(Refusal("bad_gateway", f"host {claim.member.name} {reason}"), "error")

    def _may_resend(self, pool: Pool) -> bool:
        """Whether it may go out a second time: declared harmless, its body still here, and within the budget."""
        if self.resends >= MAX_RESENDS:
            return False
        held = self.held is not None if self.repeats else self.head.method in _SAFE and not self.head.length
        return held and pool.budget.allows(monotonic(), pool.arrivals)

    def _resent_for(self, head: ResponseHead) -> bool:
        """Whether another host gets it, because this one answered 502, 503 or 504."""
        claim = self.claim
        if claim is None or not 502 <= head.status <= 504 or not self._may_resend(claim.pool):
            return False
        # A host that says when to come again is full and not broken.
        return self._resend(claim, "retry" if head.retry_after else "resent")

    def _resend(self, claim: Claim, outcome: Outcome) -> bool:
        """Send it again to another host; False where there is none that may take it now."""
        pool = claim.pool
        tried = {claim.member, *(self._tried or ())}
        now = monotonic()
        other = pool.claim(self.model, now, tried, self._ask)
        if other is None:
            return False
        self.resends += 1
        self.retries += 1
        self._tried = tried
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()
        self._settle(outcome)
        self._take(other, now)
        return True

    # The second copy.

    def _may_hedge(self) -> None:
        """Send a second copy once it has taken longer than the pool's p95."""
        pool = self.pool
        if pool is not None and pool.asking is not None and pool.asking.hedges and self.held is not None:
            after_ms = pool.hedge.after_ms
            if after_ms is not None:
                self._hedge = self.house.loop.call_later(after_ms / 1000.0, self._send_copy)

    def _send_copy(self) -> None:
        pool = self.pool
        claim = self.claim
        if pool is None or claim is None or self.phase != _SENT or self._replying:
            return
        now = monotonic()
        if not pool.hedge.allows(now, pool.arrivals):
            return
        second = pool.second_claim(claim, self.model, now, self._tried or ())
        if second is None:
            return
        self.retries += 1
        self._second = copy = SecondCopy(self, second, self.head.method)
        upstream = self.house.idle_connection(second.member, now)
        if upstream is None:
            self.house.connect(copy, second)
        else:
            copy.connected(second, upstream)

    def copy_for(self, upstream: Upstream) -> bytes:
        """All of the request, as the copy's host gets it."""
        return self._unusual_request(upstream) + (self.held or b"")

    def copy_answers(self, copy: SecondCopy, head: ResponseHead, body: bytes) -> bool:
        """The copy was first: it is the request now."""
        upstream = copy.upstream
        if upstream is None:
            raise AssertionError("who answers has a connection")
        self._become(copy)
        upstream.client = self
        return self.reply(upstream, head, body)

    def copy_failed(self, copy: SecondCopy) -> None:
        """The copy came to nothing; the request itself is still under way."""
        self._second = None
        copy.claim.pool.settle(copy.claim, "spare", 0.0, monotonic())

    def _left_to_copy(self) -> bool:
        """Whether the copy, which is under way, is the request from now on."""
        copy = self._second
        if copy is None or copy.upstream is None:
            return False
        upstream = copy.upstream
        self._become(copy)
        upstream.client = self
        return True

    def _become(self, copy: SecondCopy) -> None:
        first, self.upstream = self.upstream, copy.upstream
        if first is not None:
            first.drop()
        self._settle("spare")
        self._second = None
        copy.over = True
        self.claim = copy.claim

    def _cancel_copy(self) -> None:
        copy, self._second = self._second, None
        if copy is not None:
            copy.cancel()
            copy.claim.pool.settle(copy.claim, "spare", 0.0, monotonic())

    # Switching protocols.

    def switch(self, upstream: Upstream, head: ResponseHead) -> bool:
        """The host answered 101; False where nobody asked for what it switched to."""
        asked = self.head.upgrade
        if asked is None or head.upgrade is None or not set(tokens_of(head.upgrade)) & set(tokens_of(asked)):
            return False
        if self._second is not None:
            self._cancel_copy()
        caller = self.caller
        self.phase = _SWITCHED
        self.status = 101
        self._stop_timers()
        self._switched_after_ms = (monotonic() - self.arrived) * 1000.0
        caller.keep = False
        caller.send(
            b"%b%bconnection: upgrade\r\nupgrade: %b\r\n\r\n" % (head.kept, self.id_line, head.upgrade)
        )
        tunnel = Tunnel(self, caller, upstream, self.house.settings.tunnel_idle_s)
        upstream.become(tunnel)
        caller.switch(tunnel)
        return True

    def switched_done(self, outcome: Outcome, sent: int) -> None:
        """The tunnel that it became is over."""
        claim, self.claim = self.claim, None
        if claim is None:
            raise AssertionError("a tunnel is a request in flight")
        now = monotonic()
        claim.at = now  # how long people talk says nothing about the host's speed
        pool = claim.pool
        self.phase = _ENDED
        pool.settle(claim, outcome, self._switched_after_ms, now)
        if self.house.access_log is not None:
            self.sent = sent
            self._log(now, claim.member)
        if pool.waiting:
            self.house.deliver(pool.freed(claim.member, now))

    # Ending it early.

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self.phase
        if phase == _PEEK:
            self.caller.keep = False
            self.refuse(Refusal("request_timeout", "the body did not arrive in time"))
        elif phase == _QUEUED:
            self.house.serve_waiting()
        elif phase != _ENDED:
            late = Refusal("deadline_exceeded", "no complete answer before the request's deadline")
            self._break_off(late, "error" if self.head.timeout_ms is None else "excused")

    def check_body(self, now: float) -> None:
        """Refuse a client that stopped in the middle of a body."""
        stalled = now - self.last_data > self.house.settings.body_timeout_s
        if self.phase == _SENT and stalled and not self.caller.read_paused:
            self._break_off(Refusal("request_timeout", "the body did not arrive in time"), "refused")

    def _break_off(self, refusal: Refusal, outcome: Outcome) -> None:
        """End it: with a refusal, or, where a reply has begun, by closing in its midst."""
        replying = self._replying
        member = None if self.claim is None else self.claim.member
        self._release_all(outcome)
        if self.house.access_log is not None:
            self.status = self.status if replying else refusal.status
            self._log(monotonic(), member, refusal.code)
        if replying:
            self.caller.close()
            return
        self.caller.refuse(refusal, self)
        self.caller.advance()

    def refuse(self, refusal: Refusal) -> None:
        """Answer it here; it has no claim (any more)."""
        self._end()
        if self.house.access_log is not None:
            self.status = refusal.status
            self._log(monotonic(), None, refusal.code)
        self.caller.refuse(refusal, self)

    def abandon(self) -> None:
        """The client has left, or the connection is closed with the request under way."""
        if self.phase == _ENDED:
            return
        member = None if self.claim is None else self.claim.member
        self._release_all("abandoned")
        if self.house.access_log is not None:
            self.status = _CLIENT_LEFT
            self._log(monotonic(), member)

    def _release_all(self, outcome: Outcome) -> None:
        """Give back whatever it holds."""
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            if self.pool is not None:
                self.pool.leave(ticket)
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()
        if self._second is not None:
            self._cancel_copy()
        self._end()
        self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        """Give the claim back, where it has one, and let others have the place."""
        claim, self.claim = self.claim, None
        if claim is None:
            return
        now = monotonic()
        pool = claim.pool
        pool.settle(claim, outcome, 0.0, now)
        if pool.waiting:
            self.house.deliver(pool.freed(claim.member, now))

    def _end(self) -> None:
        self.phase = _ENDED
        self._stop_timers()

    def _stop_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._hedge is not None:
            self._hedge.cancel()

    def _log(self, now: float, member: Member | None, refused: str | None = None) -> None:
        """One line of the access log."""
        log = self.house.access_log
        if log is not None:
            log.record(
                self.id_line[14:-2],
                self.status,
                self.arrived,
                now,
                self.caller.address,
                self.head.method,
                self.head.target,
                self.sent,
                None if member is None else member.name,
                None if self.pool is None else self.pool.name,
                self.model,
                None if self.use is None else self.use.name,
                self.retries,
                refused,
            )

    # Back-pressure.

    def client_ended(self) -> bool:
        """The client closed its sending side: where all of the request is here it is answered, but shortly."""
        left = self.body_left
        if not _QUEUED <= self.phase <= _SENT or not (not left or 0 < left <= len(self.caller.buffer)):
            return False
        self.caller.keep = False
        self.house.loop.call_later(HALF_CLOSE_GRACE_S, self.caller.gone)
        return True

    def hold(self) -> None:
        """The host can't keep up: stop reading its body."""
        if self.body_left:
            self.caller.pause_reading()

    def release(self) -> None:
        """The host can take more."""
        self.caller.release()
