"""Real agents whose models fail, run out of memory, are killed, or talk to clients who don't listen."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest


@pytest.fixture(scope="module")
def agent(start_shared_agent, actor, streamer, tiny_model):
    return start_shared_agent(
        actor(),
        actor("slow", options={"delay_ms": 20}),
        actor("alone", options={"delay_ms": 10}, max_batch_size=1, max_queue_size=1),
        actor("roomy", options={"delay_ms": 10}),
        streamer(),
        tiny_model(),
    ).ready()


def body_of(model, plan, **more):
    content = plan if isinstance(plan, str) else json.dumps(plan)
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def post(agent, model, plan, headers=None, **more):
    return agent.http.post("/v1/chat/completions", json=body_of(model, plan, **more), headers=headers)


def said(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def events(lines):
    """What the lines of an event stream say: the text so far, and the error at its end."""
    text = ""
    for line in lines:
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                return text, event["error"]
            text += event["choices"][0]["delta"].get("content", "")
    return text, None


def test_a_sequence_that_fails_ends_alone(agent):
    plans = [{"pieces": 4, "text": name} for name in "abcd"]
    plans[2] = {"pieces": 4, "raise_at": 2}
    plans += [{"refuse": "I don't like this"}, {"number_at": 2}]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda plan: post(agent, "slow", plan), plans))
    assert [said(replies[n]) for n in (0, 1, 3)] == ["aaaa", "bbbb", "dddd"]
    assert [(r.status_code, r.json()["error"]["code"]) for r in (replies[2], replies[4], replies[5])] == [
        (500, "internal"),
        (400, "bad_request"),
        (500, "internal"),
    ]
    assert "this one is broken" in replies[2].json()["error"]["message"]
    assert replies[4].json()["error"]["message"] == "I don't like this"
    assert "gave int" in replies[5].json()["error"]["message"]


def test_a_model_that_can_only_stream_is_stepped_piece_by_piece(agent):
    with ThreadPoolExecutor(3) as pool:
        texts = ["one two three", "one fail", "four"]
        replies = list(pool.map(lambda text: post(agent, "streamer", text), texts))
    assert (said(replies[0]), said(replies[2])) == ("one two three ", "four ")
    assert "this word fails" in replies[1].json()["error"]["message"]
    assert "usage" not in replies[0].json()  # it doesn't count its prompt
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    assert post(agent, "streamer", "one", **counted).status_code == 400


def test_what_memory_does_not_hold_at_once_is_computed_in_parts_and_fewer_run(agent, figure):
    with ThreadPoolExecutor(8) as pool:
        plans = [{"pieces": 30, "room": 2, "text": name} for name in "abcdefgh"]
        replies = list(pool.map(lambda plan: post(agent, "roomy", plan), plans))
    assert [said(reply) for reply in replies] == [name * 30 for name in "abcdefgh"]
    assert figure(agent, "fleet_agent_sequence_limit", model="roomy") <= 4
    limit = int(figure(agent, "fleet_agent_sequence_limit", model="roomy"))
    with ThreadPoolExecutor(4) as pool:
        most = 0
        futures = [pool.submit(post, agent, "roomy", {"pieces": 30, "room": 2}) for _ in range(4)]
        while not all(future.done() for future in futures):
            most = max(most, int(figure(agent, "fleet_agent_running_sequences", model="roomy")))
        assert {said(future.result()) for future in futures} == {"ab" * 30}
    assert 1 <= most <= limit


def test_a_full_queue_is_refused_with_when_to_come_back(agent):
    with ExitStack() as stack:
        first = stack.enter_context(
            agent.http.stream(
                "POST", "/v1/chat/completions", json=body_of("alone", {"pieces": 40}, stream=True)
            )
        )
        lines = first.iter_lines()
        next(lines)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waits = pool.submit(post, agent, "alone", {"pieces": 1})
        agent.until(lambda: agent.status()["queued"] == 1, "waiting")
        refused = post(agent, "alone", {"pieces": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert events(lines) == ("ab" * 40, None)
        assert said(waits.result()) == "ab"


def test_a_model_with_batches_goes_on_beside_one_that_generates(agent, figure):
    def tokens():
        return figure(agent, "fleet_agent_tokens_total", model="slow")

    plan = body_of("slow", {"pieces": 5000}, stream=True)
    with agent.http.stream("POST", "/v1/chat/completions", json=plan) as reply:
        lines = reply.iter_lines()
        next(lines)
        counts = [tokens()]
        for _ in range(5):
            # Each waits for a step or two of 20 ms, and none of them for the end of the answer.
            assert agent.predict("tiny", [[1, 2, 3, 4]]).status_code == 200
            agent.until(lambda: tokens() > counts[-1], "stepping on")
            counts.append(tokens())
        assert figure(agent, "fleet_agent_running_sequences", model="slow") == 1
    agent.until(lambda: agent.status()["in_flight"] == 0, "left")


def test_a_reader_who_does_not_read_holds_the_sequence_and_gets_all_of_it_later(agent, figure):
    pieces, size = 250, 100_000
    plan = {"pieces": pieces, "text": "x" * 100, "times": size // 100}

    def count():
        return figure(agent, "fleet_agent_tokens_total", model="actor")

    before = count()
    with httpx.stream(
        "POST", f"{agent.url}/v1/chat/completions", json=body_of("actor", plan, stream=True), timeout=60
    ) as reply:
        seen = -1.0
        while count() != seen or seen == before:  # until it stands still
            seen = count()
            time.sleep(0.2)
        # What the sockets' buffers hold and a little more was said; the rest wasn't.
        assert 0 < seen - before < pieces * 0.75
        assert said(post(agent, "actor", {"pieces": 3})) == "ababab"  # nobody else is held
        text, error = events(reply.iter_lines())
    assert error is None
    assert len(text) == pieces * size


def test_a_killed_worker_ends_its_streams_at_once_and_what_waits_goes_on(agent):
    plan = body_of("alone", {"pieces": 5000}, stream=True)
    with ExitStack() as stack:
        stream = stack.enter_context(agent.http.stream("POST", "/v1/chat/completions", json=plan))
        lines = stream.iter_lines()
        next(lines)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waits = pool.submit(post, agent, "alone", {"pieces": 3})
        agent.until(lambda: agent.status()["queued"] == 1, "waiting")
        killed = time.monotonic()
        os.kill(agent.worker(), signal.SIGKILL)
        _, error = events(lines)
        assert time.monotonic() - killed < 1.0
        assert error["code"] == "unavailable"
        assert "may be sent again" in error["message"]
        assert said(waits.result()) == "ababab"
    assert agent.status()["in_flight"] == agent.status()["queued"] == 0


@pytest.mark.slow
def test_a_drain_lets_what_runs_come_to_its_end(start_agent, actor):
    agent = start_agent(actor("chat", options={"delay_ms": 20})).ready()
    plan = body_of("chat", {"pieces": 20}, stream=True)
    with agent.http.stream("POST", "/v1/chat/completions", json=plan) as reply:
        lines = reply.iter_lines()
        next(lines)
        os.kill(agent.pid, signal.SIGTERM)
        agent.until(lambda: agent.status()["state"] == "draining", "draining")
        assert post(agent, "chat", {"pieces": 1}).status_code == 503
        assert events(lines) == ("ab" * 20, None)
    assert agent.process.wait(timeout=20) == 0
