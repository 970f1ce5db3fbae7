"""One call to an engine and back: it waits for its place, goes on, and its answer passes piece by piece.

It ends early when the client goes away, its time is over, or the engine is lost. Before the answer began that is one of
our refusals; afterwards the connection is cut, so that nobody takes half an answer for a whole one, and an event stream
is told why first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, MutableMapping
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from fleet_agent.http.call import MAX_BODY, Call, ClientGone, Send, deadline_of, priority_of
from fleet_agent.outside import route
from fleet_agent.outside.engine import OutsideEngine
from fleet_agent.outside.gate import Hopeless
from fleet_wire.refusal import Refusal

if TYPE_CHECKING:
    from fleet_agent.tracing.traces import Trace, Traces

_EVENTS = b"text/event-stream"


class Relay:
    """`run` it once."""

    def __init__(
        self,
        engine: OutsideEngine,
        call: Call,
        scope: MutableMapping[str, Any],
        send: Send,
        has_token: bool,
        traces: Traces | None,
    ) -> None:
        """`has_token`: the agent asks for a token of its own, which the engine is not shown."""
        self._traces = traces
        self._trace: Trace | None = None
        self._engine = engine
        self._call = call
        self._scope = scope
        self._send = send
        self._has_token = has_token
        self._why: Refusal | ClientGone | None = None
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._started = False
        self._events = False
        self._status = 0

    def cut(self, why: Refusal | ClientGone) -> None:
        """End it now. The first reason counts."""
        if self._task is not None and self._why is None:
            self._why = why
            self._task.cancel()

    async def run(self, path: str, body: bytes | None) -> None:
        """`path` is the engine's; `body` None: it is still to come. Raises Refusal, and ClientGone when the client goes
        away before."""
        call, engine = self._call, self._engine
        deadline = deadline_of(call.headers, call.arrived)
        engine.check()
        if self._traces is not None:
            self._trace = self._traces.begin(call.identified, engine.config)
        self._task = asyncio.current_task()
        engine.underway.add(self)
        timer = None
        if deadline is not None:
            over = Refusal("deadline_exceeded", "no answer within the time that the request has")
            timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), self.cut, over)
        try:
            await self._through(path, body, deadline)
            self._count(None)
        except asyncio.CancelledError:
            if self._why is None:
                raise
            assert self._task is not None
            self._task.uncancel()
            await self._ended_early(self._why)
        except (Refusal, ClientGone) as why:
            await self._ended_early(why)
        except aiohttp.ClientError as error:
            await self._ended_early(self._of_engine(error))
        finally:
            self._task = None
            engine.underway.discard(self)
            if timer is not None:
                timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    async def _through(self, path: str, body: bytes | None, deadline: float | None) -> None:
        call, engine = self._call, self._engine
        data: bytes | AsyncIterator[bytes] | None
        length = call.headers.get(b"content-length")
        if body is None and (length is not None or b"transfer-encoding" in call.headers):
            data = await self._upload(length)
        else:
            data = body or None
        if not isinstance(data, AsyncIterator):
            self._watch()
        await engine.enter(deadline, priority_of(call.headers))
        began: float | None = time.monotonic()
        if self._trace is not None:
            self._trace.sent(None)
        try:
            await self._exchange(path, data, length)
        except BaseException:
            began = None  # how long a call takes is learned from whole ones
            raise
        finally:
            engine.leave(None if began is None else time.monotonic() - began)

    async def _exchange(
        self, path: str, data: bytes | AsyncIterator[bytes] | None, length: bytes | None
    ) -> None:
        call, engine = self._call, self._engine
        headers = route.onward(self._scope["headers"], call.request_id, self._has_token)
        if self._trace is not None:
            above = self._trace.onward()
            headers = [pair for pair in headers if pair[0].lower() not in above] + list(above.items())
        if isinstance(data, AsyncIterator) and length is not None:
            headers.append(("content-length", length.decode()))
        elif data is None and call.method not in ("GET", "HEAD"):
            headers.append(("content-length", "0"))
        query = self._scope["query_string"].decode("latin-1")
        url = URL(f"{engine.address}{path}{'?' if query else ''}{query}", encoded=True)
        assert engine.session is not None
        answer = await engine.session.request(
            call.method, url, data=data, headers=headers, allow_redirects=False
        )
        try:
            engine.moved()
            engine.first_piece.record((time.monotonic() - call.arrived) * 1000.0)
            await self._answer(answer)
        except BaseException:
            answer.close()
            raise
        answer.release()

    async def _answer(self, answer: aiohttp.ClientResponse) -> None:
        self._status = answer.status
        headers = route.back(answer.raw_headers)
        self._events = answer.content_type.encode() == _EVENTS
        headers += [self._engine.version_header, (b"x-request-id", self._call.request_id)]
        self._started = True
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for piece in answer.content.iter_any():
            self._engine.moved()
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _upload(self, length: bytes | None) -> bytes | AsyncIterator[bytes]:
        """The body in one piece if it comes so, else as it comes. Raises Refusal."""
        if length is not None and int(length) > MAX_BODY:
            raise _too_large()
        message = await self._call.receive_within(60.0)
        if message["type"] == "http.disconnect":
            raise ClientGone
        first: bytes = message.get("body", b"")
        return self._pieces(first) if message.get("more_body", False) else first

    async def _pieces(self, first: bytes) -> AsyncIterator[bytes]:
        """aiohttp asks for them; what goes wrong ends the whole call, for half a body must not look whole."""
        piece, more, size = first, True, 0
        while True:
            size += len(piece)
            if size > MAX_BODY:
                self.cut(_too_large())
                raise ConnectionResetError
            if piece:
                yield piece
            if not more:
                break
            try:
                message = await self._call.receive_within(60.0)
            except Refusal as refusal:
                self.cut(refusal)
                raise ConnectionResetError from None
            if message["type"] == "http.disconnect":
                self.cut(ClientGone())
                raise ConnectionResetError
            piece, more = message.get("body", b""), message.get("more_body", False)
        self._watch()

    def _watch(self) -> None:
        """From here on the next that comes from the client is that it goes away."""
        self._watcher = asyncio.create_task(self._gone())

    async def _gone(self) -> None:
        await self._call.gone()
        self.cut(ClientGone())

    def _of_engine(self, error: aiohttp.ClientError) -> Refusal:
        name = self._engine.config.name
        if isinstance(error, aiohttp.ClientConnectorError):
            return Refusal(
                "unavailable", f"the engine of model {name} takes no connections; send it again", 1.0
            )
        return Refusal(
            "unavailable",
            f"the engine of model {name} closed the connection before it had answered; this may be sent again",
            1.0,
        )

    async def _ended_early(self, why: Refusal | ClientGone) -> None:
        """Raises `why` if the answer hasn't begun; else the answer ends without its end."""
        self._count(why)
        if not self._started or isinstance(why, ClientGone):
            raise why
        if self._events:
            event = b"data: " + why.body() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": True})

    def _count(self, why: Refusal | ClientGone | None) -> None:
        counters = self._engine.counters
        if self._trace is not None:
            if isinstance(why, ClientGone):
                self._trace.abandoned()
            else:
                self._trace.ended(why, self._status)
        if isinstance(why, ClientGone):
            counters.abandoned += 1
        elif why is not None and why.code == "deadline_exceeded":
            counters.expired += 1
            counters.errors += 1
        elif (why is not None and why.code == "overloaded") or (why is None and self._status == 429):
            counters.overloaded += 1
        elif isinstance(why, Hopeless):
            counters.hopeless += 1
        elif (self._status if why is None else why.status) >= 500:
            counters.errors += 1
        elif why is not None or self._status >= 400:
            counters.bad += 1
        else:
            counters.completed += 1
            counters.items += 1
            counters.latency.record((time.monotonic() - self._call.arrived) * 1000.0)


def _too_large() -> Refusal:
    return Refusal("too_large", f"the body is larger than {MAX_BODY // 2**20} MiB")
