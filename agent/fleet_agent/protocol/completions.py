"""OpenAI chat completions as bytes: what a body asks for, and the frames of the answer. No waiting, no I/O.

What would change the answer and isn't done here is refused by name; what is only a hint (`user`, `metadata` ...) is
passed over. Sources: OpenAI "Create chat completion" and "The chat completion chunk object"; the framing is that
of server-sent events (WHATWG HTML 9.2): `data: JSON`, an empty line, `data: [DONE]` at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from fleet_agent.generate.sequence import Finish
from fleet_agent.http.call import parse_json
from fleet_wire.refusal import Refusal

DONE = b"data: [DONE]\n\n"

_ROLES = ("system", "developer", "user", "assistant")
_MOST_STOPS = 4
_INT64 = 2**63
# Not done here, and no answer without: refused unless they are what an absent one means.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}


@dataclass(frozen=True, slots=True)
class Asking:
    """A body that was understood. `request` is what the model gets; what the client left out is None in it."""

    model: str | None
    request: dict[str, Any]
    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def read(body: bytes) -> Asking:
    """Raises Refusal `bad_request`, naming the field."""
    said = parse_json(body)
    if not isinstance(said, dict):
        raise _bad('the body is {"model": ..., "messages": [{"role": ..., "content": ...}, ...]}')
    model = said.get("model")
    if model is not None and not isinstance(model, str):
        raise _bad("model is the name of a model; GET /v1/models lists them")
    for name, harmless in _UNSUPPORTED.items():
        value = said.get(name)
        if value is not None and value not in harmless:
            only = f" other than {orjson.dumps(harmless[0]).decode()}" if harmless else ""
            raise _bad(f"{name}{only} is not supported here; leave it out")
    stream = _flag(said, "stream")
    options = said.get("stream_options")
    if options is not None and (not stream or not isinstance(options, dict)):
        raise _bad('stream_options is an object such as {"include_usage": true}, and for stream: true only')
    stop = _stop(said.get("stop"))
    fields = ("max_tokens", "max_completion_tokens")
    limits = [_number(said, name, 1, _INT64, whole=True) for name in fields]
    max_tokens = limits[0] if limits[1] is None else limits[1]
    request = {
        "messages": _messages(said.get("messages")),
        "max_tokens": max_tokens,
        "temperature": _number(said, "temperature", 0, 2),
        "top_p": _number(said, "top_p", 0, 1),
        "seed": _number(said, "seed", -_INT64, _INT64 - 1, whole=True),
        "stop": list(stop),
    }
    usage = stream and _flag(options or {}, "include_usage")
    return Asking(model, request, None if max_tokens is None else int(max_tokens), stop, stream, usage)


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int

    def as_json(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


class Frames:
    """The frames of one answer. `created` is in Unix seconds."""

    def __init__(self, id: str, created: int, model: str, include_usage: bool = False) -> None:
        self._id = id
        self._created = created
        self._model = model
        self._none = {"usage": None} if include_usage else {}
        whole = self._chunk({"content": "\0"}, None)
        self._before, self._after = whole.split(orjson.dumps("\0"))

    def role(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> bytes:
        return b"%s%s%s" % (self._before, orjson.dumps(text), self._after)

    def finish(self, reason: Finish) -> bytes:
        return self._chunk({}, reason)

    def usage(self, usage: Usage) -> bytes:
        return _event(self._head("chat.completion.chunk") | {"choices": [], "usage": usage.as_json()})

    def whole(self, text: str, reason: Finish, usage: Usage | None) -> bytes:
        """The body of an answer that isn't streamed."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        reply = self._head("chat.completion") | {"choices": [choice]}
        if usage is not None:
            reply["usage"] = usage.as_json()
        return orjson.dumps(reply)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, str], reason: Finish | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event(self._head("chat.completion.chunk") | {"choices": [choice]} | self._none)


def failed(refusal: Refusal) -> bytes:
    """An answer that has begun and can't be finished: the client libraries raise on this."""
    return b"data: %s\n\n" % refusal.body()


def _event(value: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(value)


def _messages(said: object) -> list[dict[str, str]]:
    if not isinstance(said, list) or not said:
        raise _bad('messages is a non-empty list of {"role": ..., "content": text}')
    messages = []
    for number, message in enumerate(said):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise _bad(f"messages[{number}] is an object whose role is one of {', '.join(_ROLES)}")
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            texts = [part for part in parts if isinstance(part, str)]
            content = "".join(texts) if len(texts) == len(content) else None
        if not isinstance(content, str):
            raise _bad(f"messages[{number}].content is a text, or a list of parts of type text")
        messages.append({"role": message["role"], "content": content})
    return messages


def _stop(said: object) -> tuple[str, ...]:
    texts = [] if said is None else [said] if isinstance(said, str) else said
    if not isinstance(texts, list) or len(texts) > _MOST_STOPS:
        raise _bad(f"stop is a text, or a list of at most {_MOST_STOPS} texts")
    if not all(isinstance(text, str) and text for text in texts):
        raise _bad("stop has a text that is empty, or no text")
    return tuple(texts)


def _flag(said: dict[str, Any], name: str) -> bool:
    value = said.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _bad(f"{name} is true or false")
    return value


def _number(
    said: dict[str, Any], name: str, least: float, most: float, whole: bool = False
) -> int | float | None:
    value = said.get(name)
    if value is None:
        return None
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        bounds = f"of at least {least}" if most >= _INT64 - 1 and least >= 0 else f"from {least} to {most}"
        raise _bad(f"{name} is {kind} {bounds}")
    number: int | float = value
    return number


def _bad(message: str) -> Refusal:
    return Refusal("bad_request", message)
