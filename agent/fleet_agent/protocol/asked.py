"""A request to a model that was understood: what to compute, and how to say the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson

from fleet_agent.http.call import Reply
from fleet_agent.served.answer import Answer
from fleet_agent.served.served import ServedModel
from fleet_agent.values.payload import Payload
from fleet_wire.refusal import Refusal


@dataclass(slots=True)
class Asked:
    """`reply` turns the engine's answer into the client's; it may raise Refusal."""

    served: ServedModel
    payload: Payload
    reply: Callable[[Answer], Reply]
    wants_tokens: bool = False


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
