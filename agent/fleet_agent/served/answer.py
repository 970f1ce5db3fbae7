"""What a model gave for a request."""

from __future__ import annotations

from dataclasses import dataclass

from fleet_agent.values.payload import Rows


@dataclass(slots=True)
class Answer:
    """A request's rows in the order of its instances. `tokens`: of the input, where asked for and known."""

    rows: Rows
    finite: bool
    tokens: int | None
