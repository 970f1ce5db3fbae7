"""Gives a device its batches, and takes them back.

A free device gets what is first by turns, at once. A device that is busy with a short batch may be given the next ones
too, as far as they are full and short: then it needn't wait for the front between two of them, and where both share a
core they change places once for several batches instead of twice for each. It is never given so much that anybody
else waits noticeably longer for his turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from fleet_agent.crew.slot import Run, Slot
from fleet_agent.crossing.area import LANES, Area, Placed
from fleet_agent.engine.outcome import copied, outcomes
from fleet_agent.engine.stepper import Stepper
from fleet_agent.queue.batch import Batch, Finished
from fleet_agent.queue.turns import Turns
from fleet_agent.served.answer import Answer
from fleet_agent.served.served import ServedModel, Ticket
from fleet_agent.values import payload as payloads
from fleet_agent.values.lengths import lengths_of, padding
from fleet_agent.values.payload import Payload
from fleet_agent.values.tensors import Array
from fleet_wire.refusal import Refusal

log = logging.getLogger("fleet_agent.engine")

AHEAD_S = 0.004  # of batches on a device at most, beyond the one that it was free for


class Feeder:
    """`expire` gets requests that can't make it any more, `over` those that a batch has ended, with their outcomes."""

    def __init__(
        self,
        slots: Sequence[Slot],
        turns: Turns[ServedModel],
        stepper: Stepper,
        expire: Callable[[Ticket], None],
        over: Callable[[ServedModel, list[Finished[Ticket, Answer]], float], None],
    ) -> None:
        self._slots = slots
        self._turns = turns
        self._stepper = stepper
        self._expire = expire
        self._over = over

    def feed(self, slot: Slot) -> None:
        """Give a free device work, if there is any."""
        for model in self._turns.order():
            if model not in slot.loaded:
                continue
            if model.generation.busy and self._stepper.feed(slot, model):
                return
            if self._batch(slot, model):
                return

    def follow(self, slot: Slot) -> None:
        """Give a busy device what may follow at once."""
        while slot.running and self._may_follow(slot):
            if not self._batch(slot, slot.running[0].model):
                return

    def _may_follow(self, slot: Slot) -> bool:
        model = slot.running[0].model
        if not model.batcher.full or len(slot.running) >= LANES or slot.running[0].lane is None:
            return False
        if not slot.ready or slot.guard.due is not None or model not in slot.loaded:
            return False
        seconds = model.full_batch_s
        if seconds is None or seconds * len(slot.running) > AHEAD_S:
            return False
        return len(slot.loaded) == 1 or not any(
            other.batcher.waiting_items or other.generation.busy
            for other in slot.loaded
            if other is not model
        )

    def _batch(self, slot: Slot, model: ServedModel) -> bool:
        """Give it a batch of that model, if one is ripe."""
        now = time.monotonic()
        taken = model.batcher.take(now)
        for ticket in taken.expired:
            self._expire(ticket)
        if taken.batch is None:
            return False
        self._send(slot, model, taken.batch, now)
        return True

    def _send(self, slot: Slot, model: ServedModel, batch: Batch[Ticket], now: float) -> None:
        assert slot.link is not None
        assert slot.link.area is not None
        if slot.running:
            lane = None if slot.running[-1].lane is None else (slot.running[-1].lane + 1) % LANES
        else:
            slot.busy_since = now
            short = model.full_batch_s
            # What takes so little time has little to put there, too.
            lane = 0 if short is not None and short <= AHEAD_S else None
        slot.running.append(Run(model, batch, lane, followed=bool(slot.running)))
        parts: list[Payload] = []
        waits: list[float] = []
        tokens: list[bool] | None = None
        for part in batch.parts:
            ticket = part.request
            if not part.start:
                waits.append(now - ticket.started)
            whole = part.stop - part.start == ticket.count
            parts.append(ticket.payload if whole else payloads.cut(ticket.payload, part.start, part.stop))
            if ticket.wants_tokens and tokens is None:
                tokens = [each.request.wants_tokens for each in batch.parts]
            if ticket.trace is not None:
                ticket.trace.sent(batch.size)
        model.counters.sent(batch.size, waits)
        if model.traits is not None and model.traits.length_buckets is not None:
            used, added = padding([length for part in parts for length in lengths_of(part)])
            model.counters.used_length += used
            model.counters.padding_length += added
        sizes = None if batch.single else [part.stop - part.start for part in batch.parts]
        brought = _brought(slot.link.area, parts, lane)
        slot.link.send(("run", batch.id, model.key, brought, sizes, tokens, lane))

    def ran(self, slot: Slot, message: tuple[Any, ...]) -> None:
        """A batch came back. Raises ValueError for one that the device wasn't computing."""
        _, number, sent, placed, out_of_memory, seconds = message
        if not slot.running:
            return  # its worker was killed for taking too long, and this was on its way
        run = slot.running[0]
        model, batch = run.model, run.batch
        if batch.id != number or (sent is not None and len(sent) != len(batch.parts)):
            raise ValueError(f"batch {number} came back, which {slot.device} wasn't running")
        rows = None if placed is None else copied(slot, placed)
        now = time.monotonic()
        if out_of_memory is not None:
            model.cap.failed(out_of_memory, now)
            log.warning(
                "model %s: the memory of %s doesn't hold %d instances; batches have at most %d now",
                model.config.name,
                slot.device,
                out_of_memory,
                model.cap.size,
            )
        else:
            model.cap.fitted(batch.size, now)
            # Of several on the way, the front can't tell how long each took.
            alone = not run.followed and len(slot.running) == 1
            took = now - slot.busy_since if alone and slot.busy_since is not None else float(seconds)
            model.curve.observed(batch.size, took)
            model.counters.inference.record(took * 1000.0)
        model.batcher.max_batch_size = model.cap.size
        self._finish(slot, outcomes(model, batch, sent, rows), now)

    def lost(self, slot: Slot, ended: str) -> None:
        """The worker is gone, or will be: what it had won't be answered."""
        message = f"the worker {ended} while it computed this request; it may be sent again"
        refusal = Refusal("unavailable", message, 1.0)
        while slot.running:
            self._finish(slot, [refusal] * len(slot.running[0].batch.parts), time.monotonic())

    def busy_s(self, now: float) -> float:
        """How long until a device is free, by what its batches usually take."""
        return min((_left(slot, now) for slot in self._slots if slot.ready), default=0.0)

    def _finish(self, slot: Slot, results: Sequence[Answer | Refusal], now: float) -> None:
        run = slot.running.popleft()
        model, batch = run.model, run.batch
        if slot.busy_since is not None:
            self._turns.used(model, now - slot.busy_since)
        slot.busy_s = slot.busy(now)
        slot.busy_since = now if slot.running else None
        slot.guard.answered += len(batch.parts)
        over, unwanted = model.batcher.finish(batch, results, now)
        model.counters.unwanted += unwanted
        self._over(model, over, now)


def _brought(
    area: Area, parts: list[Payload], lane: int | None
) -> dict[str, Placed] | list[list[Any] | dict[str, Array]]:
    """What a batch brings: where it lies in the shared area now, or itself where it can't lie there."""
    area.enter(lane)
    together = payloads.packed(parts)
    if together is not None:
        layout, pieces = together
        where = area.pack(layout, pieces)
        if where is not None:
            return {layout.name: where}
    unpacked = [payloads.unpacked(part) for part in parts]
    columns = payloads.stackable(unpacked)
    if columns is None:
        return unpacked
    put = {name: area.put(column) for name, column in columns.items()}
    placed = {name: there[0] for name, there in put.items() if there is not None}
    return placed if len(placed) == len(put) else unpacked


def _left(slot: Slot, now: float) -> float:
    if not slot.running or slot.busy_since is None:
        return 0.0
    predicted = sum(run.model.curve.seconds(run.batch.size) or 0.0 for run in slot.running)
    return max(0.0, slot.busy_since + predicted - now)
