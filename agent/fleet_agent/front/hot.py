"""The short way for calls to models: uvicorn's httptools protocol, which answers ordinary ones itself.

A call whose head is ordinary (head.py) is read, queued and answered here, without a parser, a task or an ASGI cycle: on
a small model those cost more than the model. Everything else, on the same connection, is the parser's and the ASGI
application's: other addresses, chunked bodies, heads in several pieces, whatever is doubtful. Both ways end in the same
`Inference`, so they answer alike; FastAPI documents both.

One call at a time is in work per connection; what a client sends behind it waits here. Idle connections are closed
after `timeout_keep_alive`, and so are those that don't get a head done in that time.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fleet_agent.front.server import Front, broken
from fleet_agent.front.starts import Starts
from fleet_agent.http.call import MAX_BODY, Reply, deadline_of, priority_of, refused, request_id, with_new_ids
from fleet_agent.http.head import Head, read
from fleet_agent.protocol.asked import Said, Saying
from fleet_agent.protocol.inference import Reader
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import Ticket
from fleet_wire.refusal import Refusal

_BODY_TIMEOUT_S = 60.0
_HEADS = 1024
_LONGEST_HEAD = 2048


@dataclass(frozen=True, slots=True)
class Known:
    """A head that was read, as it came, whose caller may, who understands the body behind it, and whether it says
    `x-request-timeout-ms`."""

    raw: bytes
    head: Head
    read: Reader
    priority: int
    timed: bool


class HotProtocol(HttpToolsProtocol):
    """One connection. `front` is set by `protocol_for`.

    `known`: heads by their bytes. A client sends the same one again and again, and what was decided about it holds.
    """

    front: Front
    known: dict[bytes, Known]
    starts: Starts

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parsing = False  # the parser has seen the beginning of a message and not its end
        self._head: Head | None = None  # of the call that is in work here
        self._known: Known | None = None  # and what is known of it, while its body isn't whole
        self._saying: Saying | None = None  # and how its answer is said
        self._last: Known | None = None  # head that came here
        self._ticket: Ticket | None = None
        self._pieces: list[bytes] = []
        self._missing = 0
        self._behind = b""
        self._closing = False
        self._idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = time.monotonic()
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._head is not None:
            if self._ticket is not None:
                self.front.engine.abandon(self._ticket)
            self._done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._more(data)
        elif self._head is not None or self._behind or self.flow.write_paused:
            self._keep(data)
        elif self._parsing or (self.cycle is not None and not self.cycle.response_complete):
            self._feed(data)
        else:
            self._begin(data)

    def shutdown(self) -> None:
        """uvicorn's graceful end: what is in work is answered first."""
        if self._head is None:
            super().shutdown()
        else:
            self._closing = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self._next()

    # The parser's way

    def _feed(self, data: bytes) -> None:
        self._parsing = True
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._parsing = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._parsing = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # `_look` does that
        self._idle_since = time.monotonic()

    # The short way

    def _begin(self, data: bytes) -> None:
        known = self._last
        if known is not None and data.startswith(known.raw):
            end = known.head.end
        else:
            end = data.find(b"\r\n\r\n") + 4
            known = self._last = self.known.get(data[:end])
        if known is None:
            try:
                known = self._read(data)
            except Refusal:  # of a caller who may not: said by the front, which looks again
                known = None
            if known is None:
                self._feed(data)
                return
        head = known.head
        self.front.begins()
        self._head = head
        body = data[end:]
        if len(body) == head.length:
            self._ask(known, body)
            return
        if len(body) < head.length:
            self._known = known
            self._pieces = [body]
            self._missing = head.length - len(body)
            self._idle_since = time.monotonic()
            return
        self._behind = body[head.length :]
        self._ask(known, body[: head.length])

    def _read(self, data: bytes) -> Known | None:
        """None: not an ordinary call to a model. Raises Refusal `unauthorized`."""
        head = read(data)
        if head is None or head.length > MAX_BODY:
            return None
        path = head.path.decode()
        work = self.front.inference.route(path)
        if work is None:
            return None
        self.front.authorise(path, head.headers)
        timed = b"x-request-timeout-ms" in head.headers
        known = Known(data[: head.end], head, work(head.headers), priority_of(head.headers), timed)
        # A head with a number of its own doesn't come again.
        if head.end <= _LONGEST_HEAD and b"x-request-id" not in head.headers:
            if len(self.known) >= _HEADS:
                self.known.clear()
            self.known[known.raw] = known
        return known

    def _more(self, data: bytes) -> None:
        """Another piece of the body."""
        self._idle_since = time.monotonic()
        if len(data) > self._missing:
            self._behind = data[self._missing :]
            data = data[: self._missing]
        self._pieces.append(data)
        self._missing -= len(data)
        if not self._missing:
            body, self._pieces = b"".join(self._pieces), []
            assert self._known is not None
            self._ask(self._known, body)

    def _keep(self, data: bytes) -> None:
        """What comes before the call in work is answered."""
        self._behind += data
        if len(self._behind) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def _ask(self, known: Known, body: bytes) -> None:
        engine = self.front.engine
        head = known.head
        if engine.traces is not None:
            self._head = head = named(head)
        headers = head.headers
        try:
            served, payload, self._saying, wants_tokens = known.read(body)
            deadline = deadline_of(headers) if known.timed else None
            trace = None if engine.traces is None else engine.traces.begin(headers, served.config)
            self._ticket = engine.submit(
                served, payload, self._ended, deadline, known.priority, wants_tokens, trace
            )
        except Refusal as refusal:
            self._reply(refused(refusal))
        except Exception:  # The last boundary, as in Front.
            self._reply(broken(request_id(headers.get(b"x-request-id")), head.path.decode()))

    def _ended(self, outcome: Answer | Refusal) -> None:
        """The call in work has its answer."""
        saying, self._ticket = self._saying, None
        assert saying is not None
        try:
            if isinstance(outcome, Refusal):
                self._reply(refused(outcome))
                return
            if outcome.together is not None and self._together(saying, outcome.together, outcome.at):
                return
            self._reply(saying.reply(outcome))
        except Refusal as refusal:
            self._reply(refused(refusal))
        except Exception:  # The last boundary, as in Front.
            head = self._head
            assert head is not None
            self._reply(broken(request_id(head.headers.get(b"x-request-id")), head.path.decode()))

    def _together(self, saying: Saying, together: Together, at: int) -> bool:
        """Answer with what was made for a whole batch at once; False: this call has to be answered by itself."""
        try:
            made = together.made[saying]
        except KeyError:
            made = together.made[saying] = self._made(saying.each(together))
        head = self._head
        assert head is not None
        if made is None or self._closing:
            return False
        heads, bodies, numbered = made
        given = head.headers.get(b"x-request-id")
        if given is not None:
            self._write(b"%s%s\r\n\r\n%s" % (heads[at], request_id(given), bodies[at]))
        else:
            if not numbered:
                numbered += with_new_ids(heads, bodies)
            self._write(numbered[at])
        return True

    def _made(self, said: Said | None) -> tuple[list[bytes], list[bytes], list[bytes]] | None:
        """By row, what a reply is up to its call's id, and its body; and room for the replies to calls without one."""
        if said is None:
            return None
        start = self.starts.of(Reply(b"", 200, said.headers), self.server_state.default_headers, False)
        lengths = [len(body) for body in said.bodies]
        heads = {
            length: b"%scontent-length: %d\r\nx-request-id: " % (start, length) for length in set(lengths)
        }
        return [heads[length] for length in lengths], said.bodies, []

    def _reply(self, reply: Reply) -> None:
        head = self._head
        assert head is not None
        closing = self._closing or (b"connection", b"close") in reply.headers
        start = self.starts.of(reply, self.server_state.default_headers, self._closing)
        own = request_id(head.headers.get(b"x-request-id"))
        self._write(
            b"%scontent-length: %d\r\nx-request-id: %s\r\n\r\n%s" % (start, len(reply.body), own, reply.body),
            closing,
        )

    def _write(self, reply: bytes, closing: bool = False) -> None:
        """The call in work is answered with that."""
        self.transport.write(reply)
        self.server_state.total_requests += 1
        self._done()
        if closing:
            self.transport.close()
        elif self._behind:
            self._next()

    def _done(self) -> None:
        self._head = None
        self._saying = None
        self._ticket = None
        self._missing = 0
        self._idle_since = time.monotonic()
        self.front.ends()

    def _next(self) -> None:
        """Go on with what came behind the last call, unless its answer isn't taken."""
        if self._behind and self._head is None:
            # Not from here, or a long pipeline would be a deep recursion.
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if (
            self._behind
            and self._head is None
            and not self.flow.write_paused
            and not self.transport.is_closing()
        ):
            data, self._behind = self._behind, b""
            self.flow.resume_reading()
            self.data_received(data)

    def _look(self) -> None:
        """Close the connection if it waits for a head, or for more of a body, too long; else look again later."""
        now = time.monotonic()
        reading = self._missing > 0
        limit = _BODY_TIMEOUT_S if reading else float(self.timeout_keep_alive)
        working = self._head is not None or (self.cycle is not None and not self.cycle.response_complete)
        left = limit if working and not reading else self._idle_since + limit - now
        if left > 0:
            self._timer = self.loop.call_later(left, self._look)
        elif reading:
            self._missing = 0
            self._closing = True
            self._reply(refused(Refusal("request_timeout", f"the body stopped coming for {limit:.0f} s")))
        else:
            self.transport.close()


def named(head: Head) -> Head:
    """The same with the id that the reply will have, where the client gave none. A head may be of many calls."""
    own = request_id(head.headers.get(b"x-request-id"))
    return replace(head, headers={**head.headers, b"x-request-id": own})


def protocol_for(front: Front) -> type[HotProtocol]:
    """uvicorn constructs its protocols itself, from a class: this one's connections belong to `front`."""
    return type("FrontProtocol", (HotProtocol,), {"front": front, "known": {}, "starts": Starts()})
