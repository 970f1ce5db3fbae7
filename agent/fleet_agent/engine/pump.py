"""When the free devices are given work: once everything that has come already is read, and when something falls due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from fleet_agent.crew.slot import Slot
from fleet_agent.served.served import ServedModel

_GATHER_S = 0.005  # for so long at most requests are read on while a device is free


class Pump:
    """`soon` whenever something has changed. `came` counts the requests so far, and is the caller's to keep."""

    def __init__(
        self,
        slots: Sequence[Slot],
        models: Sequence[ServedModel],
        feed: Callable[[Slot], None],
        recycle: Callable[[Slot], bool],
    ) -> None:
        """`feed` gives a free slot work, if there is any; `recycle` says that its worker is being replaced instead."""
        self.came = 0
        self._slots = slots
        self._models = models
        self._feed = feed
        self._recycle = recycle
        self._due = False
        self._seen = -1  # of those that came, when the sockets were last looked at
        self._since = 0.0
        self._wake: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Once everything that has come already is read, so that requests which arrive together share a batch."""
        if not self._due:
            self._due = True
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
            and not any(model.batcher.full for model in self._models)
        ):
            self._seen = self.came
            asyncio.get_running_loop().call_soon(self._gather)
        else:
            self.now()

    def now(self) -> None:
        """Give every free device work, if anything is ripe, and come back when something will be."""
        self._due = False
        free = False
        for slot in self._slots:
            if slot.free and not self._recycle(slot):
                self._feed(slot)
                free = free or slot.free
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if not free:
            return  # the next answer comes back here; deadlines have timers of their own
        wakes = [at for model in self._models if (at := model.batcher.wake_at()) is not None]
        if wakes:
            delay = max(0.001, min(wakes) - time.monotonic())
            self._wake = asyncio.get_running_loop().call_later(delay, self.now)
