"""Agents that generate: the tiny chat model of the examples, and models that misbehave."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from openai import OpenAI

ROOT = Path(__file__).parents[3]

# Says what the request's options tell it to: the last message is JSON.
ACTOR = """
import json, os, time


class State:
    def __init__(self, request):
        self.plan = json.loads(request["messages"][-1]["content"])
        if "refuse" in self.plan:
            raise ValueError(self.plan["refuse"])
        self.said = 0


class Model:
    max_tokens = 100000

    def load(self, device, options):
        self.delay_s = options.get("delay_ms", 0) / 1000

    def begin(self, request):
        return State(request)

    def step(self, states):
        time.sleep(self.delay_s)
        for state in states:
            if state.plan.get("raise_at") == state.said:
                raise RuntimeError("this one is broken")
            if len(states) > state.plan.get("room", 1000):
                raise MemoryError("too many at once")
        return [self.piece(state) for state in states]

    def piece(self, state):
        state.said += 1
        if state.said > state.plan.get("pieces", 3):
            return None
        if state.plan.get("number_at") == state.said:
            return 7
        return state.plan.get("text", "ab") * state.plan.get("times", 1)
"""

STREAMER = """
class Model:
    def load(self, device, options):
        pass

    def stream(self, request):
        for word in request["messages"][-1]["content"].split():
            if word == "fail":
                raise RuntimeError("this word fails")
            yield word + " "
"""


@pytest.fixture(scope="session")
def tiny_chat() -> Callable[..., dict[str, Any]]:
    def make(name: str = "chat", options: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
        path = str(ROOT / "examples/tinychat")
        return {
            "name": name,
            "path": path,
            "entrypoint": "model:TinyChat",
            "options": options or {},
            **settings,
        }

    return make


@pytest.fixture(scope="session")
def actor(written_model: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def make(name: str = "actor", **settings: Any) -> dict[str, Any]:
        return written_model(name, ACTOR, **settings)

    return make


@pytest.fixture(scope="session")
def streamer(written_model: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def make(name: str = "streamer", **settings: Any) -> dict[str, Any]:
        return written_model(name, STREAMER, **settings)

    return make


@pytest.fixture(scope="session")
def openai_client() -> Callable[[str], OpenAI]:
    """The stock client, which sends nothing twice here."""

    from openai import OpenAI  # a second of processor, that other tests' processes need not spend

    def make(url: str) -> OpenAI:
        return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)

    return make


@pytest.fixture(scope="session")
def figure() -> Callable[..., float]:
    """One number of a /metrics text: the sum over what has the labels."""

    def read(agent: Any, name: str, **labels: str) -> float:
        lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", agent.http.get("/metrics").text, re.MULTILINE)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(value) for given, value in lines if all(each in given for each in wanted))

    return read
