"""The workers: one process per device, started, loaded, watched, and started again when they end.

A worker that dies takes only what it was computing with it. A worker that hangs is killed: when a batch takes longer
than `hang_timeout_s` and ten times the 99th percentile of the model's batches, or when the process was stopped by a
signal and a batch waits for it. What it was computing is given back to the engine at once, not when it is gone.
A worker that leaks is replaced between two batches (leak.py). A device that has failed gets no worker any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from fleet_agent.crew.link import WorkerLink
from fleet_agent.crew.slot import Slot
from fleet_agent.device.watch import DeviceWatch
from fleet_agent.served.served import ServedModel
from fleet_agent.served.traits import Traits
from fleet_wire.agent import AgentConfig

log = logging.getLogger("fleet_agent.crew")

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 30.0
_HEALTHY_AFTER_S = 20.0  # a worker that lived that long starts the back-off anew
_LOAD_CRASHES = 3  # a model whose load kills the worker that often has failed
_WATCH_S = 0.5
_STOPPED_S = 1.0
_HANG_FACTOR = 10


class Crew:
    """`start` it; it calls `on_ready` when a device can compute, `on_ran` with a batch's outcome, `on_lost` with why a
    device's batch will have none, `on_stock` when what is loaded has changed, or a load has failed.

    It looks at which versions should be there (`everyone`, the caller's to keep), not at what was said last: a new
    worker gets what should be there then.
    """

    def __init__(
        self,
        config: AgentConfig,
        everyone: Sequence[ServedModel],
        nvml: Any,
        on_ready: Callable[[], None],
        on_ran: Callable[[Slot, tuple[Any, ...]], None],
        on_lost: Callable[[Slot, str], None],
        on_stock: Callable[[], None],
    ) -> None:
        """`nvml`: the pynvml module, or None where it isn't installed (device memory is unknown then)."""
        # Outside engines need no torch, and no worker that would hold some of the device's memory beside them.
        own = not config.models or any(model.runtime == "torch" for model in config.models)
        self.slots = [Slot(name.strip(), config.recycle) for name in config.device.split(",") if own]
        self.load_s: float | None = None
        self._config = config
        self._everyone = everyone
        self._nvml = nvml
        self._on_ready = on_ready
        self._on_ran = on_ran
        self._on_lost = on_lost
        self._on_stock = on_stock
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
        for slot in self.slots:
            if slot.watch is not None:
                slot.watch.stop()

    def device_fault(self) -> str | None:
        """Why a device can't be used at all, or None."""
        return next((slot.fault for slot in self.slots if slot.fault is not None), None)

    def recycle(self, slot: Slot) -> bool:
        """Replace the worker if it is time for it: nothing runs there. One at a time; the next one is started at once,
        and what is queued waits for it or goes to another device."""
        reason = slot.guard.due
        if reason is None or slot.link is None or slot.loading is not None:
            return False
        if any(other.recycling for other in self.slots):
            return False
        if any(model.generation.holds(slot.name) for model in slot.loaded):
            return False
        log.info("%s: the worker is replaced (%s: %r)", slot.device, reason, slot.guard)
        slot.recycles[reason] = slot.recycles.get(reason, 0) + 1
        slot.ready = slot.greeted = False
        slot.recycling = True
        slot.link.finish()
        return True

    def settle(self) -> None:
        """Which versions should be there has changed."""
        for slot in self.slots:
            self._settle(slot)

    def has(self, model: ServedModel) -> bool:
        """Whether it is loaded on every device that can be used."""
        usable = [slot for slot in self.slots if slot.fault is None]
        return bool(usable) and all(model in slot.loaded for slot in usable)

    def holds(self, model: ServedModel) -> bool:
        """Whether some of it may still be in a device's memory."""
        return any(
            model in slot.loaded or model.key in slot.unloading or slot.loading is model
            for slot in self.slots
        )

    def abort(self, model: ServedModel, reason: str) -> None:
        """Stop loading it. A worker that is at it has to go, since nothing else ends what the user's code does."""
        for slot in self.slots:
            if slot.loading is model and slot.link is not None:
                slot.loading = None
                self._kill(slot, slot.link, reason)

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
                on_purpose = self._lost(slot, ended)
            if slot.fault is not None:
                return
            if on_purpose:
                continue
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                backoff = _BACKOFF_FIRST_S
            await asyncio.sleep(backoff)
            backoff = min(_BACKOFF_MOST_S, backoff * 2)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            for slot in self.slots:
                verdict = None if slot.watch is None else slot.watch.verdict(now)
                if verdict is not None and verdict.state == "failed" and slot.fault is None:
                    self._condemn(slot, verdict.reason or f"device {slot.device} has failed")
                model = slot.model
                if model is not None and slot.busy_since is not None and slot.link is not None:
                    reason = self._hung(model, slot.link, now - slot.busy_since)
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
        slot.ready = slot.greeted = False
        slot.error = f"the worker of {slot.device} {reason}; it is being started again"
        link.kill()
        self._on_lost(slot, reason)

    def _condemn(self, slot: Slot, fault: str) -> None:
        """The device has failed: its worker ends, and no other is started there."""
        log.error("%s", fault)
        slot.fault = slot.error = fault
        slot.ready = slot.recycling = False
        if slot.link is not None:
            slot.link.fault = "was ended, since its device has failed"
            slot.link.kill()
        self._on_lost(slot, f"was ended: {fault}")

    def _lost(self, slot: Slot, ended: str) -> bool:
        """The worker is gone: answer what it was computing, and say so. True: it was to be replaced."""
        slot.ready = slot.greeted = False
        slot.loaded.clear()
        slot.unloading.clear()
        slot.link = None
        slot.resident = slot.reserved = None
        if self._stopping or slot.fault is not None:
            return False
        if slot.recycling and slot.guard.due is not None:
            slot.guard.restarted()
            slot.loading = None
            return True
        slot.recycling = False
        slot.guard.restarted()
        slot.restarts += 1
        slot.error = f"the worker of {slot.device} {ended}; it is being started again"
        if slot.loading is not None:
            model, slot.loading = slot.loading, None
            model.load_crashes += 1
            missing = model.traits is None or model.stage == "coming"
            if model.load_crashes >= _LOAD_CRASHES and missing and model.error is None:
                model.error = (
                    f"model {model.config.name}: the worker {ended} while loading it, {_LOAD_CRASHES} times"
                )
        log.error("%s", slot.error)
        self._on_lost(slot, ended)
        self._on_stock()
        return False

    def _hear(self, slot: Slot, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind in ("ran", "stepped"):
            self._on_ran(slot, message)
        elif kind == "memory":
            _, slot.resident, slot.reserved = message
            slot.guard.holds(slot.resident if slot.reserved is None else slot.reserved)
        elif kind == "hello":
            self._greeted(slot, message[1])
        elif kind == "loaded":
            self._loaded(slot, message[1], message[2])
        elif kind == "failed":
            log.error("%s", message[2])
            model, slot.loading = slot.loading, None
            if model is not None and model.key == message[1]:
                model.error = message[2]
            self._settle(slot)
            self._on_stock()
        elif kind == "unloaded":
            slot.unloading.discard(message[1])
            slot.guard.rebase()
            self._on_stock()

    def _loaded(self, slot: Slot, key: str, traits: dict[str, Any]) -> None:
        model, slot.loading = slot.loading, None
        if model is None or model.key != key:
            return  # it was given up, and its worker is being killed
        load_s = traits.pop("load_s")
        model.curve.seed(traits.pop("seeds"))
        too_large = traits.pop("out_of_memory")
        if too_large is not None:
            model.cap.failed(too_large, time.monotonic())
            model.batcher.max_batch_size = model.cap.size
            log.warning(
                "model %s: the memory of %s doesn't hold %d instances at warm-up; batches have at most %d",
                model.config.name,
                slot.device,
                too_large,
                model.cap.size,
            )
        model.traits = Traits(**traits)
        model.load_crashes = 0
        slot.loaded.add(model)
        slot.guard.rebase()
        name, version = model.config.name, model.config.version
        log.info("model %s is loaded on %s in %.2f s, version %s", name, slot.device, load_s, version)
        self._settle(slot)
        self._on_stock()

    def _greeted(self, slot: Slot, hello: dict[str, Any]) -> None:
        slot.device = hello["device"]
        if hello["error"] is not None:
            slot.fault = slot.error = hello["error"]
            slot.recycling = False
            log.error("%s", slot.fault)
            self._on_lost(slot, slot.fault)
            return
        if hello["uuid"] is not None:
            slot.name = hello["device"]  # "auto" was this GPU: the next worker must not make do with the CPU
            if self._nvml is not None and slot.watch is None:
                slot.watch = DeviceWatch(slot.device, hello["uuid"], hello["index"], self._nvml)
                slot.watch.start()
        slot.greeted = True
        self._settle(slot)

    def _settle(self, slot: Slot) -> None:
        """Unload what should not be on this worker, load the next that should; ready once all that answer are there.

        What is coming is loaded last, beside the others.
        """
        if slot.link is None or not slot.greeted:
            return
        for model in [model for model in slot.loaded if model.stage == "gone"]:
            slot.loaded.discard(model)
            slot.unloading.add(model.key)
            slot.link.send(("unload", model.key))
        if slot.loading is not None:
            return
        missing = [m for m in self._everyone if m not in slot.loaded and m.error is None]
        missing.sort(key=lambda model: model.stage == "coming")
        if not slot.ready and all(model.stage == "coming" for model in missing):
            self._be_ready(slot)
        if missing:
            slot.loading = missing[0]
            slot.link.send(("load", missing[0].key, missing[0].config.model_dump(), slot.ready))

    def _be_ready(self, slot: Slot) -> None:
        slot.error = None
        slot.recycling = False
        slot.ready = True
        if self.load_s is None and all(other.ready for other in self.slots):
            self.load_s = time.monotonic() - self._started
        names = sorted(model.config.name for model in slot.loaded)
        log.info("%s serves %s", slot.device, ", ".join(names) or "no model")
        self._on_ready()
