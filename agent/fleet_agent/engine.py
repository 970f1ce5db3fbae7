"""Requests in, answers out: owns a batcher per model and a worker process per device.

A free device gets a batch at once if anything waits. A worker that dies takes only what it was computing with it:
those requests are refused as `unavailable` (safe to send again), the worker is started again with back-off, and
until the models are loaded again the engine is not ready.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet_agent import payload as payloads
from fleet_agent.batcher import Batch, Batcher, Finished
from fleet_agent.curve import ServiceCurve
from fleet_agent.gpu import MemoryReader, bounded, declared_memory
from fleet_agent.link import WorkerLink
from fleet_agent.payload import Payload, Rows, count_of
from fleet_agent.tensors import TensorMetadata
from fleet_wire.agent import AgentConfig, AgentState, AgentStatus, DeviceMemory, ModelConfig, ModelStatus
from fleet_wire.histogram import LatencyHistogram, merged
from fleet_wire.refusal import Refusal

log = logging.getLogger("fleet_agent.engine")

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 30.0
_HEALTHY_AFTER_S = 60.0  # a worker that lived that long starts the back-off anew
_LOAD_CRASHES = 3  # a model whose load kills the worker that often has failed


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's rows in the order of its instances. `tokens`: of the input, where asked for and known."""

    rows: Rows
    finite: bool
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Traits:
    """What a worker found out about a model by loading it."""

    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    embeddings: bool
    memory_bytes: int | None


@dataclass(slots=True)
class Counters:
    """Since the start. `completed` were answered; `errors` failed by our fault or too late (500, 503, 504)."""

    completed: int = 0
    errors: int = 0
    bad: int = 0  # 400 by the model or its preprocess
    overloaded: int = 0
    expired: int = 0  # counted in errors too
    abandoned: int = 0  # the client went away
    batches: int = 0
    items: int = 0
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the engine. `answer` gets an Answer or a Refusal; it is cancelled when the client is gone."""

    id: int
    model: ServedModel
    payload: Payload
    started: float
    wants_tokens: bool
    answer: asyncio.Future[Answer]
    timer: asyncio.TimerHandle | None = None


class ServedModel:
    """One model: its configuration, queue and counters, and what became of loading it."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.batcher: Batcher[Answer] = Batcher(
            config.max_batch_size, config.max_queue_delay_ms / 1000.0, config.max_queue_size
        )
        self.counters = Counters()
        self.curve = ServiceCurve()
        self.traits: Traits | None = None
        self.error: str | None = None
        self.load_crashes = 0


