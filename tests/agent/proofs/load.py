"""Clients of the model `affine` in a process of their own, by epoll: a Python client as fast as it gets.

`python load.py` reads an order as JSON from stdin and prints what it saw as JSON; times are time.monotonic(), which all
processes of a machine share. Each answer is a function of its request's numbers and must be exactly that.

{"kind": "mixed", requests, connections, seed}    V1 JSON, raw and V2 binary, wrong and poisoned ones in between, from
                                                  ever changing numbers of clients, some of which leave early
{"kind": "closed", seconds, connections}          one request in flight per connection
{"kind": "open", rate, seconds, connections, deadline_ms, seed}    by a Poisson process, whatever the server does
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import orjson

_BACK_OFF_S = 0.05
_PATIENCE_S = 30.0
_LEAVES = 0.015
_WRONG_JSON = 0.003
_POISONED = 0.01
_SIZES = (1, 1, 1, 1, 1, 1, 2, 3)


class Broken(Exception):
    """The server ended a connection on which a request waited."""


@dataclass(slots=True)
class Request:
    """`status`: what a healthy server answers; `answer`: the exact values of a 200, as its form says them."""

    data: bytes
    number: bytes
    form: str
    status: int = 200
    answer: Any = None
    due: float = 0.0
    sent: float = 0.0


@dataclass(slots=True)
class Connection:
    port: int
    asked: Request | None = None
    pending: bytes = b""
    socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: Request) -> None:
        self.asked = request
        request.sent = time.monotonic()
        self.socket.sendall(request.data)

    def reply(self) -> tuple[int, bytes, bytes] | None:
        """Status, head and body; None while they are not whole. Raises Broken."""
        data = self.socket.recv(65536)
        if not data:
            raise Broken(f"closed with {len(self.pending)} bytes of an answer")
        if self.pending:
            data = self.pending + data
        end = data.find(b"\r\n\r\n")
        if end > 0:
            head = data[:end].lower()
            at = head.find(b"\ncontent-length:")
            whole = end + 4 + int(head[at + 16 :].split(b"\r", 1)[0])
            if len(data) >= whole:
                self.pending = b""
                return int(data[9:12]), head, data[end + 4 : whole]
        self.pending = data
        return None


class Clients:
    """Some connections, and a poll for their answers and for the time."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._poll = select.epoll()
        self._by_fd: dict[int, Connection] = {}
        self._timers: list[tuple[float, int, Connection, Request | None]] = []
        self._turns = itertools.count()
        for _ in range(count):
            self.connect()

    def connect(self) -> Connection:
        made = Connection(self._port)
        self._by_fd[made.socket.fileno()] = made
        self._poll.register(made.socket.fileno(), select.EPOLLIN)
        return made

    def leave(self, connection: Connection) -> Connection:
        """Close it, whatever it waits for; a new one in its place."""
        self._poll.unregister(connection.socket.fileno())
        del self._by_fd[connection.socket.fileno()]
        connection.socket.close()
        return self.connect()

    @property
    def everyone(self) -> list[Connection]:
        return list(self._by_fd.values())

    def later(self, at: float, connection: Connection, request: Request | None) -> None:
        heapq.heappush(self._timers, (at, next(self._turns), connection, request))

    def due(self) -> list[tuple[Connection, Request | None]]:
        found = []
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, connection, request = heapq.heappop(self._timers)
            found.append((connection, request))
        return found

    def heard(self, wait_s: float) -> list[Connection]:
        if self._timers:
            wait_s = min(wait_s, max(0.0, self._timers[0][0] - time.monotonic()))
        return [self._by_fd[fd] for fd, _ in self._poll.poll(wait_s) if fd in self._by_fd]


