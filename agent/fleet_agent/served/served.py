"""One version of a model in the front, with its queue, curve and counters; and a request for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet_agent.generate.generation import Generation
from fleet_agent.queue.batcher import Batcher
from fleet_agent.queue.cap import MemoryCap
from fleet_agent.queue.curve import ServiceCurve
from fleet_agent.served.answer import Answer
from fleet_agent.served.counters import Counters
from fleet_agent.served.stage import Stage
from fleet_agent.served.traits import Traits
from fleet_agent.values.lengths import group_of
from fleet_agent.values.payload import Payload
from fleet_wire.agent import ModelConfig
from fleet_wire.refusal import Refusal

if TYPE_CHECKING:
    from fleet_agent.tracing.traces import Trace


class ServedModel:
    """One version of a model: its configuration, queue and counters, and what became of loading it.

    `key` is its name towards the workers, which no other load of the same version shares.
    """

    def __init__(self, config: ModelConfig, key: str, counters: Counters) -> None:
        self.config = config
        self.key = key
        self.stage: Stage = "coming"
        version_header = (b"x-fleet-model-version", config.version.encode("latin-1", "replace"))
        self.version_headers = (version_header,)
        self.json_headers = ((b"content-type", b"application/json"), version_header)
        self.curve = ServiceCurve()
        self.batcher: Batcher[Ticket, Answer] = Batcher(
            config.max_batch_size,
            config.max_queue_delay_ms / 1000.0,
            config.max_queue_size,
            self.curve.seconds,
        )
        self.cap = MemoryCap(config.max_batch_size)
        self.generation = Generation(config, counters)
        self.counters = counters
        self.forms: dict[bytes, Any] = {}  # what tensorcall.py knows about heads of requests
        self.sayings: dict[
            str | None, Any
        ] = {}  # how inference.py says answers, by content type (None: JSON)
        self.traits: Traits | None = None
        self.error: str | None = None
        self.load_crashes = 0

    @property
    def full_batch_s(self) -> float | None:
        """How long a full batch takes; None where that isn't known."""
        return self.curve.seconds(self.batcher.max_batch_size)

    def group_of(self, payload: Payload) -> Hashable:
        """Only requests with the same answer may share a batch; None: all may."""
        if self.traits is None or not self.traits.varies:
            return None
        return group_of(payload, self.traits.length_buckets)


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the engine. `ended` is called once with what became of it, unless it is abandoned before."""

    model: ServedModel
    payload: Payload
    count: int
    started: float
    wants_tokens: bool
    ended: Callable[[Answer | Refusal], None]
    timer: asyncio.TimerHandle | None = None
    trace: Trace | None = None
    over: bool = False
