"""`POST /v1/chat/completions`: who waits for an answer that comes in pieces, and what is sent when.

A stream's status line is sent with its first text, so that whatever goes wrong before has a status of its own; what
goes wrong later is the stream's last event. A client that leaves takes its sequence out of the next step; one that
reads slowly has its sequence held (generate/generation.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fleet_agent.engine.engine import Engine
from fleet_agent.generate.sequence import Sequence, Wish
from fleet_agent.http.call import Call, ClientGone, deadline_of, priority_of
from fleet_agent.protocol import completions
from fleet_agent.protocol.completions import Asking, Frames, Usage
from fleet_agent.served.served import ServedModel
from fleet_wire.refusal import Refusal

# Nothing that is sent is taken for so long: the connection is given up.
_STALLED_S = 60.0
# What the OpenAPI document says of the answers.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, whole or as events: `data: JSON` with a chat.completion.chunk, at last `[DONE]`",
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["id", "object", "choices"]}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}
_EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would gather the pieces otherwise
)


class Chat:
    """Understands calls and answers them. Raises Refusal, and ClientGone when the client goes away before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, call: Call) -> Response:
        asking = completions.read(await call.body())
        served = self._served(asking, call)
        deadline = deadline_of(call.headers, call.arrived)
        wish = Wish(asking.request, _limit(served, asking), asking.stop)
        traces = self._engine.traces
        trace = None if traces is None else traces.begin(call.identified, served.config)
        sequence = self._engine.generate(served, wish, deadline, priority_of(call.headers), trace)
        frames = Frames(
            f"chatcmpl-{call.request_id.decode()}", int(time.time()), served.config.name, asking.include_usage
        )
        answer = _Answer(sequence, served, call)
        try:
            if asking.stream:
                return _Stream(answer, await answer.first(), frames, asking.include_usage)
            text = await answer.rest()
        except BaseException:
            answer.close()
            raise
        answer.close()
        assert sequence.finish is not None
        response = Response(frames.whole(text, sequence.finish, _usage(sequence)))
        response.raw_headers += served.json_headers
        return response

    def _served(self, asking: Asking, call: Call) -> ServedModel:
        name = asking.model
        if name is None and b"x-fleet-model" in call.headers:
            name = call.headers[b"x-fleet-model"].decode("latin-1")
        if name is None:
            raise Refusal("bad_request", "model is the name of a model; GET /v1/models lists them")
        served = self._engine.served(name)
        if served.traits is None or served.traits.max_tokens is None:
            message = f"model {name} doesn't generate text; ask /v1/models/{name}:predict"
            raise Refusal("bad_request", message)
        if asking.include_usage and not served.traits.counts_prompt:
            message = f"model {name} doesn't count tokens (it has no prompt_tokens); leave include_usage out"
            raise Refusal("bad_request", message)
        return served


class _Answer:
    """A sequence and the client who waits for it."""

    def __init__(self, sequence: Sequence, served: ServedModel, call: Call) -> None:
        self.sequence = sequence
        self.served = served
        self._texts = sequence.read()
        self._watch = asyncio.create_task(call.gone())
        self._watch.add_done_callback(self._gone)

    async def first(self) -> str:
        """The first text, as soon as there is any; empty if there is none at all."""
        try:
            return await anext(self._texts, "")
        except Refusal:
            self._check_gone()
            raise

    async def rest(self) -> str:
        return "".join([text async for text in self.texts()])

    async def texts(self) -> AsyncIterator[str]:
        """Raises Refusal, ClientGone."""
        try:
            async for text in self._texts:
                yield text
        except Refusal:
            self._check_gone()
            raise

    def close(self) -> None:
        """Nobody waits any more, whether it is over or not."""
        self._watch.cancel()
        self.served.generation.abandon(self.sequence)

    def _check_gone(self) -> None:
        if self._watch.done():
            raise ClientGone from None

    def _gone(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled():
            self.served.generation.abandon(self.sequence)


class _Stream(Response):
    """The answer as server-sent events."""

    def __init__(self, answer: _Answer, first: str, frames: Frames, include_usage: bool) -> None:
        super().__init__()
        self._answer = answer
        self._first = first
        self._frames = frames
        self._include_usage = include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*_EVENTS, *self._answer.served.version_headers]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            first = self._frames.role() + (self._frames.piece(self._first) if self._first else b"")
            await _give(send, first)
            try:
                async for text in self._answer.texts():
                    await _give(send, self._frames.piece(text))
                await _give(send, self._end(), more=False)
            except Refusal as refusal:
                await _give(send, completions.failed(refusal), more=False)
        except TimeoutError:
            raise ClientGone from None
        finally:
            self._answer.close()

    def _end(self) -> bytes:
        sequence = self._answer.sequence
        assert sequence.finish is not None
        usage = _usage(sequence) if self._include_usage else None
        told = b"" if usage is None else self._frames.usage(usage)
        return self._frames.finish(sequence.finish) + told + completions.DONE


def body_schema() -> dict[str, Any]:
    """What the OpenAPI document says of a body."""
    part = {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    }
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": part}]},
        },
    }
    text = {"type": "string", "minLength": 1}
    count = {"type": ["integer", "null"], "minimum": 1}
    return {
        "type": "object",
        "required": ["messages", "model"],
        "properties": {
            "model": {"type": "string"},
            "messages": {"type": "array", "minItems": 1, "items": message},
            "stream": {"type": ["boolean", "null"]},
            "stream_options": {
                "type": ["object", "null"],
                "properties": {"include_usage": {"type": ["boolean", "null"]}},
            },
            "max_tokens": count,
            "max_completion_tokens": count,
            "stop": {"oneOf": [{"type": "null"}, text, {"type": "array", "maxItems": 4, "items": text}]},
            "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
            "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "seed": {"type": ["integer", "null"]},
            "n": {"const": 1},
        },
    }


async def _give(send: Send, data: bytes, more: bool = True) -> None:
    """Raises TimeoutError where the client doesn't take what was sent before."""
    async with asyncio.timeout(_STALLED_S):
        await send({"type": "http.response.body", "body": data, "more_body": more})


def _limit(served: ServedModel, asking: Asking) -> int:
    most = None if served.traits is None else served.traits.max_tokens
    assert most is not None, "asked before"
    if asking.max_tokens is not None and asking.max_tokens > most:
        message = f"model {served.config.name} gives at most {most} tokens, not {asking.max_tokens}"
        raise Refusal("bad_request", message)
    return asking.max_tokens or most


def _usage(sequence: Sequence) -> Usage | None:
    if sequence.prompt_tokens is None:
        return None
    return Usage(sequence.prompt_tokens, sequence.tokens)
