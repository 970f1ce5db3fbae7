"""The load of bench-agent against a server of known speed: what it counts, and what it doesn't take for an answer."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.agent.load import Wrong, run

SERVICE_S = 0.01


class Slow:
    """Answers any request on one connection after 10 ms with `numbers`."""

    def __init__(self, numbers: list[float]) -> None:
        body = json.dumps({"predictions": [numbers]}).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nx-inference-header-content-length: 3\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.reply = head.encode() + body
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        # The client may leave in the middle of an answer; the listener's end is the server's.
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            with connection:
                self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        pending = b""
        while data := connection.recv(65536):
            pending += data
            head, end, rest = pending.partition(b"\r\n\r\n")
            if not end or len(rest) < int(head.rpartition(b"content-length: ")[2]):
                continue
            pending = b""
            time.sleep(SERVICE_S)
            # In two pieces: a reply isn't always one packet.
            connection.sendall(self.reply[:90])
            connection.sendall(self.reply[90:])

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def slow() -> Iterator[Slow]:
    server = Slow([1.5] * 10)
    yield server
    server.close()


def order(port: int, **more: object) -> dict[str, object]:
    fixed = {"subject": "fleetctl", "model": "small", "form": "json", "connections": 1, "seconds": 0.6}
    return {**fixed, "port": port, "expected": [1.5] * 10, **more}


def test_a_closed_loop_is_as_fast_as_the_server(slow: Slow) -> None:
    got = run(order(slow.port))
    assert 0 < got["throughput"] <= 1 / SERVICE_S
    assert got["p50"] >= SERVICE_S * 1000


def test_an_open_loop_counts_the_time_that_requests_wait_for_a_slow_server(slow: Slow) -> None:
    got = run(order(slow.port, rate=200.0))
    assert got["offered"] > 100
    assert got["p50"] > 3 * SERVICE_S * 1000
    assert got["p99"] >= got["p50"]


def test_another_answer_than_the_models_is_no_answer(slow: Slow) -> None:
    with pytest.raises(Wrong, match="instead of the model's numbers"):
        run(order(slow.port, expected=[1.5] * 9 + [1.6]))
