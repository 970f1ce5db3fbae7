"""One batch through one model: what fails is found and fails alone, what is too large is computed in halves."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from fleet_agent.model.faults import InputFault, ModelFault, breaks, is_out_of_memory
from fleet_agent.model.loaded import LoadedModel, Result
from fleet_agent.values.payload import Payload, Rows, count_of, cut, is_finite, rejoined, split


class Attempt:
    """One batch through one model, in as few pieces as it takes: a bad request takes nobody with it, and what is too
    large for the device's memory is computed in halves.

    `smooth` first, then `outcomes` where that has no answer. Afterwards `whole` is the batch's output where every part
    is in it, `out_of_memory` the smallest number of items that didn't fit, `broken` why the device can't go on.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._first: Result | Exception | None = None
        self.whole: Rows | None = None
        self.out_of_memory: int | None = None
        self.broken: str | None = None

    def smooth(self, together: Payload) -> Rows | None:
        """Runs the batch; its output, where there is no more to say. None: ask `outcomes`, which goes on from here."""
        try:
            self._first = result = self._within_memory(together)
        except Exception as error:  # The user's code may raise anything; `outcomes` says what becomes of it.
            self._first = error
            return None
        return result.rows if result.finite else None

    def outcomes(
        self, together: Payload, sizes: Sequence[int], wants_tokens: Sequence[bool]
    ) -> list[tuple[Any, ...]]:
        """One outcome per part. Where the batch fails, its halves are tried, and theirs: one bad part among n costs
        about 2 log2(n) more runs."""
        outcomes = self._tried(together, sizes, wants_tokens)
        if outcomes is not None:
            return outcomes
        middle = len(sizes) // 2
        items = sum(sizes[:middle])
        first = self.outcomes(cut(together, 0, items), sizes[:middle], wants_tokens[:middle])
        rest = cut(together, items, sum(sizes))
        outcomes = first + self.outcomes(rest, sizes[middle:], wants_tokens[middle:])
        self.whole = None
        return outcomes

    def _tried(
        self, together: Payload, sizes: Sequence[int], wants_tokens: Sequence[bool]
    ) -> list[tuple[Any, ...]] | None:
        """None: it failed, and there is more than one part to blame."""
        if self.broken is not None:
            return [("refused", "unavailable", self.broken)] * len(sizes)
        try:
            result = self._again(together)
            self.whole = result.rows
            pieces = split(result.rows, sizes)
            tokens = self._tokens(together, sizes, wants_tokens)
            return [
                ("ok", rows, result.finite or is_finite(rows), count)
                for rows, count in zip(pieces, tokens, strict=True)
            ]
        except Exception as error:  # The user's code may raise anything; the request gets it, not the worker.
            if breaks(error):
                traceback.print_exception(error, file=sys.stderr)
                self.broken = f"the device failed on this batch ({error}); it may be sent again"
                return [("refused", "unavailable", self.broken)] * len(sizes)
            return [_refused(self._model.config.name, error)] if len(sizes) == 1 else None

    def _again(self, together: Payload) -> Result:
        """What `smooth` found, once; else a run."""
        first, self._first = self._first, None
        if isinstance(first, Exception):
            raise first
        return self._within_memory(together) if first is None else first

    def _tokens(
        self, together: Payload, sizes: Sequence[int], wants_tokens: Sequence[bool]
    ) -> list[int | None]:
        if not any(wants_tokens):
            return [None] * len(sizes)
        found: list[int | None] = []
        at = 0
        for size, wants in zip(sizes, wants_tokens, strict=True):
            found.append(self._model.tokens(cut(together, at, at + size)) if wants else None)
            at += size
        return found

    def _within_memory(self, payload: Payload) -> Result:
        """The batch at once, or in halves where the device's memory doesn't hold it. Raises what the model raises."""
        count = count_of(payload)
        try:
            return self._model.run(payload)
        except Exception as error:  # The user's code may raise anything.
            if count == 1 or not is_out_of_memory(error):
                raise
        # Outside of the except block, whose exception keeps the tensors of the failed run alive.
        self.out_of_memory = min(count, self.out_of_memory or count)
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        middle = count // 2
        halves = [
            self._within_memory(cut(payload, 0, middle)),
            self._within_memory(cut(payload, middle, count)),
        ]
        return Result(rejoined([half.rows for half in halves]), all(half.finite for half in halves))


def _refused(name: str, error: Exception) -> tuple[str, str, str]:
    if isinstance(error, InputFault):
        return ("refused", "bad_request", str(error))
    if isinstance(error, ModelFault):
        return ("refused", "internal", str(error))
    traceback.print_exception(error, file=sys.stderr)
    if is_out_of_memory(error):
        message = f"model {name}: the device's memory doesn't hold even one instance of this request: {error}"
        return ("refused", "internal", message)
    return ("refused", "internal", f"model {name} raised {type(error).__name__}: {error}")