class Slot:
    """One device and the worker that has it at the moment."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = name
        self.link: WorkerLink | None = None
        self.loaded: set[str] = set()
        self.loading: ServedModel | None = None
        self.ready = False
        self.error: str | None = None
        self.restarts = 0
        self.running: tuple[ServedModel, Batch] | None = None
        self.busy_s = 0.0
        self.busy_since: float | None = None
        self.memory: MemoryReader | None = None

    def busy(self, now: float) -> float:
        return self.busy_s + (0.0 if self.busy_since is None else now - self.busy_since)


class Engine:
    """`start` it, `submit` requests, read `status`, `stop` it. All of it in one event loop."""

    def __init__(self, config: AgentConfig, nvml: Any = None) -> None:
        """`nvml`: the pynvml module, or None where it isn't installed (device memory is unknown then)."""
        self.config = config
        self.models = {model.name: ServedModel(model) for model in config.models}
        self.slots = [Slot(name.strip()) for name in config.device.split(",")]
        self.draining = False
        self.started_at = time.time()
        self.load_s: float | None = None
        self._started = time.monotonic()
        self._nvml = nvml
        self._ids = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._order = list(self.models)
        self._pump_due = False
        self._wake: asyncio.TimerHandle | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Start the workers; returns at once, see `state`."""
        self._keepers = [asyncio.create_task(self._keep(slot)) for slot in self.slots]

    async def stop(self) -> None:
        """Refuse what is still here as `unavailable`, end the workers and wait for them."""
        self._stopping = True
        for ticket in list(self._tickets.values()):
            self._refuse(ticket, Refusal("unavailable", "this server is stopping", 1.0))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    # Requests

    def submit(
        self, model: str, payload: Payload, deadline: float | None, wants_tokens: bool = False
    ) -> Ticket:
        """Queue a request; `deadline` is in time.monotonic() seconds. Raises Refusal."""
        served = self.served(model)
        now = time.monotonic()
        request = next(self._ids)
        try:
            served.batcher.add(request, count_of(payload), now, deadline)
        except Refusal as refusal:
            if refusal.code == "overloaded":
                served.counters.overloaded += 1
            else:
                served.counters.expired += 1
                served.counters.errors += 1
            raise
        loop = asyncio.get_running_loop()
        ticket = Ticket(request, served, payload, now, wants_tokens, loop.create_future())
        if deadline is not None:
            ticket.timer = loop.call_later(deadline - now, self._expire, ticket)
        self._tickets[request] = ticket
        self._pump_soon()
        return ticket

    def served(self, model: str) -> ServedModel:
        """The model, if it can take requests now. Raises Refusal `not_found` or `unavailable`."""
        served = self.known(model)
        if self.draining:
            raise Refusal("unavailable", "this server is draining and takes no new requests", 1.0)
        if served.error is not None:
            raise Refusal("unavailable", served.error, 30.0)
        if not any(slot.ready and model in slot.loaded for slot in self.slots):
            raise Refusal(
                "unavailable", f"model {model} is not ready: {self.reason() or 'it is loading'}", 1.0
            )
        return served

    def known(self, model: str) -> ServedModel:
        """Raises Refusal `not_found`, naming what there is."""
        served = self.models.get(model)
        if served is None:
            names = ", ".join(sorted(self.models)) or "none"
            raise Refusal("not_found", f"there is no model {model!r} here; this server has: {names}")
        return served

    def abandon(self, ticket: Ticket) -> None:
        """The client is gone: what waits leaves the queue, what runs is dropped when it returns."""
        if self._forget(ticket):
            ticket.model.counters.abandoned += 1
            ticket.answer.cancel()

    @property
    def idle(self) -> bool:
        return not self._tickets

    # What the agent says about itself

    def state(self) -> AgentState:
        if self.draining:
            return "draining"
        if any(model.error is not None for model in self.models.values()) or self._device_fault() is not None:
            return "failed"
        return "ready" if all(slot.ready for slot in self.slots) else "loading"

    def reason(self) -> str | None:
        """Why the agent isn't ready, or None."""
        if self.draining:
            return "draining"
        errors = [model.error for model in self.models.values() if model.error is not None]
        if errors:
            return "; ".join(errors)
        waiting = [slot for slot in self.slots if not slot.ready]
        if not waiting:
            return None
        slot = waiting[0]
        if slot.error is not None:
            return slot.error
        return (
            f"loading model {slot.loading.config.name}"
            if slot.loading
            else f"starting the worker of {slot.device}"
        )

    def model_ready(self, name: str) -> bool:
        return not self.draining and any(slot.ready and name in slot.loaded for slot in self.slots)

    def busy_s(self) -> float:
        """How long the devices ran batches since the start, the mean over devices."""
        now = time.monotonic()
        return sum(slot.busy(now) for slot in self.slots) / len(self.slots)

    def device_memory(self) -> DeviceMemory:
        """Of the first device; the sum where there are several and all are known."""
        bound = self.config.device_memory_total_bytes
        if not any(slot.memory for slot in self.slots):
            if any(slot.device.startswith("cuda") for slot in self.slots):
                return DeviceMemory(used_bytes=None, total_bytes=None)
            loaded = [m.config for m in self.models.values() if m.traits is not None]
            return declared_memory(loaded, bound)
        readings = [
            bounded(slot.memory.read(), bound) if slot.memory else DeviceMemory() for slot in self.slots
        ]
        used = [reading.used_bytes for reading in readings if reading.used_bytes is not None]
        total = [reading.total_bytes for reading in readings if reading.total_bytes is not None]
        return DeviceMemory(
            used_bytes=sum(used) if len(used) == len(readings) else None,
            total_bytes=sum(total) if len(total) == len(readings) else None,
        )

    def status(self, pid: int) -> AgentStatus:
        models = [
            ModelStatus(
                name=name,
                version=model.config.version,
                ready=self.model_ready(name),
                error=model.error,
                queued=model.batcher.queued,
                in_flight=model.batcher.in_flight,
                max_batch_size=model.config.max_batch_size,
                device_memory_bytes=None if model.traits is None else model.traits.memory_bytes,
                items=model.counters.items,
                completed=model.counters.completed,
                service_curve=model.curve.points(),
            )
            for name, model in self.models.items()
        ]
        counters = [model.counters for model in self.models.values()]
        return AgentStatus(
            fleet=self.config.fleet,
            host=self.config.host,
            action_id=self.config.action_id,
            release=self.config.release,
            pid=pid,
            started_at=self.started_at,
            at=time.time(),
            state=self.state(),
            error=self.reason() if self.state() in ("failed", "loading") else None,
            models=models,
            in_flight=sum(model.in_flight for model in models),
            queued=sum(model.queued for model in models),
            completed=sum(c.completed for c in counters),
            errors=sum(c.errors for c in counters),
            busy_s=self.busy_s(),
            load_s=self.load_s,
            latency=merged(c.latency for c in counters).to_wire(),
            device=",".join(slot.device for slot in self.slots),
            device_memory=self.device_memory(),
        )

    # Batches

    def _pump_soon(self) -> None:
        """After the callbacks that are due, so that requests which arrive together may share a batch."""
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Give every free device a batch, if anything is ripe, and come back when something will be."""
        self._pump_due = False
        for slot in self.slots:
            if slot.ready and slot.running is None:
                self._feed(slot)
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if all(slot.running is not None or not slot.ready for slot in self.slots):
            return  # the next answer pumps again; deadlines have timers of their own
        wakes = [at for model in self.models.values() if (at := model.batcher.wake_at()) is not None]
        if wakes:
            delay = max(0.001, min(wakes) - time.monotonic())
            self._wake = asyncio.get_running_loop().call_later(delay, self._pump)

    def _feed(self, slot: Slot) -> None:
        for name in self._turns():
            if name not in slot.loaded:
                continue
            model = self.models[name]
            now = time.monotonic()
            taken = model.batcher.take(now)
            for request in taken.expired:
                self._expire(self._tickets[request])
            if taken.batch is not None:
                self._send(slot, model, taken.batch, now)
                return

    def _turns(self) -> Iterator[str]:
        """Each model's name once; whoever got a batch last is asked last."""
        yield from list(self._order)

    def _send(self, slot: Slot, model: ServedModel, batch: Batch, now: float) -> None:
        assert slot.link is not None
        self._order.remove(model.config.name)
        self._order.append(model.config.name)
        slot.running = (model, batch)
        slot.busy_since = now
        parts = [
            payloads.cut(self._tickets[part.request].payload, part.start, part.stop) for part in batch.parts
        ]
        tokens = [self._tickets[part.request].wants_tokens for part in batch.parts]
        model.counters.batches += 1
        model.counters.items += batch.size
        slot.link.send(("run", batch.id, model.config.name, parts, tokens))

    def _ran(self, slot: Slot, number: int, outcomes: Sequence[tuple[Any, ...]]) -> None:
        """A batch came back."""
        if slot.running is None or slot.running[1].id != number:
            raise ValueError(f"batch {number} came back, which {slot.device} wasn't running")
        model, batch = slot.running
        results = [
            _outcome(model, part.size, outcome) for part, outcome in zip(batch.parts, outcomes, strict=True)
        ]
        self._finish(slot, results)
        self._pump()

    def _finish(self, slot: Slot, results: Sequence[Answer | Refusal]) -> None:
        assert slot.running is not None
        model, batch = slot.running
        now = time.monotonic()
        slot.busy_s = slot.busy(now)
        if slot.busy_since is not None and not all(isinstance(result, Refusal) for result in results):
            model.curve.observed(batch.size, now - slot.busy_since)
        slot.busy_since = None
        slot.running = None
        for finished in model.batcher.finish(batch, results, now):
            self._answer(self._tickets[finished.request], finished, now)

    def _answer(self, ticket: Ticket, finished: Finished[Answer], now: float) -> None:
        if isinstance(finished.outcome, Refusal):
            self._refuse(ticket, finished.outcome)
            return
        try:
            answer = _joined(finished.outcome)
        except ValueError as error:
            name = ticket.model.config.name
            self._refuse(
                ticket, Refusal("internal", f"model {name}'s outputs differ from batch to batch: {error}")
            )
            return
        self._forget(ticket)
        ticket.model.counters.completed += 1
        ticket.model.counters.latency.record((now - ticket.started) * 1000.0)
        if not ticket.answer.done():
            ticket.answer.set_result(answer)

    def _expire(self, ticket: Ticket) -> None:
        """The deadline came: a waiting request is never computed, a running one is answered without its result."""
        waited = (time.monotonic() - ticket.started) * 1000.0
        ticket.model.counters.expired += 1
        self._refuse(ticket, Refusal("deadline_exceeded", f"no answer within the request's {waited:.0f} ms"))

    def _refuse(self, ticket: Ticket, refusal: Refusal) -> None:
        self._forget(ticket)
        if refusal.status >= 500:
            ticket.model.counters.errors += 1
        else:
            ticket.model.counters.bad += 1
        if not ticket.answer.done():
            ticket.answer.set_exception(refusal)

    def _forget(self, ticket: Ticket) -> bool:
        if ticket.timer is not None:
            ticket.timer.cancel()
        ticket.model.batcher.cancel(ticket.id)
        return self._tickets.pop(ticket.id, None) is not None

    # Workers

    async def _keep(self, slot: Slot) -> None:
        """Keep a worker on the device, again and again, until cancelled."""
        backoff = _BACKOFF_FIRST_S
        while True:
            started = time.monotonic()
            link = WorkerLink(lambda message, slot=slot: self._hear(slot, message))  # type: ignore[misc]
            slot.link = link
            try:
                await link.start(
                    slot.name, self.config.threads or 0, self.config.device_memory_total_bytes or 0
                )
                await link.ended.wait()
            except OSError as error:
                link.fault = f"can't be started: {error}"
            finally:
                ended = await asyncio.shield(link.reap())
                self._lost(slot, ended)
            if self._device_fault() is not None:
                return
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                backoff = _BACKOFF_FIRST_S
            await asyncio.sleep(backoff)
            backoff = min(_BACKOFF_MOST_S, backoff * 2)

    def _lost(self, slot: Slot, ended: str) -> None:
        """The worker is gone: answer what it was computing, and say so."""
        if slot.memory is not None:
            slot.memory.stop()
            slot.memory = None
        slot.ready = False
        slot.loaded.clear()
        slot.link = None
        if self._stopping:
            return
        if slot.error is not None and slot.error.startswith("device "):
            log.error("%s", slot.error)
            return
        slot.restarts += 1
        slot.error = f"the worker of {slot.device} {ended}; it is being started again"
        if slot.loading is not None:
            model, slot.loading = slot.loading, None
            model.load_crashes += 1
            if model.load_crashes >= _LOAD_CRASHES and model.traits is None:
                model.error = (
                    f"model {model.config.name}: the worker {ended} while loading it, {_LOAD_CRASHES} times"
                )
        log.error("%s", slot.error)
        if slot.running is not None:
            message = f"the worker {ended} while it computed this request; it may be sent again"
            refusal = Refusal("unavailable", message, 1.0)
            self._finish(slot, [refusal for _ in slot.running[1].parts])

    def _device_fault(self) -> str | None:
        faults = [
            slot.error for slot in self.slots if slot.error is not None and slot.error.startswith("device ")
        ]
        return faults[0] if faults else None

    def _hear(self, slot: Slot, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "ran":
            self._ran(slot, message[1], message[2])
        elif kind == "hello":
            self._greeted(slot, message[1])
        elif kind == "loaded":
            traits = message[2]
            model = self.models[message[1]]
            model.traits = Traits(
                traits["inputs"], traits["outputs"], traits["embeddings"], traits["memory_bytes"]
            )
            model.load_crashes = 0
            slot.loaded.add(message[1])
            log.info("model %s is loaded on %s in %.2f s", message[1], slot.device, traits["load_s"])
            self._load_next(slot)
        elif kind == "failed":
            self.models[message[1]].error = message[2]
            log.error("%s", message[2])
            self._load_next(slot)

    def _greeted(self, slot: Slot, hello: dict[str, Any]) -> None:
        slot.device = hello["device"]
        if hello["error"] is not None:
            slot.error = hello["error"]
            return
        if hello["uuid"] is not None and self._nvml is not None:
            slot.memory = MemoryReader(hello["uuid"], self._nvml)
            slot.memory.start()
        self._load_next(slot)

    def _load_next(self, slot: Slot) -> None:
        """Load the next model on this worker, or be ready."""
        assert slot.link is not None
        for name, model in self.models.items():
            if name not in slot.loaded and model.error is None:
                slot.loading = model
                slot.link.send(("load", model.config.model_dump()))
                return
        slot.loading = None
        slot.error = None
        slot.ready = True
        if self.load_s is None and all(other.ready for other in self.slots):
            self.load_s = time.monotonic() - self._started
        log.info("%s serves %s", slot.device, ", ".join(sorted(slot.loaded)) or "no model")
        self._pump_soon()


def _outcome(model: ServedModel, size: int, outcome: tuple[Any, ...]) -> Answer | Refusal:
    """A part's outcome as the worker sent it, checked: what comes out must be as many rows as went in."""
    if outcome[0] == "refused":
        return Refusal(outcome[1], outcome[2])
    _, rows, finite, tokens = outcome
    given = count_of(rows)
    if given != size:
        return Refusal("internal", f"model {model.config.name} returned {given} outputs for {size} instances")
    return Answer(rows, finite, tokens)


def _joined(parts: Sequence[Answer]) -> Answer:
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Answer(
        payloads.rejoined([part.rows for part in parts]),
        all(part.finite for part in parts),
        sum(tokens) if len(tokens) == len(parts) else None,
    )
