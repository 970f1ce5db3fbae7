"""Calls to an outside engine: whose they are, how they pass, and how they end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

NAMES = {"waiting": "engine:waiting", "running": "engine:running", "cache": "engine:cache_perc"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def agent(start_shared_agent: Callable[..., Any], outside_model: Callable[..., Any], tiny_model: Any) -> Any:
    """A model of its own and three engines: a plain one, one with another name, one that takes a request at a time."""
    agent = start_shared_agent(
        tiny_model(),
        outside_model("llm", metrics=NAMES, version_="7"),
        outside_model("renamed", served_name="org/Big", paths=["/v1", "/generate"]),
        outside_model("narrow", max_in_flight=1, max_queue_size_=1),
    )
    return agent.ready()


@pytest.fixture(scope="module")
def engines(agent: Any) -> dict[str, Any]:
    return {model["name"]: model["engine"] for model in agent.status()["models"] if model["engine"]}


def direct(engines: dict[str, Any], name: str) -> dict[str, Any]:
    """What an engine says when it is asked past the agent."""
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{engines[name]['port']}/about").json()
    return found


def events(agent: Any, body: dict[str, Any], **headers: str) -> Iterator[tuple[float, bytes]]:
    began = time.monotonic()
    with agent.http.stream("POST", CHAT, json=body, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        for piece in answer.iter_raw():
            yield time.monotonic() - began, piece


def test_a_streamed_answer_passes_piece_by_piece(agent: Any) -> None:
    pieces = list(events(agent, {"model": "llm", "stream": True, "pieces": 3, "pause_s": 0.15}))
    assert len(pieces) == 4
    assert pieces[0][0] < 0.15 < pieces[1][0] < 0.3 < pieces[2][0]
    words = [json.loads(piece[6:])["choices"][0]["delta"]["content"] for _, piece in pieces[:3]]
    assert words == ["word0 ", "word1 ", "word2 "]
    assert pieces[3][1] == b"data: [DONE]\n\n"


def test_the_body_the_header_or_the_path_names_the_model(agent: Any) -> None:
    by_body = agent.http.post(
        CHAT + "?a=%2F", json={"model": "llm", "n": 1}, headers={"x-request-id": "mine"}
    )
    assert by_body.headers["x-request-id"] == "mine"
    assert by_body.headers["x-fleet-model-version"] == "7"
    assert by_body.json()["path"] == CHAT + "?a=%2F"
    assert by_body.json()["headers"]["x-request-id"] == "mine"
    by_header = agent.http.post("/v1/free", content=b"any bytes", headers={"x-fleet-model": "llm"})
    assert by_header.json()["bytes"] == 9
    by_path = agent.http.post("/v2/models/llm/infer", json={"inputs": []})
    assert by_path.json()["path"] == "/v2/models/llm/infer"
    assert agent.http.post("/generate", json={}, headers={"x-fleet-model": "renamed"}).status_code == 200


def test_the_engines_own_name_takes_the_place_of_the_models(agent: Any) -> None:
    assert agent.http.post(CHAT, json={"model": "renamed"}).json()["asked"] == {"model": "org/Big"}
    path = agent.http.post("/v1/models/renamed:predict", json={}).json()["path"]
    assert path == "/v1/models/org/Big:predict"


def test_its_own_models_are_served_beside_them(agent: Any) -> None:
    assert agent.predict("tiny", [[1, 2, 3, 4]]).status_code == 200
    refused = agent.http.post("/v1/embeddings", json={"model": "tiny", "input": "x"})
    assert (refused.status_code, "gives no embeddings" in refused.text) == (400, True)
    assert (
        agent.http.post("/v1/embeddings", json={"model": "llm", "input": "x"}).json()["asked"]["input"] == "x"
    )
    unknown = agent.http.post("/v1/models/nobody:predict", json={"instances": [1]})
    assert "this server has: llm, narrow, renamed, tiny" in unknown.json()["error"]["message"]
    listed = agent.http.get("/v1/models").json()["models"]
    assert sorted(listed) == ["llm", "narrow", "renamed", "tiny"]


def test_what_is_not_declared_is_not_asked(agent: Any) -> None:
    for path, header in (
        ("/v2/models/renamed/infer", "renamed"),
        ("/generate", "llm"),
        ("/v1/../health", "llm"),
    ):
        target = httpx.URL(agent.url).copy_with(raw_path=path.encode())
        refused = agent.http.post(target, json={}, headers={"x-fleet-model": header})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")


def test_the_agent_itself_says_what_is_ready(agent: Any) -> None:
    about = agent.http.get("/v1/models/llm").json()
    assert (about["name"], about["version"], about["ready"], about["object"]) == ("llm", "7", True, "model")
    assert agent.http.get("/v2/models/llm/ready").json() == {"name": "llm", "ready": True}
    assert agent.http.get("/v2/models/renamed").json()["platform"] == "command"


def test_headers_of_one_connection_stay_there_and_cookies_stay_two(agent: Any) -> None:
    answer = agent.http.get("/v1/odd", headers={"x-fleet-model": "llm"})
    assert answer.content == b"ok"
    assert answer.headers["x-kept"] == "kept"
    assert "x-internal" not in answer.headers
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert len(answer.headers.get_list("date")) == 1
    agent.http.cookies.clear()


def test_an_upload_without_a_length_goes_on_as_it_comes(agent: Any) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    answer = agent.http.post("/v1/upload", content=pieces(), headers={"x-fleet-model": "llm"})
    assert answer.json()["bytes"] == 64 * 65536
    body = b"y" * 3_000_000
    whole = agent.http.post("/v1/upload", content=body, headers={"x-fleet-model": "llm"})
    assert whole.json()["bytes"] == 3_000_000


def test_connections_to_the_engine_are_used_again(agent: Any, engines: dict[str, Any]) -> None:
    before = direct(engines, "llm")["connections"]
    for _ in range(30):
        agent.http.post(CHAT, json={"model": "llm"})
    assert direct(engines, "llm")["connections"] - before < 10


def test_an_answer_that_is_too_late_is_504_and_the_engine_is_let_go(
    agent: Any, engines: dict[str, Any]
) -> None:
    before = direct(engines, "llm")["abandoned"]
    began = time.monotonic()
    late = agent.http.post(
        CHAT,
        json={"model": "llm", "sleep_s": 0.5, "stream": True, "pieces": 20, "pause_s": 0.05},
        headers={"x-request-timeout-ms": "200"},
    )
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - began < 0.45
    agent.until(lambda: direct(engines, "llm")["abandoned"] > before, "abandoned", 5)


def test_a_stream_that_takes_too_long_says_why_and_does_not_look_whole(agent: Any) -> None:
    got = b""
    with pytest.raises(httpx.RemoteProtocolError):
        for _, piece in events(
            agent,
            {"model": "llm", "stream": True, "pieces": 50, "pause_s": 0.05},
            **{"x-request-timeout-ms": "220"},
        ):
            got += piece
    assert got.count(b"word") in (3, 4, 5)
    assert json.loads(got.split(b"data: ")[-1])["error"]["code"] == "deadline_exceeded"


def test_a_client_that_leaves_lets_go_of_the_engine(agent: Any, engines: dict[str, Any]) -> None:
    before = direct(engines, "llm")["abandoned"]
    body = json.dumps({"model": "llm", "stream": True, "pieces": 200, "pause_s": 0.02}).encode()
    url = httpx.URL(agent.url)
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    agent.until(lambda: direct(engines, "llm")["abandoned"] > before, "abandoned", 2)
    agent.until(lambda: agent.status()["in_flight"] == 0, "forgotten", 2)


def test_too_many_at_once_wait_and_more_are_refused(agent: Any) -> None:
    def ask(_: int) -> httpx.Response:
        reply: httpx.Response = agent.http.post(CHAT, json={"model": "narrow", "sleep_s": 0.3})
        return reply

    def figures() -> tuple[int, int]:
        status = next(model for model in agent.status()["models"] if model["name"] == "narrow")
        return status["in_flight"], status["queued"]

    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(ask, number) for number in range(2)]
        agent.until(lambda: figures() == (1, 1), "one in, one waiting", 2)
        third = ask(2)
        assert third.status_code == 429
        assert third.headers["retry-after"] == "1"
        assert "the queue of model narrow is full" in third.json()["error"]["message"]
        assert [reply.result().status_code for reply in first] == [200, 200]


def test_a_waiting_client_that_leaves_gives_its_place_to_the_next(agent: Any) -> None:
    def ask(timeout: float) -> int:
        try:
            return httpx.post(
                f"{agent.url}{CHAT}", json={"model": "narrow", "sleep_s": 0.4}, timeout=timeout
            ).status_code
        except httpx.ReadTimeout:
            return 0

    def queued() -> int:
        return next(model["queued"] for model in agent.status()["models"] if model["name"] == "narrow")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, 10.0)
        agent.until(lambda: agent.status()["in_flight"] == 1, "one in", 2)
        assert ask(0.1) == 0
        agent.until(lambda: queued() == 0, "gone from the queue", 0.3)
        assert ask(10.0) == 200
        assert first.result() == 200


def test_the_engines_own_figures_and_our_counts_are_told(agent: Any) -> None:
    def model() -> dict[str, Any]:
        return next(model for model in agent.status()["models"] if model["name"] == "llm")

    busy = agent.status()["busy_s"]
    with ThreadPoolExecutor(4) as pool:
        replies = [
            pool.submit(agent.http.post, CHAT, json={"model": "llm", "sleep_s": 0.8}) for _ in range(4)
        ]
        agent.until(lambda: model()["queued"] == 2, "the engine's queue told", 2)
        told = model()
        assert (told["in_flight"], told["engine"]["running"], told["engine"]["waiting"]) == (2, 2, 2)
        assert told["engine"]["cache_use"] == 0.75
        assert [reply.result().status_code for reply in replies] == [200] * 4
    assert agent.http.post(CHAT, json={"model": "llm", "status": 500}).status_code == 500
    assert agent.status()["busy_s"] - busy > 0.3
    text = agent.http.get("/metrics").text
    assert 'fleet_agent_requests_total{model="llm",outcome="error",version="7"}' in text
    assert 'fleet_agent_requests_total{model="llm",outcome="abandoned",version="7"} 1.0' in text
    assert 'fleet_agent_engine_cache_use{model="llm",version="7"} 0.75' in text
    assert 'fleet_agent_engine_restarts_total{model="llm",version="7"} 0.0' in text
    assert 'fleet_agent_first_piece_seconds_count{model="llm",version="7"}' in text
