"""What a model gave for a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fleet_agent.values.payload import Rows
from fleet_agent.values.tensors import Array


@dataclass(slots=True)
class Together:
    """The output of a batch of requests with one instance each: row n is the nth one's answer. `made`: the replies, by
    how they are said, since they are made once for all of them."""

    array: Array
    made: dict[object, Any] = field(default_factory=dict)


class Answer:
    """A request's rows in the order of its instances. `tokens`: of the input, where asked for and known. `together`:
    the batch that it came in and `at` where in it, if that is all there is to say."""

    __slots__ = ("_rows", "at", "finite", "together", "tokens")

    def __init__(
        self,
        rows: Rows | None,
        finite: bool,
        tokens: int | None = None,
        together: Together | None = None,
        at: int = 0,
    ) -> None:
        """Without `rows`, there is `together`."""
        self._rows = rows
        self.finite = finite
        self.tokens = tokens
        self.together = together
        self.at = at

    @property
    def rows(self) -> Rows:
        if self._rows is None:
            assert self.together is not None
            self._rows = self.together.array[self.at : self.at + 1]
        return self._rows
