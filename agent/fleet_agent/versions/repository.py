"""Loads, swaps and unloads models while others answer.

A version that is loaded for a name which has one already comes beside it: it is loaded and warmed on every device, then
answers in one step, and the old one is unloaded when its last request is done. What can't be is told before anything is
touched; a load that fails leaves the old version as it was. One change at a time per name: the same asked again waits
for the one under way, another is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container

from fleet_agent.crew.crew import Crew
from fleet_agent.queue.turns import Turns
from fleet_agent.served.ledger import Ledger
from fleet_agent.served.served import ServedModel
from fleet_agent.versions.change import Load, Result, Unload
from fleet_agent.versions.room import lacking
from fleet_agent.versions.versions import Versions
from fleet_wire.agent import DeviceMemory
from fleet_wire.refusal import Refusal

log = logging.getLogger("fleet_agent.repository")

# How often a change under way looks whether it can go on.
_LOOK_S = 0.02
# A reading of the device's memory may be older than what was unloaded just now.
_FRESH_S = 2.5


class Repository:
    """`elsewhere`: names that aren't served by the workers. `memory()`: of each device, by its name."""

    def __init__(
        self,
        versions: Versions[ServedModel],
        ledger: Ledger,
        turns: Turns[ServedModel],
        crew: Crew,
        elsewhere: Container[str],
        memory: Callable[[], dict[str, DeviceMemory]],
        draining: Callable[[], bool],
    ) -> None:
        self._versions = versions
        self._ledger = ledger
        self._turns = turns
        self._crew = crew
        self._elsewhere = elsewhere
        self._memory = memory
        self._draining = draining
        self._changes: dict[str, tuple[Load | Unload, asyncio.Task[Result]]] = {}
        self._retiring: dict[ServedModel, asyncio.Task[None]] = {}
        self._given_back = -math.inf  # when, on time.monotonic()
        self._needs: dict[ServedModel, int] = {}  # bytes that loads under way will take
        self.failed: dict[str, ServedModel] = {}  # by name, until a load of that name works

    async def load(self, wanted: Load) -> Result:
        """Returns when it answers. Raises Refusal: why it can't, with everything as it was."""
        return await self._change(wanted.config.name, wanted)

    async def unload(self, wanted: Unload) -> Result:
        """Returns when its memory is given back. Raises Refusal."""
        return await self._change(wanted.name, wanted)

    async def stop(self) -> None:
        tasks = [task for _, task in self._changes.values()] + list(self._retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def changing(self, name: str) -> str | None:
        """What is being done to that name, in words."""
        change = self._changes.get(name)
        return None if change is None else str(change[0])

    def version(self, name: str, version: str) -> ServedModel:
        """Who takes requests for that version. Raises Refusal `not_found`, or `unavailable` for what is to come."""
        found = self._versions.named(name, version)
        if found is not None:
            return found
        for model in self._versions.of(name):
            if model.stage == "coming" and model.config.version == version:
                raise Refusal("unavailable", f"model {name}: version {version} is being loaded", 1.0)
        here = [m.config.version for m in self._versions.of(name) if m.stage in ("answering", "kept")]
        there = f"has version {' and '.join(here)} here" if here else "is not here"
        raise Refusal(
            "not_found", f"model {name} {there}, not {version}" if here else f"model {name} {there}"
        )

    def absent(self, name: str) -> Refusal | None:
        """Why nobody answers to a name that is known; None: it isn't."""
        change = self._changes.get(name)
        if change is not None and isinstance(change[0], Load):
            return Refusal("unavailable", f"model {name}: {change[0]}", 1.0)
        if name in self.failed:
            return Refusal("not_found", f"model {name} could not be loaded: {self.failed[name].error}")
        if name in self._versions.configs:
            return Refusal("not_found", f"model {name} was unloaded; POST /admin/models loads it again")
        return None

    async def _change(self, name: str, wanted: Load | Unload) -> Result:
        if name in self._elsewhere or (isinstance(wanted, Load) and wanted.config.runtime != "torch"):
            message = f"model {name} is an outside engine, which lives as long as this agent"
            raise Refusal("conflict", f"{message}; change it in the configuration and start the agent anew")
        if not self._crew.slots:
            raise Refusal(
                "conflict", "this agent serves outside engines alone and has no worker to load models"
            )
        change = self._changes.get(name)
        if change is not None and change[0] != wanted:
            message = f"model {name}: {change[0]}; send this again when that is done (GET /admin/models)"
            raise Refusal("conflict", message, 1.0)
        if change is None:
            work = self._load(wanted) if isinstance(wanted, Load) else self._unload(wanted)
            task = asyncio.create_task(work)
            change = self._changes[name] = (wanted, task)
            task.add_done_callback(lambda done: self._done(name, done))
        # Who asked may leave; what was begun is brought to its end.
        return await asyncio.shield(change[1])

    def _done(self, name: str, task: asyncio.Task[Result]) -> None:
        del self._changes[name]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("%s", error)

    async def _load(self, wanted: Load) -> Result:
        name, version = wanted.config.name, wanted.config.version
        end = time.monotonic() + wanted.timeout_s
        before = self._versions.current.get(name)
        if (
            before is not None
            and before.config == wanted.config
            and before.error is None
            and not wanted.again
        ):
            await self._arrival(before, end)
            return "unchanged"
        other = self._versions.named(name, version)
        if other is not None and other is not before:
            if other.config != wanted.config:
                message = f"model {name}: version {version} is here already with another configuration"
                raise Refusal("conflict", f"{message}; unload it first, or give this one another version")
            await self._arrival(other, end)
            return self._switch(other, wanted.old == "keep")
        if before is not None and wanted.old == "keep" and before.config.version == version:
            message = f"model {name}: the old and the new one are both version {version}"
            raise Refusal("bad_request", f"{message}; to keep the old one give them different versions")
        apart = before if wanted.old == "unload-first" else None
        new = self._ledger.entry(wanted.config)
        await self._check_room(new, before, apart, end)
        try:
            if apart is not None:
                await self._stand_aside(apart, end)
            self._versions.come(new)
            self._crew.settle()
            await self._arrival(new, end)
        except Refusal as refusal:
            said = self._give_up(new, apart)
            raise Refusal(refusal.code, refusal.message + said, refusal.retry_after_s) from None
        finally:
            self._needs.pop(new, None)
        result = self._switch(new, wanted.old == "keep")
        return result if apart is None else "switched"

    async def _check_room(
        self, new: ServedModel, before: ServedModel | None, apart: ServedModel | None, end: float
    ) -> None:
        """Raises Refusal if the devices don't hold the new one beside the others, without `apart`."""
        need = _held(before) if (own := _held(new)) is None else own
        if need is None:
            return
        freed = _held(apart) or 0
        while lack := lacking(need, self._memory(), freed, sum(self._needs.values())):
            if time.monotonic() > min(self._given_back + _FRESH_S, end):
                said = f"model {new.config.name}: version {new.config.version} {lack}"
                if before is not None and apart is None:
                    said += '; unload something, or send "old": "unload-first" (503 meanwhile)'
                raise Refusal("conflict", said)
            await asyncio.sleep(_LOOK_S)
        self._needs[new] = need

    async def _stand_aside(self, apart: ServedModel, end: float) -> None:
        """Unload what makes room for its successor. Raises Refusal if it isn't empty in time."""
        self._retire(apart)
        if not await self._until(lambda: apart.stage == "gone" and not self._crew.holds(apart), end):
            said = f"version {apart.config.version} still had requests when the time was over"
            raise Refusal("deadline_exceeded", f"model {apart.config.name}: {said}")

    async def _arrival(self, model: ServedModel, end: float) -> None:
        """Returns when every device has it. Raises Refusal."""
        await self._until(lambda: self._crew.has(model) or model.error is not None or self._draining(), end)
        if self._draining():
            raise Refusal("unavailable", "this server is draining and changes no models any more", 1.0)
        if model.error is None and not self._crew.has(model):
            name = f"model {model.config.name}: version {model.config.version}"
            if model.stage == "coming":
                model.error = f"{name} was not loaded when the time was over"
                self._crew.abort(model, f"was ended, since it was still loading {model.config.name}")
            raise Refusal("deadline_exceeded", f"{name} was not loaded when the time was over")
        if model.error is not None:
            # What the model says of itself is the caller's to mend; that it takes the worker down is worse.
            raise Refusal("internal" if model.load_crashes else "bad_request", model.error)

    def _give_up(self, new: ServedModel, apart: ServedModel | None) -> str:
        """A load has failed: take back what was begun. Answers who serves now, in words."""
        name = new.config.name
        new.error = new.error or "it was not loaded"
        self.failed[name] = new
        self._versions.drop(new)
        if apart is not None and self._versions.current.get(name) is not apart:
            if (task := self._retiring.pop(apart, None)) is not None:
                task.cancel()
            if apart.stage == "gone":
                self._versions.come(apart)
            self._versions.answer(apart)
            self._turns.join(apart)
        self._crew.settle()
        answers = self._versions.current.get(name)
        if answers is None:
            return ""
        again = "is being loaded again" if not self._crew.has(answers) else "answers as before"
        return f"; version {answers.config.version} {again}"

    def _switch(self, new: ServedModel, keep: bool) -> Result:
        before = self._versions.answer(new, keep)
        self._turns.join(new)
        self.failed.pop(new.config.name, None)
        if before is None:
            return "loaded"
        log.info(
            "model %s: version %s answers instead of %s",
            new.config.name,
            new.config.version,
            before.config.version,
        )
        if not keep:
            self._retire(before)
        return "switched"

    def _retire(self, model: ServedModel) -> None:
        """No new requests for it; it is unloaded when the last one is done."""
        self._versions.leave(model)
        if model not in self._retiring:
            task = self._retiring[model] = asyncio.create_task(self._emptied(model))
            task.add_done_callback(lambda _: self._retiring.pop(model, None))

    async def _emptied(self, model: ServedModel) -> None:
        await self._until(lambda: _idle(model))
        self._versions.drop(model)
        self._turns.leave(model)
        self._crew.settle()
        await self._until(lambda: not self._crew.holds(model))
        self._given_back = time.monotonic()
        log.info("model %s version %s is unloaded", model.config.name, model.config.version)

    async def _unload(self, wanted: Unload) -> Result:
        name, version = wanted.name, wanted.version
        self.failed.pop(name, None)
        here = [m for m in self._versions.of(name) if version in (None, m.config.version)]
        known = (
            name in self._versions.configs if version is None else (name, version) in self._ledger.counters
        )
        if not here and not known:
            there = ", ".join(m.config.version for m in self._versions.of(name))
            message = f"version {version}; it has {there}" if there else "here"
            raise Refusal("not_found", f"there is no model {name!r} {message}")
        for model in here:
            self._retire(model)
        waits = [task for model, task in self._retiring.items() if model in here]
        if waits:
            _, late = await asyncio.wait(waits, timeout=wanted.timeout_s)
            if late:
                left = sum(_left(model) for model in here)
                message = f"model {name} takes no requests any more and still has {left}"
                raise Refusal("deadline_exceeded", f"{message}; it is unloaded when they are done")
        return "unloaded" if here else "unchanged"

    async def _until(self, true: Callable[[], bool], end: float = math.inf) -> bool:
        """Whether it came true in time."""
        while not true():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_LOOK_S)
        return True


def _left(model: ServedModel) -> int:
    """Requests that wait or are computed."""
    queue, generation = model.batcher, model.generation
    return queue.queued + queue.in_flight + generation.queued + generation.in_flight


def _idle(model: ServedModel) -> bool:
    return not _left(model) and not model.generation.busy


def _held(model: ServedModel | None) -> int | None:
    """What it says that it needs of a device's memory, else what it was seen to hold."""
    if model is None:
        return None
    if model.config.device_memory_bytes is not None:
        return model.config.device_memory_bytes
    return None if model.traits is None else model.traits.memory_bytes
