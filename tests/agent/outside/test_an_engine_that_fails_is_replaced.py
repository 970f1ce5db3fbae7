"""Engines that crash, hang, never start, write too much and leave processes behind: every call is answered, and nothing
is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"
STREAM = {"stream": True, "pieces": 10, "pause_s": 0.1}


@pytest.fixture(scope="module")
def agent(start_shared_agent: Callable[..., Any], outside_model: Callable[..., Any]) -> Any:
    agent = start_shared_agent(
        outside_model("crashes"),
        outside_model("hangs", hang_timeout_s=0.6),
        outside_model("pauses"),
        outside_model("sick", hang_timeout_s=1.0),
        outside_model("floods", "--flood", env={"GREETING": "the world"}),
    )
    return agent.ready()


def engine(agent: Any, name: str) -> dict[str, Any]:
    """An engine's part of the status, with whether the model is ready."""
    found = next(model for model in agent.status()["models"] if model["name"] == name)
    return {"ready": found["ready"], **found["engine"]}


def back(agent: Any, name: str, old: int) -> dict[str, Any]:
    """Waits for the next engine."""
    agent.until(
        lambda: engine(agent, name)["ready"] and engine(agent, name)["pid"] != old, f"{name} is back", 10
    )
    return engine(agent, name)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ask(agent: Any, name: str, **how: Any) -> httpx.Response:
    reply: httpx.Response = agent.http.post(CHAT, json={"model": name, **how})
    return reply


def refused(reply: httpx.Response, why: str) -> None:
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unavailable")
    assert reply.headers["retry-after"] == "1"
    assert why in reply.json()["error"]["message"]


def test_a_crash_costs_what_was_in_it_503_at_once_and_the_next_one_answers(agent: Any) -> None:
    old = engine(agent, "crashes")["pid"]
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, agent, "crashes", sleep_s=30) for _ in range(3)]
        agent.until(lambda: agent.status()["in_flight"] == 3, "three in flight", 5)
        began = time.monotonic()
        refused(ask(agent, "crashes", die=True), "before it had answered; this may be sent again")
        for other in others:
            refused(other.result(), "this may be sent again")
    assert time.monotonic() - began < 1.0
    assert back(agent, "crashes", old)["restarts"] == 1
    assert ask(agent, "crashes").status_code == 200
    assert engine(agent, "hangs")["restarts"] == 0


def test_an_answer_that_a_crash_cuts_off_does_not_look_whole(agent: Any) -> None:
    old = engine(agent, "crashes")["pid"]
    got = b""
    body = {"model": "crashes", **STREAM, "die_at": 2}
    with pytest.raises(httpx.RemoteProtocolError), agent.http.stream("POST", CHAT, json=body) as answer:
        for piece in answer.iter_raw():
            got += piece
    assert b"word2" in got and b"DONE" not in got
    assert json.loads(got.split(b"data: ")[-1])["error"]["code"] == "unavailable"
    back(agent, "crashes", old)


def test_an_engine_that_hangs_is_killed_and_its_calls_answered(agent: Any) -> None:
    old = engine(agent, "hangs")["pid"]
    began = time.monotonic()
    refused(ask(agent, "hangs", hang=True), "gave no sign of life for 0.6 s (/health does not answer)")
    assert 0.5 < time.monotonic() - began < 3
    assert back(agent, "hangs", old)["hangs"] == 1
    assert not alive(old)


def test_a_long_answer_that_moves_is_no_hang(agent: Any) -> None:
    old = engine(agent, "hangs")["pid"]
    reply = ask(agent, "hangs", stream=True, pieces=12, pause_s=0.1)
    assert reply.text.endswith("[DONE]\n\n")
    assert engine(agent, "hangs")["pid"] == old


def test_a_stopped_engine_is_found_and_replaced(agent: Any) -> None:
    old = engine(agent, "pauses")["pid"]
    refused(ask(agent, "pauses", stop=True), "had been stopped by a signal")
    back(agent, "pauses", old)
    assert not alive(old)


def test_an_engine_that_says_it_is_sick_gets_nothing_and_is_replaced(agent: Any) -> None:
    old = engine(agent, "sick")["pid"]
    assert ask(agent, "sick", unwell=True).status_code == 200
    agent.until(lambda: engine(agent, "sick")["state"] == "unwell", "unwell", 2)
    refused(ask(agent, "sick"), "is not well: /health answers 503")
    assert agent.http.get("/readyz").status_code == 503
    assert agent.http.get("/v2/models/sick/ready").status_code == 503
    back(agent, "sick", old)