def post(path: str, kind: str, body: bytes, number: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{more}content-length: {len(body)}\r\n"
    return head.encode() + b"x-request-id: " + number + b"\r\n\r\n" + body


def made(pick: random.Random, form: str, count: int, poisoned: bool, more: str = "") -> Request:
    bits = pick.getrandbits
    number = b"%d" % bits(60)
    rows = [[float(bits(20)), float(bits(20)), float(bits(20)), float(bits(4))] for _ in range(count)]
    answer = [[2 * a + 1, b - c] for a, b, c, _ in rows]
    if poisoned:
        rows[bits(16) % count][3] = -1.0
    status = 500 if poisoned else 200
    if form == "json":
        body = b'{"instances":%s}' % orjson.dumps(rows)
        data = post("/v1/models/affine:predict", "application/json", body, number, more)
        return Request(data, number, form, status, answer)
    flat = array("f", itertools.chain.from_iterable(rows)).tobytes()
    bytes_out = array("f", itertools.chain.from_iterable(answer)).tobytes()
    if form == "raw":
        data = post("/v1/models/affine:predict", "application/octet-stream", flat, number, more)
        return Request(data, number, form, status, bytes_out)
    head = (
        b'{"id":"%s","inputs":[{"name":"x","datatype":"FP32","shape":[%d,4],"parameters":{"binary_data_size":%d}}],'
        b'"parameters":{"binary_data_output":true}}' % (number, count, len(flat))
    )
    more += f"inference-header-content-length: {len(head)}\r\n"
    data = post("/v2/models/affine/infer", "application/octet-stream", head + flat, number, more)
    return Request(data, number, form, status, bytes_out)


def fault(request: Request, status: int, head: bytes, body: bytes) -> str | None:
    """Why this is not the answer to that request; None: it is."""
    if b"x-request-id: " + request.number not in head:
        return "another request's number"
    if status != request.status:
        return f"status {status} instead of {request.status}: {body[:200]!r}"
    if status != 200:
        return None
    if request.form == "json":
        right = orjson.loads(body) == {"predictions": request.answer}
    elif request.form == "raw":
        right = body == request.answer
    else:
        right = body.endswith(request.answer) and b'"id":"%s"' % request.number in body
    return None if right else f"other numbers than its own: {body[:200]!r}"


def mixed(order: dict[str, Any]) -> dict[str, Any]:
    pick = random.Random(order["seed"])
    clients = Clients(order["port"], order["connections"])
    parked = clients.everyone
    total, begun, ended, allowed, busy = order["requests"], 0, 0, order["connections"], 0
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    began = time.monotonic()
    change_at = heard_at = began

    def begin(connection: Connection) -> None:
        nonlocal begun, busy
        begun += 1
        busy += 1
        chance = pick.random()
        form = ("json", "raw", "binary")[pick.getrandbits(8) % 3]
        count = 40 if pick.random() < 0.01 else _SIZES[pick.getrandbits(3)]
        request = made(pick, form, count, poisoned=chance < _POISONED)
        if _POISONED <= chance < _POISONED + _WRONG_JSON:
            body, number = b'{"instances": [[1.0, 2.0', b"%d" % pick.getrandbits(60)
            data = post("/v1/models/affine:predict", "application/json", body, number)
            request = Request(data, number, "json", 400)
        if pick.random() < _LEAVES:
            if pick.random() < 0.3:
                request.data = request.data[: pick.randrange(1, len(request.data))]
            clients.later(time.monotonic() + pick.random() * 0.005, connection, request)
        connection.send(request)

    def over(what: str) -> None:
        nonlocal ended, busy
        seen[what] += 1
        ended += 1
        busy -= 1

    while ended < total:
        now = time.monotonic()
        if now > change_at:
            change_at = now + 0.5
            allowed = pick.choice((1, 4, 16, order["connections"], order["connections"]))
        while parked and busy < allowed and begun < total:
            begin(parked.pop())
        if now - heard_at > _PATIENCE_S:
            wrong += [
                f"no answer in {_PATIENCE_S:.0f} s to {c.asked}"[:300] for c in clients.everyone if c.asked
            ]
            break
        for connection, request in clients.due():
            if request is None:
                parked.append(connection)  # it has waited long enough after a 503
            elif connection.asked is request:
                parked.append(clients.leave(connection))
                over("left")
        for connection in clients.heard(0.1):
            heard_at = now
            asked = connection.asked
            try:
                got = connection.reply()
            except (Broken, OSError) as error:
                wrong.append(f"{error} {asked!r}"[:300])
                parked.append(clients.leave(connection))
                over("broken")
                continue
            if got is None:
                continue
            connection.asked = None
            if asked is None:
                wrong.append(f"an answer that nobody asked for: {got!r}"[:300])
                continue
            if got[0] == 503 and b"unavailable" in got[2] and b"x-request-id: " + asked.number in got[1]:
                over("unavailable")
                clients.later(now + _BACK_OFF_S, connection, None)
                continue
            found = fault(asked, *got)
            if found is not None:
                wrong.append(found)
            over(str(got[0]))
            if b"\nconnection: close" in got[1]:
                parked.append(clients.leave(connection))
            else:
                parked.append(connection)
    return {"seen": seen, "wrong": len(wrong), "first": wrong[:5], "seconds": time.monotonic() - began}


def closed(order: dict[str, Any]) -> dict[str, Any]:
    """Every request's (start, end, status); a request whose connection ended has the status 0."""
    pick = random.Random(1)
    clients = Clients(order["port"], order["connections"])
    until = time.monotonic() + order["seconds"]
    story: list[tuple[float, float, int]] = []
    wrong: list[str] = []
    for connection in clients.everyone:
        connection.send(made(pick, "json", 1, poisoned=False))
    waiting = order["connections"]
    while waiting and time.monotonic() < until + _PATIENCE_S:
        free = [connection for connection, _ in clients.due()]
        for connection in clients.heard(0.1):
            asked = connection.asked
            assert asked is not None
            try:
                got = connection.reply()
            except (Broken, OSError):
                got = (0, b"", b"")
            if got is None:
                continue
            now = time.monotonic()
            story.append((asked.sent, now, got[0]))
            connection.asked = None
            waiting -= 1
            found = fault(asked, *got) if got[0] == 200 else None
            if found is not None:
                wrong.append(found)
            if got[0] == 0:
                connection = clients.leave(connection)
            if got[0] == 200:
                free.append(connection)
            else:
                clients.later(now + _BACK_OFF_S, connection, None)
        for connection in free:
            if time.monotonic() < until:
                connection.send(made(pick, "json", 1, poisoned=False))
                waiting += 1
    return {"story": story, "unanswered": waiting, "wrong": wrong[:5]}


def opened(order: dict[str, Any]) -> dict[str, Any]:
    """Every request's (due, end, status); what was due while all connections waited is counted from when it was due."""
    pick = random.Random(order["seed"])
    clients = Clients(order["port"], order["connections"])
    idle = clients.everyone
    queue: deque[float] = deque()
    story: list[tuple[float, float, int]] = []
    deadline = f"x-request-timeout-ms: {order['deadline_ms']}\r\n" if order.get("deadline_ms") else ""
    until = time.monotonic() + order["seconds"]
    following = time.monotonic()
    while True:
        now = time.monotonic()
        while following <= now and following < until:
            queue.append(following)
            following += pick.expovariate(order["rate"])
        while queue and idle:
            request = made(pick, "raw", 1, False, deadline)
            request.due = queue.popleft()
            idle.pop().send(request)
        if now >= until and (len(idle) == order["connections"] or now > until + _PATIENCE_S):
            break
        for connection in clients.heard(max(0.0, min(following - now, 0.01)) if now < until else 0.01):
            asked = connection.asked
            assert asked is not None
            try:
                got = connection.reply()
            except (Broken, OSError):
                got = (0, b"", b"")
                connection = clients.leave(connection)
            if got is None:
                continue
            if got[0] == 200 and fault(asked, *got) is not None:
                got = (-1, b"", b"")
            story.append((asked.due, time.monotonic(), got[0]))
            idle.append(connection)
    return {"story": story, "unanswered": order["connections"] - len(idle) + len(queue)}


if __name__ == "__main__":
    order = json.load(sys.stdin)
    print(json.dumps({"mixed": mixed, "closed": closed, "open": opened}[order["kind"]](order)))
