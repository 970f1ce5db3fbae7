"""Load on one subject over keep-alive connections, from one core, by epoll: a Python client as fast as it gets.

`python -m bench.agent.load` reads {subject, port, model, form, connections, seconds, rate, seed, expected} as JSON from
stdin and prints the result as JSON. Without `rate` the loop is closed: each connection has one request in flight. With
it, requests come by a Poisson process of that rate whatever the server does, and a request's latency counts from the
moment it was due, also while it waits for one of the connections. The first reply is compared with `expected`.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from collections import deque
from typing import Any

from bench.agent import wire

# A server that has sat idle while the others had their turns has its weights read into memory again first.
_WARM_S = 2.0
_PATIENCE_S = 2.0
_INPUTS = 16
_SPIN_S = 0.0015


class Wrong(Exception):
    """The subject doesn't answer as it should; str() says how."""


class Connection:
    """One keep-alive connection; `sent` is when its request was due."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""
        self.due = 0.0

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def reply(self) -> tuple[bool, bytes] | None:
        """Whether it is a 200, and its body; None while it isn't whole. Raises Wrong when the connection ends."""
        data = self.socket.recv(65536)
        if not data:
            raise Wrong("it closed a connection")
        if self.pending:
            data = self.pending + data
        end = data.find(b"\r\n\r\n")
        if end > 0:
            head = data[:end].lower()
            at = head.find(b"\ncontent-length:")
            if at > 0:
                whole = end + 4 + int(head[at + 16 :].split(b"\r", 1)[0])
                if len(data) >= whole:
                    self.pending = b""
                    return data.startswith(b"HTTP/1.1 200"), data[end + 4 : whole]
            elif data.endswith(b"\r\n0\r\n\r\n"):  # chunked, and small enough for one chunk
                self.pending = b""
                body = data[data.index(b"\r\n", end + 4) + 2 : -7]
                return data.startswith(b"HTTP/1.1 200"), body
        self.pending = data
        return None


def run(order: dict[str, Any]) -> dict[str, float]:
    subject, model, form = order["subject"], order["model"], order["form"]
    inputs = [wire.values(seed) for seed in range(_INPUTS)]
    requests = [wire.request(subject, model, form, numbers) for numbers in inputs]
    connections = [Connection(order["port"]) for _ in range(order["connections"])]
    try:
        _compare(connections[0], requests[0], subject, form, order["expected"])
        for connection in connections:
            connection.socket.setblocking(False)
        if order.get("rate"):
            return open_loop(connections, requests, order["rate"], order["seconds"], order.get("seed", 0))
        return closed_loop(connections, requests, order["seconds"])
    finally:
        for connection in connections:
            connection.socket.close()


def _compare(connection: Connection, request: bytes, subject: str, form: str, expected: list[float]) -> None:
    connection.send(request, 0.0)
    while (got := connection.reply()) is None:
        pass
    good, body = got
    try:
        numbers = wire.answer(subject, form, body) if good else []
    except (ValueError, KeyError, IndexError, TypeError):
        numbers = []
    same = len(numbers) == len(expected)
    if not same or any(abs(a - b) > 1e-3 for a, b in zip(numbers, expected, strict=True)):
        raise Wrong(f"it answers {body[:160]!r} instead of the model's numbers")


def closed_loop(connections: list[Connection], requests: list[bytes], seconds: float) -> dict[str, float]:
    poll, by_fd = _watching(connections)
    now = time.perf_counter
    latencies: list[float] = []
    started = now()
    counted_from, until = started + _WARM_S, started + _WARM_S + seconds
    turn = 0
    for connection in connections:
        connection.send(requests[turn % _INPUTS], now())
        turn += 1
    while (at := now()) < until:
        for fd, _ in poll.poll(max(0.001, until - at)):
            connection = by_fd[fd]
            got = connection.reply()
            if got is None:
                continue
            done = now()
            if not got[0]:
                raise Wrong(f"under load it answers {got[1][:160]!r}")
            if done > counted_from:
                latencies.append(done - connection.due)
            turn += 1
            connection.send(requests[turn % _INPUTS], done)
    if not latencies:
        raise Wrong(f"no answer in {seconds:.0f} s")
    latencies.sort()
    return {"throughput": len(latencies) / seconds, **_percentiles(latencies)}


def open_loop(
    connections: list[Connection], requests: list[bytes], rate: float, seconds: float, seed: int
) -> dict[str, float]:
    """A request that fails or isn't answered within the patience after the end counts as infinitely slow."""
    poll, by_fd = _watching(connections)
    now = time.perf_counter
    gaps = random.Random(seed)
    latencies: list[float] = []
    idle = list(connections)
    waiting: deque[float] = deque()
    started = now()
    counted_from, until = started + _WARM_S, started + _WARM_S + seconds
    following = started + gaps.expovariate(rate)
    turn = offered = failed = 0
    while True:
        at = now()
        while following <= at and following < until:
            waiting.append(following)
            offered += following >= counted_from
            following += gaps.expovariate(rate)
        while idle and waiting:
            turn += 1
            idle.pop().send(requests[turn % _INPUTS], waiting.popleft())
        if at >= until and (len(idle) == len(connections) or at > until + _PATIENCE_S):
            break
        wait = min(following, until) - at if at < until else 0.01
        # epoll counts milliseconds: what is nearer than that is waited for with the core.
        for fd, _ in poll.poll(0 if wait < _SPIN_S else wait - 0.001):
            connection = by_fd[fd]
            got = connection.reply()
            if got is None:
                continue
            if connection.due >= counted_from:
                failed += not got[0]
                latencies.append(now() - connection.due if got[0] else float("inf"))
            idle.append(connection)
    latencies.sort()
    latencies += [float("inf")] * (offered - len(latencies))
    if not latencies:
        raise Wrong("nothing was offered; a rate of at least a few a second is needed")
    answered = sum(1 for latency in latencies if latency < float("inf"))
    return {"offered": offered / seconds, "throughput": answered / seconds, **_percentiles(latencies)}


def _watching(connections: list[Connection]) -> tuple[select.epoll, dict[int, Connection]]:
    poll = select.epoll()
    by_fd = {connection.socket.fileno(): connection for connection in connections}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    return poll, by_fd


def _percentiles(ordered: list[float]) -> dict[str, float]:
    """In milliseconds; what never came is a million."""
    picked = {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
    }
    return {name: min(1e6, value * 1000) for name, value in picked.items()}


if __name__ == "__main__":
    try:
        print(json.dumps(run(json.load(sys.stdin))))
    except (Wrong, OSError) as error:
        sys.exit(str(error))
