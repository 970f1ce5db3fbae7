"""A request to a model that was understood: what to compute, and how to say the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import orjson

from fleet_agent.http.call import Reply
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import ServedModel
from fleet_agent.values.payload import Payload
from fleet_wire.refusal import Refusal


@dataclass(slots=True)
class Said:
    """The replies to a batch of requests with one instance each: a body for each row, the same headers for all."""

    bodies: list[bytes]
    headers: tuple[tuple[bytes, bytes], ...]


class Saying(Protocol):
    """The engine's answers as a client's. Calls that want theirs alike share one, so that what came of a batch is put
    into bytes at one go."""

    def reply(self, answer: Answer) -> Reply:
        """To one call. Raises Refusal where that can't be said."""

    def each(self, together: Together) -> Said | None:
        """To all calls of a batch; None: they have to be answered one by one."""


# What one call wants: of which model, with what, its answer said how, and whether the input's tokens are counted.
# A tuple, since one is made for every call.
Asked: TypeAlias = tuple[ServedModel, Payload, Saying, bool]


def dumps(value: object) -> bytes:
    """Raises Refusal `internal` for what a model gave and JSON can't say (bytes, say)."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)
    except orjson.JSONEncodeError as error:
        raise Refusal("internal", f"the model's output can't be said in JSON: {error}") from None


def _plain(value: object) -> object:
    """What orjson doesn't take by itself: arrays of objects or of half precision, single numbers in an array type."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
