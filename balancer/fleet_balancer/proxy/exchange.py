"""One request on its way: read from the client, sent to a host, answered.

Decides what passes between a request's head and the last byte of its reply, in both directions. Which host it is on is
Placing's part, what is sent again Again's; the connections at both ends belong to others (Caller, Upstream).
"""

from __future__ import annotations

from time import monotonic

from fleet_balancer.failure.outcome import Outcome, outcome_of
from fleet_balancer.front import MAX_PEEK
from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder, encode_chunk, encode_end
from fleet_balancer.http.grammar import CHUNKED, tokens_of
from fleet_balancer.http.response import ResponseHead
from fleet_balancer.proxy.again import Again
from fleet_balancer.proxy.placing import ENDED, PEEK, QUEUED, SENT, SWITCHED
from fleet_balancer.proxy.tunnel import Tunnel
from fleet_balancer.proxy.upstream import Upstream
from fleet_wire.refusal import Refusal

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A body longer than this goes out beside the head, not copied behind it.
_COPIED = 32 * 1024
# A client that closes its sending side may still read (half-close) or be gone: no telling which. It gets what
# arrives within this many seconds, then the host is told to stop.
HALF_CLOSE_GRACE_S = 0.05


class Exchange(Again):
    """`chunks_reply`: the reply's body has no length, and the client gets it in chunks. `last_data`: when a byte of the
    request's body came last."""

    chunks_reply = False
    last_data = 0.0
    _decoder: ChunkedDecoder | None = None
    _switched_after_ms = 0.0

    # Reading and sending it.

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

    def _send(self, upstream: Upstream) -> None:
        """Send the request on `upstream`, as far as it is here."""
        self.phase = SENT
        self.upstream = upstream
        caller = self.caller
        head = self.head
        authorization = upstream.member.authorization
        if authorization is None:
            authorization = head.authorization
        if caller.write_paused:
            upstream.pause_reading()
        buffer = caller.buffer
        if self.body_left == len(buffer) <= _COPIED and not head.unusual and not self.repeats:
            # The usual case: the whole body came with the head.
            self.body_left = 0
            caller.buffer = b""
            host = head.host
            lines = (
                caller.forwarded
                if host == caller.forwarded_host
                else caller.forwarding(host, upstream.member)
            )
            upstream.ask(
                self,
                head.method,
                b"".join((head.kept, authorization, lines, self.id_line, b"\r\n", buffer)),
            )
            if caller.read_paused:
                caller.release()
            return
        upstream.ask(self, head.method, self.request_for(upstream))
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
                head.expects = False
                caller.send(CONTINUE)
        caller.release()
        if self.repeats and not self.body_left and self._hedge is None and head.upgrade is None:
            self._may_hedge()

    def request_for(self, upstream: Upstream) -> bytes:
        """The head, as `upstream`'s host gets it."""
        caller = self.caller
        head = self.head
        member = upstream.member
        authorization = head.authorization if member.authorization is None else member.authorization
        out = [head.kept, authorization, caller.forwarding(head.host, member), self.id_line]
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
        if self.phase == SENT:
            if self.body_left:
                self.last_data = monotonic()
                self._pump()
        elif self.phase == PEEK:
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

    # Answering it.

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

    def send(self, data: bytes) -> None:
        """A piece of the reply's body."""
        self.sent += len(data)
        self.caller.send(data)

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
        self.phase = ENDED
        if pool.waiting:
            self.house.deliver(pool.freed(claim.member, now))
        self.caller.done(now)

    def upstream_lost(self, upstream: Upstream, reason: str) -> None:
        """The host broke off, or answered with what can't be passed on."""
        self.upstream = None
        claim = self.claim
        if claim is None:
            return
        if self._resent_after(upstream):
            return
        self._break_off(Refusal("bad_gateway", f"host {claim.member.name} {reason}"), "error")

    def adopt(self, upstream: Upstream) -> None:
        """What arrives on `upstream` answers this request."""
        upstream.client = self

    # Switching protocols.

    def switch(self, upstream: Upstream, head: ResponseHead) -> bool:
        """The host answered 101; False where nobody asked for what it switched to."""
        asked = self.head.upgrade
        if asked is None or head.upgrade is None or not set(tokens_of(head.upgrade)) & set(tokens_of(asked)):
            return False
        if self._second is not None:
            self._cancel_copy()
        caller = self.caller
        self.phase = SWITCHED
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
        self.phase = ENDED
        pool.settle(claim, outcome, self._switched_after_ms, now)
        if self.house.access_log is not None:
            self.sent = sent
            self._log(now, claim.member)
        if pool.waiting:
            self.house.deliver(pool.freed(claim.member, now))

    # What ends it early, and what holds it up.

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self.phase
        if phase == PEEK:
            self.caller.keep = False
            self.refuse(Refusal("request_timeout", "the body did not arrive in time"))
        elif phase == QUEUED:
            self.house.serve_waiting()
        elif phase != ENDED:
            late = Refusal("deadline_exceeded", "no complete answer before the request's deadline")
            self._break_off(late, "error" if self.head.timeout_ms is None else "excused")

    def check_body(self, now: float) -> None:
        """Refuse a client that stopped in the middle of a body."""
        stalled = now - self.last_data > self.house.settings.body_timeout_s
        if self.phase == SENT and stalled and not self.caller.read_paused:
            self._break_off(Refusal("request_timeout", "the body did not arrive in time"), "refused")

    def client_ended(self) -> bool:
        """The client closed its sending side: where all of the request is here it is answered, but shortly."""
        left = self.body_left
        if not QUEUED <= self.phase <= SENT or not (not left or 0 < left <= len(self.caller.buffer)):
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
