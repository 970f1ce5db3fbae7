"""What a worker sent back about a batch, as answers to its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fleet_agent.crew.slot import Slot
from fleet_agent.crossing.area import Placed
from fleet_agent.queue.batch import Batch
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import ServedModel, Ticket
from fleet_agent.values import payload as payloads
from fleet_agent.values.payload import Rows, count_of
from fleet_wire.refusal import Refusal


def copied(slot: Slot, placed: dict[str, Placed]) -> Rows:
    """The outputs out of the shared area, which the next batch overwrites. Raises ValueError."""
    assert slot.link is not None
    assert slot.link.area is not None
    arrays = {name: slot.link.area.get(place).copy() for name, place in placed.items()}
    return arrays[""] if set(arrays) == {""} else arrays


def outcomes(
    model: ServedModel, batch: Batch[Ticket], sent: Sequence[tuple[Any, ...]] | None, together: Rows | None
) -> list[Answer | Refusal]:
    """What the worker sent, checked: what comes out must be as many rows as went in."""
    if sent is None and batch.single and isinstance(together, np.ndarray) and len(together) == batch.size:
        whole = Together(together)
        return [Answer(None, True, None, whole, at) for at in range(batch.size)]
    sizes = [part.stop - part.start for part in batch.parts]
    if together is None:
        if sent is None:
            raise ValueError(f"a batch of model {model.config.name} came back without outputs")
        return [_outcome(model, size, outcome) for size, outcome in zip(sizes, sent, strict=True)]
    given = count_of(together)
    if given != batch.size:
        return [_miscounted(model, given, batch.size)] * len(sizes)
    pieces = payloads.split(together, sizes)
    if sent is None:
        return [Answer(rows, True, None) for rows in pieces]
    return [Answer(rows, finite, tokens) for rows, (_, _, finite, tokens) in zip(pieces, sent, strict=True)]


def _outcome(model: ServedModel, size: int, outcome: tuple[Any, ...]) -> Answer | Refusal:
    if outcome[0] == "refused":
        return Refusal(outcome[1], outcome[2], 1.0 if outcome[1] == "unavailable" else None)
    _, rows, finite, tokens = outcome
    given = count_of(rows)
    return Answer(rows, finite, tokens) if given == size else _miscounted(model, given, size)


def _miscounted(model: ServedModel, given: int, size: int) -> Refusal:
    return Refusal("internal", f"model {model.config.name} returned {given} outputs for {size} instances")


def joined(parts: Sequence[Answer]) -> Answer:
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Answer(
        payloads.rejoined([part.rows for part in parts]),
        all(part.finite for part in parts),
        sum(tokens) if len(tokens) == len(parts) else None,
    )
