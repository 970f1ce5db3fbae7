"""When the free devices are given work: once everything that has come already is read, and when something falls due."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from fleet_agent.crew.slot import Slot
from fleet_agent.crossing.area import LANES
from fleet_agent.engine.feeder import AHEAD_S, Feeder
from fleet_agent.served.served import ServedModel

_GATHER_S = 0.005  # for so long at most requests are read on while a device is free


class Pump:
    """`soon` whenever something has changed. `came` counts the requests so far, and is the caller's to keep; `due`: it
    will give out work in any case."""

    def __init__(
        self,
        slots: Sequence[Slot],
        models: Sequence[ServedModel],
        feeder: Feeder,
        recycle: Callable[[Slot], bool],
    ) -> None:
        """`recycle` says that a free slot's worker is being replaced, so that it gets no work."""
        self.came = 0
        self._slots = slots
        self._models = models
        self._feeder = feeder
        self._one_core = len(os.sched_getaffinity(0)) == 1
        self._recycle = recycle
        self.due = False
        self._seen = -1  # of those that came, when the sockets were last looked at
        self._since = 0.0
        self._wake: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Once everything that has come already is read, so that requests which arrive together share a batch."""
        if not self.due:
            self.due = True
            self._seen = -1
            self._since = time.monotonic()
            asyncio.get_running_loop().call_soon(self._gather)

    def _gather(self) -> None:
        """Give out work, unless this pass over the sockets brought requests and there is room for more: then look once
        more.

        It waits for nobody: a pass that brings nothing takes microseconds. Without it a front that shares its core
        with the worker sends a few requests at a time, and each batch costs a switch between the two and both caches.
        """
        if (
            self.came != self._seen
            and time.monotonic() - self._since < _GATHER_S
            and not any(model.batcher.full and self._suffices(model) for model in self._models)
        ):
            self._seen = self.came
            asyncio.get_running_loop().call_soon(self._gather)
        else:
            self.now()

    def _suffices(self, model: ServedModel) -> bool:
        """A full batch waits: whether to look no further.

        Where the workers compute on the very core that this runs on, nothing is gained by starting a short one early:
        what has come must be read anyway, and then it is read at one go, for several of them.
        """
        seconds = model.full_batch_s
        if seconds is not None and seconds > AHEAD_S:
            return True
        if not self._one_core or model.batcher.waiting_items >= model.batcher.max_batch_size * LANES:
            return True
        return any(slot.device != "cpu" for slot in self._slots)

    def now(self) -> None:
        """Give every free device work, if anything is ripe, and come back when something will be."""
        self.due = False
        free = False
        for slot in self._slots:
            if slot.free and not self._recycle(slot):
                self._feeder.feed(slot)
                free = free or slot.free
        for slot in self._slots:
            if slot.running:
                self._feeder.follow(slot)
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if not free:
            return  # the next answer comes back here; deadlines have timers of their own
        wakes = [at for model in self._models if (at := model.batcher.wake_at()) is not None]
        if wakes:
            delay = max(0.001, min(wakes) - time.monotonic())
            self._wake = asyncio.get_running_loop().call_later(delay, self.now)
