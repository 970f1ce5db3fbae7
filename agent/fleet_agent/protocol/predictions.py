"""V1's answers in JSON: {"predictions": [...]}, one value per instance; of named arrays an object each.

Source: KServe "V1 protocol".
"""

from __future__ import annotations

from typing import Any

from fleet_agent.http.call import Reply
from fleet_agent.protocol.asked import Said, dumps
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import ServedModel
from fleet_agent.values.payload import Rows
from fleet_agent.values.tensors import Array
from fleet_wire.refusal import Refusal


class Predictions:
    """How a model's answers are said."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    def reply(self, answer: Answer) -> Reply:
        """Raises Refusal `internal` for what JSON can't say."""
        if not answer.finite:
            raise Refusal(
                "internal",
                f"model {self._served.config.name} answered NaN or infinity, which JSON can't say",
            )
        return Reply(dumps({"predictions": _listed(answer.rows)}), headers=self._served.json_headers)

    def each(self, together: Together) -> Said | None:
        """None where a row isn't a number or a vector of numbers."""
        texts = _row_texts(together.array)
        return (
            Said([b'{"predictions":[%b]}' % text for text in texts], self._served.json_headers)
            if texts
            else None
        )


def _row_texts(array: Array) -> list[bytes]:
    """Each row as JSON; empty where a row isn't a number or a vector of numbers."""
    if array.dtype.kind not in "iuf" or array.ndim > 2 or not array.size:
        return []
    text = dumps(array)
    return text[1:-1].split(b",") if array.ndim == 1 else [b"[%b]" % row for row in text[2:-2].split(b"],[")]


def _listed(rows: Rows) -> Any:
    if isinstance(rows, dict):
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    return rows
