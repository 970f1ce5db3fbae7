"""A request's place: which host it is tried on, where it waits, and how it is given up again.

The part of an Exchange that deals with the pool. Every claim and every ticket that a request takes is given back here,
with the outcome that the pool counts; no claim outlives its request. No task and no timer per request: the caller's one
deadline is looked at four times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from fleet_balancer.access.keys import KeyUse
from fleet_balancer.ask import Ask
from fleet_balancer.asking import ask_of
from fleet_balancer.failure.outcome import Outcome
from fleet_balancer.front import Front, Route
from fleet_balancer.http.request import RequestHead
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_balancer.proxy.second_copy import SecondCopy
from fleet_balancer.proxy.settings import Settings
from fleet_balancer.proxy.tunnel import Tunnel
from fleet_balancer.proxy.upstream import Upstream
from fleet_balancer.telemetry.access_log import AccessLogWriter
from fleet_wire.refusal import Refusal

# Sending these twice is harmless (RFC 9110 9.2.2).
SAFE = frozenset((b"GET", b"HEAD"))
# What the access log says where the client left before its reply was complete (nginx's number).
CLIENT_LEFT = 499

# Where a request is.
PEEK = 1  # its body is awaited, because it names the model
QUEUED = 2  # no host may take it yet
CONNECTING = 3  # a connection to its host is being made
SENT = 4  # it went to a host
SWITCHED = 5  # it became a tunnel
ENDED = 6


class House(Protocol):
    """What a request needs from the proxy around it."""

    front: Front
    settings: Settings
    loop: asyncio.AbstractEventLoop
    stopping: bool
    access_log: AccessLogWriter | None
    # Connections that wait for a request, the one used last at the end, of each host that there is.
    idle: dict[Member, list[Upstream]]

    def idle_connection(self, member: Member, now: float) -> Upstream | None: ...
    def connect(self, asker: Placing | SecondCopy, claim: Claim) -> None: ...
    def serve_waiting(self) -> None: ...
    def deliver(self, served: Sequence[tuple[Ticket, Claim | Refusal]]) -> None: ...


class Caller(Protocol):
    """The client's connection, as its present request sees it. `buffer`: bytes after the head, not passed on yet."""

    address: bytes
    buffer: bytes
    deadline: float
    # The forwarding lines of the last request, and for which host.
    forwarded: bytes
    forwarded_host: bytes | None
    keep: bool
    read_paused: bool
    transport: asyncio.Transport
    write_paused: bool

    def send(self, data: bytes) -> None: ...
    def forwarding(self, host: bytes, member: Member) -> bytes: ...
    def done(self, now: float) -> None: ...
    def refuse(self, refusal: Refusal, request: Placing | None = None) -> None: ...
    def advance(self) -> None: ...
    def close(self) -> None: ...
    def gone(self) -> None: ...
    def switch(self, tunnel: Tunnel) -> None: ...
    def pause_reading(self) -> None: ...
    def release(self) -> None: ...


class Placing:
    """A request and its place. `arrived`: the head's first byte. `body_left`: bytes of its body still to come, CHUNKED,
    or 0. `use`: whose API key it came with. `repeats`: it was declared idempotent.

    Defaults stand in the class and not in slots: one is made for each request, and most never change.
    """

    phase = PEEK
    pool: Pool | None = None
    model: str | None = None
    claim: Claim | None = None
    upstream: Upstream | None = None
    use: KeyUse | None = None
    repeats = False
    # How often it was placed again, for the access log; the reply's status and the bytes of its body.
    retries = 0
    status = 0
    sent = 0
    _ask: Ask | None = None
    _ticket: Ticket | None = None
    _timer: asyncio.TimerHandle | None = None
    _hedge: asyncio.TimerHandle | None = None
    _tried: set[Member] | None = None
    _second: SecondCopy | None = None
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

    def _send(self, upstream: Upstream) -> None:
        raise NotImplementedError

    def expire(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    # Placing it.

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
        if not head.unusual and asking is None and route.version is None:
            self._ask = None if use is None else use.ask
        else:
            self._ask = ask_of(head, asking, use, route.version)
            self.repeats = head.idempotent or (
                asking is not None and (asking.repeats or (asking.hedges and head.method in SAFE))
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
            return
        # As _take(), where the connection used last is still good: one look instead of three calls.
        idle = self.house.idle.get(claim.member)
        if idle and idle[-1].idle_since > now - self.house.settings.upstream_idle_s:
            upstream = idle.pop()
            if not upstream.transport.is_closing():
                self.claim = claim
                self._send(upstream)
                return
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
        self.phase = QUEUED
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
            self.phase = CONNECTING
            self.house.connect(self, claim)
        else:
            self._send(upstream)

    def connected(self, claim: Claim, upstream: Upstream) -> bool:
        """`upstream` was made for `claim`; False where the request has gone away in the meantime."""
        if self.claim is not claim or self.phase != CONNECTING:
            return False
        self._send(upstream)
        return True

    def connect_failed(self, claim: Claim, fault_of_host: bool) -> None:
        """Nothing was sent: another host may take it, else it waits."""
        pool = self.pool
        if self.claim is not claim or self.phase != CONNECTING or pool is None:
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

    # Giving it up.

    def _break_off(self, refusal: Refusal, outcome: Outcome) -> None:
        """End it: with a refusal, or, where a reply has begun, by closing in its midst."""
        replying = self._replying
        member = None if self.claim is None else self.claim.member
        self._release_all(outcome)
        if self.house.access_log is not None:
            if not replying:
                self._refused(refusal)
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
            self._refused(refusal)
            self._log(monotonic(), None, refusal.code)
        self.caller.refuse(refusal, self)

    def _refused(self, refusal: Refusal) -> None:
        """What the access log says of an answer that the balancer gives itself."""
        self.status = refusal.status
        self.sent = 0 if self.head.method == b"HEAD" else len(refusal.body())

    def abandon(self) -> None:
        """The client has left, or the connection is closed with the request under way."""
        if self.phase == ENDED:
            return
        member = None if self.claim is None else self.claim.member
        self._release_all("abandoned")
        if self.house.access_log is not None:
            self.status = CLIENT_LEFT
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

    def _cancel_copy(self) -> None:
        copy, self._second = self._second, None
        if copy is not None:
            copy.cancel()
            copy.claim.pool.settle(copy.claim, "spare", 0.0, monotonic())

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
        self.phase = ENDED
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
