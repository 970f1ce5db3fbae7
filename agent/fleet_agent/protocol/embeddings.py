"""OpenAI's answers to "Create embeddings": one vector per text, as numbers or as base64 of FP32."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from fleet_agent.http.call import Reply
from fleet_agent.protocol.asked import Said, dumps
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import ServedModel
from fleet_agent.values.tensors import Array
from fleet_wire.refusal import Refusal


class Embeddings:
    """How the answer to one call is said: `form` is "float" or "base64", `dimensions` what the call wants (None:
    any)."""

    def __init__(self, served: ServedModel, form: str, dimensions: object) -> None:
        self._served = served
        self._form = form
        self._dimensions = dimensions

    def reply(self, answer: Answer) -> Reply:
        """Raises Refusal."""
        name, rows = self._served.config.name, answer.rows
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
            raise Refusal("internal", f"model {name} says embeddings = True, but its rows are no vectors")
        if not answer.finite:
            raise Refusal("internal", f"model {name} answered NaN or infinity")
        if self._dimensions is not None and self._dimensions != rows.shape[1]:
            raise Refusal(
                "bad_request", f"model {name} gives {rows.shape[1]} dimensions, not {self._dimensions}"
            )
        data = [
            {"object": "embedding", "index": index, "embedding": self._vector(row)}
            for index, row in enumerate(rows)
        ]
        reply: dict[str, Any] = {"object": "list", "data": data, "model": name}
        if answer.tokens is not None:
            reply["usage"] = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
        return Reply(dumps(reply), headers=self._served.json_headers)

    def each(self, together: Together) -> Said | None:
        """None: calls differ in what they want, and in their tokens."""
        return None

    def _vector(self, row: Array) -> str | Array:
        return base64.b64encode(row.astype("<f4").tobytes()).decode() if self._form == "base64" else row
