"""The workers: one process per device, started, loaded, watched, and started again when they end.

A worker that dies takes only what it was computing with it. A worker that hangs is killed: when a batch takes longer
than `hang_timeout_s` and ten times the 99th percentile of the model's batches, or when the process was stopped by a
signal and a batch waits for it. What it was computing is given back to the engine at once, not when it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from fleet_agent.batcher import Batch
from fleet_agent.gpu import MemoryReader
from fleet_agent.link import WorkerLink
from fleet_agent.served import ServedModel, Traits
from fleet_wire.agent import AgentConfig

log = logging.getLogger("fleet_agent.crew")

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 30.0
_HEALTHY_AFTER_S = 60.0  # a worker that lived that long starts the back-off anew
_LOAD_CRASHES = 3  # a model whose load kills the worker that often has failed
_WATCH_S = 0.5
_STOPPED_S = 1.0
_HANG_FACTOR = 10


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
        self.hangs = 0
        self.running: tuple[ServedModel, Batch] | None = None
        self.busy_s = 0.0
        self.busy_since: float | None = None
        self.memory: MemoryReader | None = None

    def busy(self, now: float) -> float:
        return self.busy_s + (0.0 if self.busy_since is None else now - self.busy_since)


class Crew:
    """`start` it; it calls `on_ready` when a device can compute, `on_ran` with a batch's outcome, `on_lost` with why a
    device's batch will have none."""

    def __init__(
        self,
        config: AgentConfig,
        models: dict[str, ServedModel],
        nvml: Any,
        on_ready: Callable[[], None],
        on_ran: Callable[[Slot, tuple[Any, ...]], None],
        on_lost: Callable[[Slot, str], None],
    ) -> None:
        """`nvml`: the pynvml module, or None where it isn't installed (device memory is unknown then)."""
        self.slots = [Slot(name.strip()) for name in config.device.split(",")]
        self.load_s: float | None = None
        self._config = config
        self._models = models
        self._nvml = nvml
        self._on_ready = on_ready
        self._on_ran = on_ran
        self._on_lost = on_lost
        self._started = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Start the workers; returns at once."""
        self._tasks = [asyncio.create_task(self._keep(slot)) for slot in self.slots]
        self._tasks.append(asyncio.create_task(self._watch()))

    async def stop(self) -> None:
        """End the workers and wait for them."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def device_fault(self) -> str | None:
        """Why a device can't be used at all, or None."""
        faults = [
            slot.error for slot in self.slots if slot.error is not None and slot.error.startswith("device ")
        ]
        return faults[0] if faults else None

    async def _keep(self, slot: Slot) -> None:
        """Keep a worker on the device, again and again, until cancelled."""
        backoff = _BACKOFF_FIRST_S
        while True:
            started = time.monotonic()
            link = WorkerLink(lambda message, slot=slot: self._hear(slot, message))  # type: ignore[misc]
            slot.link = link
            try:
                await link.start(
                    slot.name, self._config.threads or 0, self._config.device_memory_total_bytes or 0
                )
                await link.ended.wait()
            except OSError as error:
                link.fault = f"can't be started: {error}"
            finally:
                slot.ready = False
                ended = await asyncio.shield(link.reap())
                self._lost(slot, ended)
            if self.device_fault() is not None:
                return
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                backoff = _BACKOFF_FIRST_S
            await asyncio.sleep(backoff)
            backoff = min(_BACKOFF_MOST_S, backoff * 2)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            for slot in self.slots:
                if slot.running is not None and slot.busy_since is not None and slot.link is not None:
                    reason = self._hung(slot.running[0], slot.link, now - slot.busy_since)
                    if reason is not None:
                        slot.hangs += 1
                        self._kill(slot, slot.link, reason)

    def _hung(self, model: ServedModel, link: WorkerLink, seconds: float) -> str | None:
        p99_ms = model.counters.inference.quantile(0.99) or 0.0
        limit = max(self._config.hang_timeout_s, _HANG_FACTOR * p99_ms / 1000.0)
        if seconds > limit:
            return f"was killed, since a batch of model {model.config.name} took longer than {limit:.0f} s"
        if seconds > _STOPPED_S and link.is_stopped():
            return "was killed, since it had been stopped by a signal"
        return None

    def _kill(self, slot: Slot, link: WorkerLink, reason: str) -> None:
        """Its requests are answered now: a process that hangs in a driver may take long to die."""
        log.error("the worker of %s %s", slot.device, reason)
        link.fault = reason
        slot.ready = False
        slot.error = f"the worker of {slot.device} {reason}; it is being started again"
        link.kill()
        self._on_lost(slot, reason)

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
        self._on_lost(slot, ended)

    def _hear(self, slot: Slot, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "ran":
            self._on_ran(slot, message)
        elif kind == "hello":
            self._greeted(slot, message[1])
        elif kind == "loaded":
            traits = message[2]
            load_s = traits.pop("load_s")
            model = self._models[message[1]]
            model.traits = Traits(**traits)
            model.load_crashes = 0
            slot.loaded.add(message[1])
            log.info("model %s is loaded on %s in %.2f s", message[1], slot.device, load_s)
            self._load_next(slot)
        elif kind == "failed":
            self._models[message[1]].error = message[2]
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
        for name, model in self._models.items():
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
        self._on_ready()
