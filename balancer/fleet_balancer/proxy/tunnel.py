"""What follows a 101: bytes both ways, until both sides have ended.

Takes the place of the Exchange at both ends of a request that the host answered by switching protocols (WebSocket).
It is one request in flight until then. Decides when it is over: both sides closed, one of them broke off, or nothing
came either way for `tunnel_idle_s`.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from fleet_balancer.failure.outcome import Outcome
from fleet_balancer.http.response import ResponseHead
from fleet_balancer.proxy.upstream import Upstream


class Caller(Protocol):
    """The client's connection."""

    buffer: bytes
    deadline: float
    keep: bool
    transport: asyncio.Transport

    def send(self, data: bytes) -> None: ...
    def done(self, now: float) -> None: ...
    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def release(self) -> None: ...


class Switched(Protocol):
    """The request that became this tunnel."""

    def switched_done(self, outcome: Outcome, sent: int) -> None: ...


class Tunnel:
    """`upstream`: the host's end, None once it is over. `sent`: bytes from the host to the client."""

    body_left = -1  # neither end is ever a keep-alive connection again
    chunks_reply = False

    def __init__(self, exchange: Switched, caller: Caller, upstream: Upstream, idle_s: float) -> None:
        self.upstream: Upstream | None = upstream
        self.last_data = 0.0
        self.sent = 0
        self._exchange = exchange
        self._caller = caller
        self._idle_s = idle_s
        self._client_ended = False
        self._host_ended = False
        caller.deadline = monotonic() + idle_s

    # From the client.

    def more(self) -> None:
        """More of the client's bytes are in its buffer."""
        caller = self._caller
        data, caller.buffer = caller.buffer, b""
        if self.upstream is not None:
            caller.deadline = monotonic() + self._idle_s
            self.upstream.send(data)

    def client_ended(self) -> bool:
        """The client closed its sending side; whether its connection stays open for what the host still sends."""
        self._client_ended = True
        if self._host_ended or self.upstream is None:
            self._end("completed")
            return False
        self.upstream.end()
        return True

    def abandon(self) -> None:
        """The client's connection is gone."""
        self._end("completed" if self._host_ended else "abandoned", flush=False)

    def expire(self) -> None:
        """Nothing came either way for too long."""
        self._end("completed")

    def check_body(self, now: float) -> None:
        """Nothing to do: a tunnel may be silent one way for as long as it likes."""

    # From the host.

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self._caller.deadline = monotonic() + self._idle_s
        self._caller.send(data)

    def host_ended(self) -> None:
        """The host closed its sending side."""
        self._host_ended = True
        transport = self._caller.transport
        if self._client_ended or not transport.can_write_eof():
            self._end("completed")
        elif not transport.is_closing():
            transport.write_eof()

    def upstream_lost(self, upstream: Upstream, reason: str) -> None:
        self._end("completed" if self._host_ended or self._client_ended else "error")

    def reply(self, upstream: Upstream, head: ResponseHead, body: bytes) -> bool:
        raise AssertionError("a tunnel has no replies")

    def reply_done(self, head: ResponseHead, now: float) -> None:
        raise AssertionError("a tunnel has no replies")

    def interim(self, kept: bytes) -> None:
        raise AssertionError("a tunnel has no replies")

    def switch(self, upstream: Upstream, head: ResponseHead) -> bool:
        raise AssertionError("a tunnel has no replies")

    # Back-pressure.

    def hold(self) -> None:
        """The host can't keep up."""
        self._caller.pause_reading()

    def release(self) -> None:
        self._caller.release()

    def _end(self, outcome: Outcome, flush: bool = True) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is None:
            return
        self.body_left = 0
        upstream.drop(flush=flush)
        self._exchange.switched_done(outcome, self.sent)
        if flush:
            self._caller.keep = False
            self._caller.done(monotonic())
