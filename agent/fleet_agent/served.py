"""The nouns of the engine: a request's ticket, its answer, a served model with its queue, counters and curve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet_agent.batcher import Batcher
from fleet_agent.cap import MemoryCap
from fleet_agent.curve import ServiceCurve
from fleet_agent.payload import Payload, Rows
from fleet_agent.tensors import TensorMetadata
from fleet_wire.agent import ModelConfig
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal


@dataclass(slots=True)
class Answer:
    """A request's rows in the order of its instances. `tokens`: of the input, where asked for and known."""

    rows: Rows
    finite: bool
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Traits:
    """What a worker found out about a model by loading it. `tensors`: it has no `preprocess` of its own."""

    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    embeddings: bool
    tensors: bool
    memory_bytes: int | None


@dataclass(slots=True)
class Counters:
    """Since the start. `completed` were answered; `errors` failed by our fault or too late (500, 503, 504)."""

    completed: int = 0
    errors: int = 0
    bad: int = 0  # 400 by the model or its preprocess
    overloaded: int = 0
    hopeless: int = 0  # refused at once: the queue needs longer than the request has
    expired: int = 0  # counted in errors too
    abandoned: int = 0  # the client went away
    batches: int = 0
    items: int = 0
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    inference: LatencyHistogram = field(default_factory=LatencyHistogram)  # of batches


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the engine. `ended` is called once with what became of it, unless it is abandoned before."""

    id: int
    model: ServedModel
    payload: Payload
    started: float
    wants_tokens: bool
    ended: Callable[[Answer | Refusal], None]
    timer: asyncio.TimerHandle | None = None


class ServedModel:
    """One model: its configuration, queue and counters, and what became of loading it."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        version_header = (b"x-fleet-model-version", config.version.encode("latin-1", "replace"))
        self.version_headers = (version_header,)
        self.json_headers = ((b"content-type", b"application/json"), version_header)
        self.curve = ServiceCurve()
        self.batcher: Batcher[Answer] = Batcher(
            config.max_batch_size,
            config.max_queue_delay_ms / 1000.0,
            config.max_queue_size,
            self.curve.seconds,
        )
        self.cap = MemoryCap(config.max_batch_size)
        self.counters = Counters()
        self.traits: Traits | None = None
        self.error: str | None = None
        self.load_crashes = 0
