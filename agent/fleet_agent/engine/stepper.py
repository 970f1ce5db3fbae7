"""Steps of generating on the devices: what a free device is given, and what comes back. In the engine's event loop.

A step is a unit of work as a batch is: models take turns by the seconds that both took. Where one model has both to
do, they alternate.
"""

from __future__ import annotations

import time
from typing import Any

from fleet_agent.crew.slot import Slot
from fleet_agent.queue.turns import Turns
from fleet_agent.served.served import ServedModel


class Stepper:
    """`turns`: the engine's, which are told what a step took."""

    def __init__(self, turns: Turns[ServedModel]) -> None:
        self._turns = turns
        self._last: dict[str, bool] = {}  # by device: the last unit of a model with both was a step

    def feed(self, slot: Slot, model: ServedModel) -> bool:
        """Give the free device a step of the model, if there is one to do and it isn't a batch's turn."""
        if not model.generation.busy or self._gives_way(slot, model):
            return False
        taken = model.generation.take(slot.name, joining=slot.guard.due is None)
        if taken is None:
            return False
        step, (joins, runs, leaves) = taken
        assert slot.link is not None
        slot.stepping = (model, step)
        slot.busy_since = step.formed_at
        slot.link.send(("step", step.id, model.key, joins, runs, leaves))
        return True

    def stepped(self, slot: Slot, message: tuple[Any, ...]) -> None:
        """A step came back. Raises ValueError for one that the device wasn't doing."""
        _, number, outcomes, out_of_memory = message
        if slot.stepping is None:
            return  # its worker was killed for taking too long, and this was on its way
        model, step = slot.stepping
        if step.id != number:
            raise ValueError(f"step {number} came back, which {slot.device} wasn't doing")
        self._free(slot)
        slot.guard.answered += sum(outcome[0] != "said" for outcome in outcomes.values())
        model.generation.stepped(step, outcomes, out_of_memory)

    def lost(self, slot: Slot, models: list[ServedModel], ended: str) -> None:
        """The worker is gone, and every state that it had."""
        if slot.stepping is not None:
            self._free(slot)
        for model in models:
            model.generation.lost(slot.name, ended)

    def _free(self, slot: Slot) -> None:
        assert slot.stepping is not None
        model, _ = slot.stepping
        now = time.monotonic()
        if slot.busy_since is not None:
            self._turns.used(model, now - slot.busy_since)
        slot.busy_s = slot.busy(now)
        slot.busy_since = None
        slot.stepping = None

    def _gives_way(self, slot: Slot, model: ServedModel) -> bool:
        if not model.batcher.queued:
            return False
        ripe = model.batcher.wake_at()
        if ripe is None or ripe > time.monotonic():
            return False
        gives = self._last.get(slot.name, False)
        self._last[slot.name] = not gives
        return gives
