"""The nouns of the engine: a request's ticket, its answer, a served model with its queue, counters and curve."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from fleet_agent.batcher import Batcher
from fleet_agent.cap import MemoryCap
from fleet_agent.curve import ServiceCurve
from fleet_agent.generate.figures import Figures
from fleet_agent.generate.generation import Generation
from fleet_agent.lengths import group_of
from fleet_agent.payload import Payload, Rows
from fleet_agent.tensors import DTYPES, TensorMetadata
from fleet_agent.versions import Stage
from fleet_agent.waits import Waits
from fleet_wire.agent import ModelConfig
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal

if TYPE_CHECKING:
    from fleet_agent.tracing import Trace


@dataclass(slots=True)
class Answer:
    """A request's rows in the order of its instances. `tokens`: of the input, where asked for and known."""

    rows: Rows
    finite: bool
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Traits:
    """What a worker found out about a model by loading it. `tensors`: it has no `preprocess` of its own.

    `predicts`: it computes batches. `max_tokens`: the most that an answer of a generator may have; None: it is none.
    `counts_prompt`: it says how many tokens a prompt has.
    `length_buckets`: see lengths.py; `varies`: instances may differ in shape, and not all can share a batch.
    `vector`: name and width (-1: any) of its one input, where that is a vector of FP32 numbers an instance.
    `bare`: name, datatype, shape and bytes of an instance, where its one input has a fixed shape.
    """

    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    embeddings: bool
    tensors: bool
    memory_bytes: int | None
    predicts: bool = True
    max_tokens: int | None = None
    counts_prompt: bool = False
    length_buckets: list[int] | None = None
    varies: bool = field(init=False, default=False)
    vector: tuple[str, int] | None = field(init=False, default=None)
    bare: tuple[str, str, tuple[int, ...], int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        open_ended = not self.inputs or any(-1 in tensor["shape"][1:] for tensor in self.inputs)
        object.__setattr__(self, "varies", self.length_buckets is not None or (self.tensors and open_ended))
        if len(self.inputs) != 1:
            return
        only = self.inputs[0]
        row = tuple(only["shape"][1:])
        if only["datatype"] in DTYPES and -1 not in row:
            width = prod(row) * DTYPES[only["datatype"]].itemsize
            object.__setattr__(self, "bare", (only["name"], only["datatype"], row, width) if width else None)
        if self.tensors and only["datatype"] in ("FP32", "BF16") and len(only["shape"]) == 2:
            object.__setattr__(self, "vector", (only["name"], only["shape"][1]))


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
    queue_wait: Waits = field(default_factory=Waits)  # until the first item is on its way
    sizes: dict[int, int] = field(default_factory=dict)  # batches by how many items were in them
    generated: Figures = field(default_factory=Figures)
    used_length: int = 0  # of instances of models with length buckets
    padding_length: int = 0  # what was added to them, to be as long as the longest in their batch
    unwanted: int = 0  # items computed for requests that were abandoned or had expired

    def turned_away(self, refusal: Refusal) -> None:
        """Counts a request that the queue didn't take."""
        if refusal.code == "overloaded":
            self.overloaded += 1
        elif refusal.code == "unavailable":
            self.hopeless += 1
        else:
            self.expired += 1
            self.errors += 1


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


class Ledger:
    """The counters of every version since the start, by name and version: one that is loaded again counts on."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, str], Counters] = {}
        self._loads = itertools.count(1)

    def entry(self, config: ModelConfig) -> ServedModel:
        """A model to be loaded."""
        counters = self.counters.setdefault((config.name, config.version), Counters())
        return ServedModel(config, f"{config.name}:{config.version}:{next(self._loads)}", counters)


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
        self.batcher: Batcher[Answer] = Batcher(
            config.max_batch_size,
            config.max_queue_delay_ms / 1000.0,
            config.max_queue_size,
            self.curve.seconds,
        )
        self.cap = MemoryCap(config.max_batch_size)
        self.generation = Generation(config, counters)
        self.counters = counters
        self.forms: dict[bytes, Any] = {}  # what tensorcall.py knows about heads of requests
        self.traits: Traits | None = None
        self.error: str | None = None
        self.load_crashes = 0

    def group_of(self, payload: Payload) -> Hashable:
        """Only requests with the same answer may share a batch; None: all may."""
        if self.traits is None or not self.traits.varies:
            return None
        return group_of(payload, self.traits.length_buckets)
