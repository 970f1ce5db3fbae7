"""A real agent with the tiny chat model, asked by the stock OpenAI client, by curl and by bare HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "examples/tinychat"))
try:
    from text import DIALOGUES
finally:
    sys.path.pop(0)

ANSWERS = dict(DIALOGUES)
STORY = "Tell me a story."


@pytest.fixture(scope="module")
def agent(start_shared_agent, tiny_chat, tiny_model):
    slow = tiny_chat("slow", {"delay_ms": 5})
    return start_shared_agent(tiny_chat(), slow, tiny_model()).ready()


@pytest.fixture(scope="module")
def client(agent, openai_client):
    with openai_client(agent.url) as client:
        yield client


def asked(question, **more):
    return {"model": "chat", "messages": [{"role": "user", "content": question}], "temperature": 0, **more}


def body_of(question, **more):
    return json.dumps(asked(question, **more))


@pytest.mark.parametrize("question", [STORY, "Say something in German.", "What is a fleet?"])
def test_the_stock_client_gets_the_same_whole_and_streamed(client, question):
    whole = client.chat.completions.create(**asked(question))
    assert whole.choices[0].message.content == ANSWERS[question]
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(
        client.chat.completions.create(**asked(question), stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWERS[question]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    tokens = len(ANSWERS[question].encode())
    prompt = len(f"> {question}\n< ")
    for usage in (whole.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, tokens)
        assert usage.total_tokens == prompt + tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_an_answer_ends_at_its_limit_or_at_a_stop_string(client):
    short = client.chat.completions.create(**asked(STORY), max_completion_tokens=9)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("Once ther", "length")
    assert short.usage.completion_tokens == 9
    for stop in ("three", ["nowhere", "three"]):
        stopped = client.chat.completions.create(**asked(STORY), stop=stop)
        assert stopped.choices[0].message.content == "Once there were "
        assert stopped.choices[0].finish_reason == "stop"


def test_an_earlier_exchange_and_parts_of_text_are_understood(client):
    messages = [
        {"role": "user", "content": "What is a fleet?"},
        {"role": "assistant", "content": ANSWERS["What is a fleet?"]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Can you "}, {"type": "text", "text": "count?"}],
        },
    ]
    whole = client.chat.completions.create(model="chat", messages=messages, temperature=0)
    assert whole.choices[0].message.content == ANSWERS["Can you count?"]


def test_the_same_seed_says_the_same(client):
    def said(seed):
        more = {"temperature": 2, "top_p": 0.99, "seed": seed, "max_tokens": 60}
        whole = client.chat.completions.create(**asked("Anything at all", **more))
        return whole.choices[0].message.content

    assert said(1) == said(1)
    assert len({said(seed) for seed in range(4)}) > 1


def test_many_at_once_share_steps_and_each_gets_its_own_answer(agent, client, figure):
    before = {n: figure(agent, f"fleet_agent_{n}_total", model="slow") for n in ("steps", "step_sequences")}

    def answer(question):
        return client.chat.completions.create(**asked(question, model="slow")).choices[0].message.content

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(answer, list(ANSWERS)[:12])) == list(ANSWERS.values())[:12]
    steps = figure(agent, "fleet_agent_steps_total", model="slow") - before["steps"]
    sequences = figure(agent, "fleet_agent_step_sequences_total", model="slow") - before["step_sequences"]
    # Twelve answers of 24 to 85 bytes: alone that would be over 600 steps.
    assert sequences > 600
    assert steps < sequences / 2


def test_a_short_one_that_comes_during_a_long_one_is_over_first(agent, client, figure):
    long = client.chat.completions.create(**asked(STORY, model="slow"), stream=True)
    text = next(long).choices[0].delta.content or ""
    short = client.chat.completions.create(**asked("Goodbye", model="slow"))
    assert short.choices[0].message.content == "Goodbye!"
    assert figure(agent, "fleet_agent_running_sequences", model="slow") == 1  # the long one
    text += "".join(chunk.choices[0].delta.content or "" for chunk in long)
    assert text == ANSWERS[STORY]


def test_curl_gets_the_pieces_as_they_come(agent, figure):
    command = ["curl", "-sN", f"{agent.url}/v1/chat/completions", "-d", "@-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as curl:
        curl.stdin.write(body_of(STORY, model="slow", stream=True))
        curl.stdin.close()
        lines = [curl.stdout.readline().rstrip("\n")]
        assert figure(agent, "fleet_agent_running_sequences", model="slow") == 1  # it is still being said
        lines += [line.rstrip("\n") for line in curl.stdout if line != "\n"]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])
    pieces = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    assert "".join(pieces) == ANSWERS[STORY]
    assert len(pieces) > 20


def test_headers_come_with_a_stream(agent):
    with agent.http.stream(
        "POST",
        "/v1/chat/completions",
        content=body_of("Hi", stream=True),
        headers={"x-request-id": "mine", "x-fleet-priority": "5"},
    ) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-request-id"] == "mine"
        assert reply.headers["x-fleet-model-version"] == "1"
        assert reply.read().endswith(b"data: [DONE]\n\n")


def test_a_client_that_leaves_takes_its_sequence_along(agent, client, figure):
    before = figure(agent, "fleet_agent_requests_total", model="slow", outcome="abandoned")
    stream = client.chat.completions.create(**asked(STORY, model="slow"), stream=True)
    next(stream)
    next(stream)
    stream.close()
    agent.until(lambda: figure(agent, "fleet_agent_running_sequences", model="slow") == 0, "left")
    assert figure(agent, "fleet_agent_requests_total", model="slow", outcome="abandoned") == before + 1
    tokens = figure(agent, "fleet_agent_tokens_total", model="slow")
    time.sleep(0.1)
    assert figure(agent, "fleet_agent_tokens_total", model="slow") == tokens


def test_a_deadline_ends_what_waits_with_504_and_a_stream_with_an_error(agent, client):
    headers = {"x-request-timeout-ms": "300"}
    reply = agent.http.post("/v1/chat/completions", content=body_of(STORY, model="slow"), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    stream = client.chat.completions.create(**asked(STORY, model="slow"), stream=True, extra_headers=headers)
    text = ""
    import openai  # a second of processor, that collecting need not take

    with pytest.raises(openai.APIError, match="not answered within"):
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text
    assert ANSWERS[STORY].startswith(text)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "none"}, 404, "this server has: chat"),
        ({"model": "tiny"}, 400, "doesn't generate"),
        ({"model": None}, 400, "model is the name"),
        ({"n": 2}, 400, "n other than 1"),
        ({"tools": [{"type": "function"}]}, 400, "tools other than []"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"messages": []}, 400, "messages is a non-empty list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content"),
        ({"temperature": 2.5}, 400, "temperature is a number from 0 to 2"),
        ({"max_tokens": 0}, 400, "max_tokens is a whole number of at least 1"),
        ({"max_tokens": 10**6}, 400, "at most 512 tokens"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": ["a"] * 5}, 400, "at most 4"),
        ({"seed": "x"}, 400, "seed"),
        ({"stream": "yes"}, 400, "stream is true or false"),
        ({"stream_options": {"include_usage": True}}, 400, "for stream: true only"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(agent, change, status, words):
    reply = agent.http.post("/v1/chat/completions", json=asked("Hi") | change)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_it_is_listed_and_documented(agent, client):
    assert [model.id for model in client.models.list()] == ["chat", "slow", "tiny"]
    document = agent.http.get("/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]
    assert set(document["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert agent.http.post("/v1/models/chat:predict", json={"instances": [1]}).status_code == 400
    client.chat.completions.create(**asked(STORY))
    status = next(model for model in agent.status()["models"] if model["name"] == "chat")
    assert status["completed"] > 0
    assert status["service_curve"]


def test_a_stream_passes_the_balancer_as_it_comes_and_ends_when_its_client_leaves(
    agent, start_balancer, openai_client, figure
):
    url = start_balancer(agent.url.removeprefix("http://"))
    with openai_client(url) as through:
        stream = through.chat.completions.create(**asked(STORY, model="slow"), stream=True)
        text = "".join(next(stream).choices[0].delta.content or "" for _ in range(3))
        # The first pieces are here while the agent is still at it: 300 more to come, 5 ms each.
        assert figure(agent, "fleet_agent_running_sequences", model="slow") == 1
        assert text + "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWERS[STORY]
        before = figure(agent, "fleet_agent_requests_total", model="slow", outcome="abandoned")
        stream = through.chat.completions.create(**asked(STORY, model="slow"), stream=True)
        next(stream)
        stream.close()
    agent.until(lambda: figure(agent, "fleet_agent_running_sequences", model="slow") == 0, "left")
    assert figure(agent, "fleet_agent_requests_total", model="slow", outcome="abandoned") == before + 1
