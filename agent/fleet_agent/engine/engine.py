"""Requests in, answers out: owns a batcher per model and a crew of workers, one per device.

A free device gets a batch at once if anything waits. What a worker was computing when it ended is refused as
`unavailable` (safe to send again); what waits is computed by the next worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fleet_agent.crew.crew import Crew
from fleet_agent.crew.slot import Slot
from fleet_agent.engine.condition import Condition
from fleet_agent.engine.feeder import Feeder
from fleet_agent.engine.outcome import joined
from fleet_agent.engine.pump import Pump
from fleet_agent.engine.stepper import Stepper
from fleet_agent.generate.sequence import Sequence as Generated
from fleet_agent.generate.sequence import Wish
from fleet_agent.outside.engines import OutsideEngines
from fleet_agent.queue.batch import Finished
from fleet_agent.queue.turns import Turns
from fleet_agent.served.answer import Answer
from fleet_agent.served.ledger import Ledger
from fleet_agent.served.served import ServedModel, Ticket
from fleet_agent.values.payload import Payload, count_of
from fleet_agent.versions.repository import Repository
from fleet_agent.versions.versions import Versions
from fleet_wire.agent import AgentConfig
from fleet_wire.refusal import Refusal

if TYPE_CHECKING:
    from fleet_agent.tracing.traces import Trace, Traces

log = logging.getLogger("fleet_agent.engine")


class Engine:
    """`start` it, `submit` requests, read `status`, `stop` it. All of it in one event loop."""

    def __init__(self, config: AgentConfig, nvml: Any = None) -> None:
        """`nvml`: the pynvml module, or None where it isn't installed (device memory is unknown then)."""
        self.config = config
        self.ledger = Ledger()
        own = [model for model in config.models if model.runtime == "torch"]
        self.versions = Versions(self.ledger.entry(model) for model in own)
        self.outside = OutsideEngines(config, nvml)
        self.models = self.versions.current
        self.everyone = self.versions.everyone
        self.draining = False
        self.started_at = time.time()
        self._crew = Crew(
            config, self.everyone, nvml, self._pump_soon, self._ran, self._lost, self._restocked
        )
        self.slots = self._crew.slots
        self.condition = Condition(config, self.versions, self._crew, self.outside, lambda: self.draining)
        self._turns = Turns(self.everyone)
        self._stepper = Stepper(self._turns)
        self.repository = Repository(
            self.versions,
            self.ledger,
            self._turns,
            self._crew,
            self.outside,
            self.condition.memory,
            lambda: self.draining,
        )
        self._feeder = Feeder(self.slots, self._turns, self._stepper, self._expire, self._over)
        self._pump = Pump(self.slots, self.everyone, self._feeder, self._crew.recycle)
        self._stopping = False
        self.traces: Traces | None = None  # set before `start` where they are wanted

    def start(self) -> None:
        """Start the workers; returns at once, see `state`."""
        self._crew.start()
        self.outside.start()

    async def stop(self) -> None:
        """Refuse what is still here as `unavailable`, end the workers and wait for them."""
        self._stopping = True
        for model in self.everyone:
            self._empty(model, Refusal("unavailable", "this server is stopping", 1.0))
        await self.repository.stop()
        await asyncio.gather(self._crew.stop(), self.outside.stop())

    # Requests

    def submit(
        self,
        served: ServedModel,
        payload: Payload,
        ended: Callable[[Answer | Refusal], None],
        deadline: float | None = None,
        priority: int = 0,
        wants_tokens: bool = False,
        trace: Trace | None = None,
    ) -> Ticket:
        """Queue a request; `deadline` is in time.monotonic() seconds. `ended` is called once, later, unless the ticket
        is abandoned. Raises Refusal."""
        now = time.monotonic()
        count = count_of(payload)
        ticket = Ticket(served, payload, count, now, wants_tokens, ended)
        try:
            busy_s = 0.0 if deadline is None else self._feeder.busy_s(now)
            served.batcher.add(ticket, count, now, deadline, priority, busy_s, served.group_of(payload))
        except Refusal as refusal:
            served.counters.turned_away(refusal)
            if trace is not None:
                trace.ended(refusal)
            raise
        if trace is not None:
            ticket.trace = trace
        if deadline is not None:
            loop = asyncio.get_running_loop()
            ticket.timer = loop.call_later(deadline - now, self._expire, ticket)
        self._pump.came += 1
        if not self._pump.due:
            self._pump.soon()
        return ticket

    def generate(
        self,
        served: ServedModel,
        wish: Wish,
        deadline: float | None = None,
        priority: int = 0,
        trace: Trace | None = None,
    ) -> Generated:
        """Queue a sequence, which the caller reads or gives to the model's `generation.abandon`. Raises Refusal."""
        return served.generation.submit(wish, self._pump_soon, deadline, priority, trace)

    def served(self, model: str, version: str | None = None) -> ServedModel:
        """The model, if it can take requests now. Raises Refusal `not_found` or `unavailable`."""
        served = self.models.get(model) if version is None else None
        if served is None:
            served = self.known(model, version)
        if self.draining:
            raise Refusal("unavailable", "this server is draining and takes no new requests", 1.0)
        if served.error is not None:
            raise Refusal("unavailable", served.error, 30.0)
        for slot in self.slots:
            if slot.serves(served):
                return served
        raise Refusal(
            "unavailable", f"model {model} is not ready: {self.condition.reason() or 'it is loading'}", 1.0
        )

    def known(self, model: str, version: str | None = None) -> ServedModel:
        """Who answers to the name, or that version of it. Raises Refusal `not_found`, naming what there is, or
        `unavailable` for what is to come."""
        served = self.models.get(model)
        if version is not None and (served is None or version != served.config.version):
            return self.repository.version(model, version)
        if served is None:
            absent = self.repository.absent(model)
            if absent is not None:
                raise absent
            names = ", ".join(sorted((*self.models, *self.outside))) or "none"
            raise Refusal("not_found", f"there is no model {model!r} here; this server has: {names}")
        return served

    def abandon(self, ticket: Ticket) -> None:
        """The client is gone: what waits leaves the queue, what runs is dropped when it returns."""
        if self._forget(ticket):
            ticket.model.counters.abandoned += 1
            if ticket.trace is not None:
                ticket.trace.abandoned()

    @property
    def idle(self) -> bool:
        return not any(m.batcher.queued or m.batcher.in_flight or m.generation.busy for m in self.everyone)

    # Batches

    def _pump_soon(self) -> None:
        self._pump.soon()

    def _ran(self, slot: Slot, message: tuple[Any, ...]) -> None:
        """A batch came back, or a step."""
        if message[0] == "stepped":
            self._stepper.stepped(slot, message)
            self._pump.now()  # at once: what was said is sent on while the next step is computed
            return
        self._feeder.ran(slot, message)
        self._pump.soon()

    def _lost(self, slot: Slot, ended: str) -> None:
        """The worker that had a batch has ended, or will."""
        self._stepper.lost(slot, self.everyone, ended)
        self._feeder.lost(slot, ended)
        if all(other.fault is not None for other in self.slots):
            for model in self.everyone:
                self._empty(model, Refusal("unavailable", self.condition.reason() or ended, 30.0))

    def _restocked(self) -> None:
        """What is loaded has changed. Nobody waits for a model that can't be loaded (again)."""
        for model in self.everyone:
            if model.error is not None:
                self._empty(model, Refusal("unavailable", model.error, 30.0))

    def _empty(self, model: ServedModel, refusal: Refusal) -> None:
        """Refuse whatever asks for it."""
        for ticket in model.batcher.requests:
            self._refuse(ticket, refusal)
        model.generation.stop(refusal)

    def _over(self, model: ServedModel, finished: list[Finished[Ticket, Answer]], now: float) -> None:
        """Requests that a batch has brought to their end."""
        latencies: list[float] = []
        for ticket, outcome in finished:
            if isinstance(outcome, Refusal):
                self._refuse(ticket, outcome)
                continue
            answer = outcome[0] if len(outcome) == 1 else self._joined(ticket, outcome)
            if answer is None:
                continue
            ticket.over = True
            if ticket.timer is not None:
                ticket.timer.cancel()
            latencies.append((now - ticket.started) * 1000.0)
            if ticket.trace is not None:
                ticket.trace.ended(None)
            ticket.ended(answer)
        model.counters.completed += len(latencies)
        model.counters.latency.record_all(latencies)

    def _joined(self, ticket: Ticket, parts: list[Answer]) -> Answer | None:
        """The answer to a request that was cut; None: it has been refused, since they don't go together."""
        try:
            return joined(parts)
        except ValueError as error:
            name = ticket.model.config.name
            message = f"model {name}'s outputs differ from batch to batch: {error}"
            self._refuse(ticket, Refusal("internal", message))
            return None

    def _expire(self, ticket: Ticket) -> None:
        """The deadline came: a waiting request is never computed, a running one is answered without its result."""
        waited = (time.monotonic() - ticket.started) * 1000.0
        ticket.model.counters.expired += 1
        self._refuse(ticket, Refusal("deadline_exceeded", f"no answer within the request's {waited:.0f} ms"))

    def _refuse(self, ticket: Ticket, refusal: Refusal) -> None:
        if not self._forget(ticket):
            return
        if refusal.status >= 500:
            ticket.model.counters.errors += 1
        else:
            ticket.model.counters.bad += 1
        if ticket.trace is not None:
            ticket.trace.ended(refusal)
        ticket.ended(refusal)

    def _forget(self, ticket: Ticket) -> bool:
        """False: it has its answer."""
        if ticket.over:
            return False
        ticket.over = True
        if ticket.timer is not None:
            ticket.timer.cancel()
        ticket.model.batcher.cancel(ticket)
        return True