def test_a_warden_that_is_killed_takes_its_engine_along_and_both_come_back(agent: Any) -> None:
    old = engine(agent, "pauses")["pid"]
    warden = int(Path(f"/proc/{old}/stat").read_text().rpartition(")")[2].split()[1])
    assert "warden" in Path(f"/proc/{warden}/cmdline").read_text()
    os.kill(warden, signal.SIGKILL)
    back(agent, "pauses", old)
    assert not alive(old)


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.slow
def test_an_engine_that_never_starts_says_its_last_words(
    start_agent: Any, outside_model: Any, taken: socket.socket, tmp_path: Path
) -> None:
    port = taken.getsockname()[1]
    agent = start_agent(
        outside_model("ends", "--exit", "3"),
        outside_model("portless", port=port),
        outside_model("silent", "--silent", start_timeout_s=3.0, health_interval_s=0.1),
        outside_model("absent", argv=["/no/such/engine", "{port}"]),
        outside_model("second", "--exit", "1", "--once", str(tmp_path / "tried")),
    )
    agent.until(lambda: engine(agent, "ends")["state"] == "failed", "given up", 10)
    agent.until(lambda: engine(agent, "absent")["state"] == "failed", "given up", 10)
    assert agent.status()["state"] == "failed"
    ready = agent.http.get("/readyz")
    assert ready.status_code == 503
    errors = {model["name"]: model["error"] for model in agent.status()["models"]}
    assert (
        "ended with status 3 before it was ready, 3 times; it last said: serving nobody on" in errors["ends"]
    )
    assert errors["ends"].endswith("/ CUDA out of memory, or the like")
    assert "can't be started: '/no/such/engine' can't be run: [Errno 2] No such file" in errors["absent"]
    assert f"port {port} is taken by another process" in errors["portless"]
    assert engine(agent, "portless")["pid"] is None  # so nobody else can answer for it
    refused(ask(agent, "ends"), "CUDA out of memory, or the like")
    agent.until(lambda: engine(agent, "second")["ready"], "the second start is good", 10)
    agent.until(lambda: engine(agent, "silent")["hangs"] > 0, "killed for its silence", 20)
    assert "was not ready after 3 s (/health does not answer)" in agent.log()


def test_a_flood_of_lines_is_bounded_in_the_log_and_hurts_nobody(agent: Any) -> None:
    assert "[floods] serving the world on" in agent.log()
    agent.until(lambda: "lines left out" in agent.log(), "the flood is over", 10)
    assert len(agent.log()) < 2_000_000
    assert ask(agent, "floods").status_code == 200


def test_a_drain_finishes_the_stream_and_leaves_nothing_behind(start_agent: Any, outside_model: Any) -> None:
    mark = f"drained-{time.monotonic_ns()}"
    agent = start_agent(
        outside_model("llm", "--double-fork", "--ignore-term", stop_grace_s=0.3, env={"MARK": mark})
    ).ready()
    assert len(marked(mark)) == 2  # the engine, and what it forked away
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=agent.url) as other:
        reply = pool.submit(ask, agent, "llm", **STREAM)
        agent.until(lambda: agent.status()["in_flight"] == 1, "streaming", 5)
        os.killpg(agent.pid, signal.SIGTERM)
        agent.until(lambda: other.get("/readyz").status_code == 503, "draining", 5)
        late = other.post(CHAT, json={"model": "llm"})
        assert (late.status_code, "draining" in late.text) == (503, True)
        assert reply.result().text.endswith("[DONE]\n\n")
    assert agent.process.wait(10) == 0
    assert marked(mark) == []


def test_nothing_is_left_when_the_agent_is_killed_and_its_token_was_nobody_elses(
    start_agent: Any, outside_model: Any, tmp_path: Path
) -> None:
    mark = f"killed-{time.monotonic_ns()}"
    model = outside_model("llm", "--double-fork", "--ignore-term", env={"MARK": mark})
    (tmp_path / "token").write_text("s3cret")
    agent = start_agent(model, token_file=str(tmp_path / "token")).ready()
    assert httpx.post(agent.url + CHAT, json={"model": "llm"}).status_code == 401
    assert "authorization" not in ask(agent, "llm").json()["headers"]
    warden = int(
        Path(f"/proc/{agent.status()['models'][0]['engine']['pid']}/stat")
        .read_text()
        .rpartition(")")[2]
        .split()[1]
    )
    assert len(marked(mark)) == 2
    agent.process.kill()
    agent.process.wait()
    end = time.monotonic() + 5
    while (marked(mark) or alive(warden)) and time.monotonic() < end:
        time.sleep(0.02)
    assert marked(mark) == [] and not alive(warden)


def marked(mark: str) -> list[int]:
    """The living processes that have MARK=`mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"MARK={mark}".encode() in environment and alive(int(folder.name)):
            found.append(int(folder.name))
    return found
