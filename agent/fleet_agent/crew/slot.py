"""One device as the front knows it: its worker, what is loaded there, and what it computes."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from fleet_agent.crew.leak import LeakGuard
from fleet_agent.crew.link import WorkerLink
from fleet_agent.device.memory import bounded
from fleet_agent.device.watch import DeviceWatch
from fleet_agent.generate.scheduler import Step
from fleet_agent.queue.batch import Batch
from fleet_agent.served.served import ServedModel, Ticket
from fleet_wire.agent import DeviceMemory, RecycleConfig


@dataclass(frozen=True, slots=True)
class Run:
    """A batch that the worker has. `lane`: of the area that they share, None: all of it. `followed`: it was given while
    the one before it was still computed."""

    model: ServedModel
    batch: Batch[Ticket]
    lane: int | None
    followed: bool


class Slot:
    """One device and the worker that has it at the moment."""

    def __init__(self, name: str, recycle: RecycleConfig) -> None:
        self.name = name
        self.device = name
        self.link: WorkerLink | None = None
        self.greeted = False  # the worker has the device and can be told what to load
        self.loaded: set[ServedModel] = set()
        self.loading: ServedModel | None = None
        self.unloading: set[str] = set()  # keys
        self.ready = False
        self.error: str | None = None
        self.fault: str | None = None  # why the device can't be used at all
        self.recycling = False  # the worker was ended on purpose, and the next one isn't ready yet
        self.recycles: dict[str, int] = {}  # by reason
        self.guard = LeakGuard(recycle)
        self.resident: int | None = None  # bytes of the worker process
        self.reserved: int | None = None  # bytes that its torch has reserved on the GPU
        self.restarts = 0
        self.hangs = 0
        self.running: deque[Run] = (
            deque()
        )  # in the order in which they come back; more than one where they are short
        self.stepping: tuple[ServedModel, Step] | None = None  # a step instead of a batch
        self.busy_s = 0.0
        self.busy_since: float | None = None
        self.watch: DeviceWatch | None = None

    @property
    def free(self) -> bool:
        """It can be given a batch or a step."""
        return self.ready and not self.running and self.stepping is None

    @property
    def model(self) -> ServedModel | None:
        """Whose batch or step is computed."""
        if self.running:
            return self.running[0].model
        return None if self.stepping is None else self.stepping[0]

    @property
    def takes(self) -> bool:
        """Requests for it may queue: it is ready, or will be at once."""
        return self.ready or self.recycling

    def serves(self, model: ServedModel) -> bool:
        """Requests for that model may queue here."""
        return (self.ready and model in self.loaded) or self.recycling

    def device_memory(self, bound: int | None) -> DeviceMemory:
        """Of the device, with the configured bound on the total; all None where it can't be known."""
        reading = None if self.watch is None else self.watch.reading(time.monotonic())
        return DeviceMemory() if reading is None else bounded(reading.memory, bound)

    def busy(self, now: float) -> float:
        return self.busy_s + (0.0 if self.busy_since is None else now - self.busy_since)
