"""Whatever answers in an agent's place, a look ends in time and says in words what was wrong."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import fleet_controller.observe
from fleet_controller.door.admin import FrontDoor
from fleet_controller.observe import ANSWER_LIMIT_BYTES, Observer, Target

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
NOBODY = FrontDoor(lambda: "127.0.0.1:1", "token")


@pytest.fixture
def agent() -> Iterator[Callable[[Answer], Target]]:
    """agent(answer): the address of a server that answers so."""
    servers = []

    def serve(answer: Answer) -> Target:
        class Face(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:
                    pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Face)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return Target(f"http://127.0.0.1:{server.server_address[1]}", "secret")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def observer() -> Iterator[Observer]:
    with ThreadPoolExecutor(8) as executor:
        yield Observer(executor)


def says(status: int, body: bytes, **headers: str) -> Answer:
    def answer(face: http.server.BaseHTTPRequestHandler) -> None:
        face.send_response(status)
        for name, value in headers.items():
            face.send_header(name, value)
        face.send_header("content-length", str(len(body)))
        face.end_headers()
        face.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(401, b""), "/status answers 401"),
        (says(302, b"", location="http://127.0.0.1:1/elsewhere"), "/status answers 302"),
        (says(200, b"<html>"), "/status is not an agent's status: Invalid JSON"),
        (says(200, b"{}"), "/status is not an agent's status: Field required"),
        (says(200, b"[" * 100_000), "/status is not an agent's status: "),
        (
            says(200, b" " * (ANSWER_LIMIT_BYTES + 1)),
            f"/status answers with more than {ANSWER_LIMIT_BYTES} bytes",
        ),
        (lambda face: face.wfile.write(b"nonsense\r\n\r\n"), "does not answer: "),
        (lambda face: face.connection.close(), "does not answer: "),
    ],
    ids=["401", "redirect", "no JSON", "no status", "deep JSON", "endless", "no HTTP", "hangs up"],
)
def test_a_bad_answer_is_told(
    agent: Callable[[Answer], Target], observer: Observer, answer: Answer, words: str
) -> None:
    report = observer.ask(agent(answer))
    assert report.status is None
    assert words in str(report.error)
    assert "secret" not in str(report.error)


def test_nobody_there_is_told(observer: Observer) -> None:
    report = observer.ask(Target("http://127.0.0.1:1", "secret"))
    assert str(report.error).startswith("http://127.0.0.1:1 does not answer: ")
    assert str(report.error).endswith("Connection refused")
    assert "object at" not in str(report.error)


def test_one_that_sends_a_byte_now_and_then_does_not_hold_up_the_look(
    agent: Callable[[Answer], Target], observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_controller.observe, "PATIENCE_S", 1.0)
    ended = threading.Event()
    asked = []

    def drip(face: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(1)
        face.send_response(200)
        face.send_header("content-length", "1000")
        face.end_headers()
        while not ended.is_set():
            face.wfile.write(b" ")
            ended.wait(0.2)

    targets = {"slow": agent(drip), "well": agent(says(401, b""))}
    began = time.monotonic()
    seen = observer.look(targets, NOBODY, 1.0)
    assert time.monotonic() - began < 3.0
    assert "did not answer within 1 s" in str(seen.hosts["slow"].error)
    assert "401" in str(seen.hosts["well"].error)
    assert "does not answer" in str(seen.balancer_error)
    began = time.monotonic()
    seen = observer.look(targets, NOBODY, 2.0)  # it is still at its answer, so it is not waited for again
    assert time.monotonic() - began < 0.9
    assert "did not answer" in str(seen.hosts["slow"].error)
    assert len(asked) == 1
    ended.set()
