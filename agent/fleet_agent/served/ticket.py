"""A request that is in the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet_agent.served.answer import Answer
from fleet_agent.served.served import ServedModel
from fleet_agent.values.payload import Payload
from fleet_wire.refusal import Refusal

if TYPE_CHECKING:
    from fleet_agent.tracing.traces import Trace


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the engine. `ended` is called once with what became of it, unless it is abandoned before."""

    id: int
    model: ServedModel
    payload: Payload
    count: int
    started: float
    wants_tokens: bool
    ended: Callable[[Answer | Refusal], None]
    timer: asyncio.TimerHandle | None = None
    trace: Trace | None = None
