"""`/admin`: drain this server; load, swap and unload models while others answer."""

from __future__ import annotations

import re
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet_agent.engine.engine import Engine
from fleet_agent.front.documented import JsonRoute
from fleet_agent.telemetry.report import agent_status
from fleet_agent.versions.change import Load, Old, Result, Unload
from fleet_wire.agent import ModelConfig, ModelStatus
from fleet_wire.refusal import Refusal

_NAME = re.compile(r"[A-Za-z0-9_.:@+-][A-Za-z0-9_.:@+/-]{0,199}")


class Named(BaseModel):
    """A model; without `version`: all its versions."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str | None = None


class Change(BaseModel):
    """One of `load` and `unload`.

    `old` is what becomes of the version that answers to the name until then: it is unloaded when its last request is
    done; it is kept for requests that name its version; or it makes room first, and requests get 503 meanwhile.
    `again` loads it anew even if nothing in it has changed. `timeout_s`: the answer comes within that time. A second at
    least: with less it would be chance whether a change is refused for what is wrong with it.
    """

    model_config = ConfigDict(extra="forbid")

    load: ModelConfig | None = None
    unload: Named | None = None
    old: Old = "unload"
    again: bool = False
    timeout_s: float = Field(default=600.0, ge=1, le=86_400)

    @model_validator(mode="after")
    def _one(self) -> Change:
        if (self.load is None) == (self.unload is None):
            raise ValueError('give "load" (a model configuration) or "unload" (a name), one of the two')
        if self.unload is not None and {"old", "again"} & self.model_fields_set:
            raise ValueError('"old" and "again" belong to "load"')
        return self

    def wanted(self) -> Load | Unload:
        if self.load is not None:
            return Load(self.load, self.old, self.again, self.timeout_s)
        assert self.unload is not None
        return Unload(self.unload.name, self.unload.version, self.timeout_s)


class Listed(BaseModel):
    """One version. `answers`: requests that name no version are its own. `reason`: why it has failed."""

    name: str
    version: str
    state: Literal["loading", "ready", "unloading", "failed", "unloaded"]
    answers: bool = False
    reason: str | None = None
    queued: int = 0
    in_flight: int = 0
    device_memory_bytes: int | None = None


class Listing(BaseModel):
    models: list[Listed]


class Changed(Listing):
    """`models`: the versions of that name as they are now."""

    result: Result


def admin(engine: Engine) -> APIRouter:
    router = APIRouter(tags=["admin"], route_class=JsonRoute)

    @router.post("/admin/drain", summary="Take no new requests; those here are finished")
    async def drain() -> dict[str, Any]:
        engine.draining = True
        status = agent_status(engine)
        return {"state": status.state, "in_flight": status.in_flight, "queued": status.queued}

    @router.get("/admin/models", summary="Every version that is here, and why one isn't")
    async def models() -> Listing:
        return Listing(models=listed(engine))

    @router.post("/admin/models", summary="Load a model, swap its version, or unload it")
    async def change(change: Change) -> Changed:
        result = await changed(engine, change.wanted())
        name = change.load.name if change.load is not None else change.unload and change.unload.name
        return Changed(result=result, models=[entry for entry in listed(engine) if entry.name == name])

    return router


async def changed(engine: Engine, wanted: Load | Unload) -> Result:
    """Returns when it is done. Raises Refusal."""
    if engine.draining:
        raise Refusal("unavailable", "this server is draining and changes no models any more", 1.0)
    if isinstance(wanted, Unload):
        return await engine.repository.unload(wanted)
    for key, text in (("name", wanted.config.name), ("version", wanted.config.version)):
        if not _NAME.fullmatch(text) or "/versions/" in text:
            raise Refusal("bad_request", f"{key} {text!r}: letters, digits and . _ - : @ + / make a {key}")
    return await engine.repository.load(wanted)


def listed(engine: Engine) -> list[Listed]:
    entries = [_listed(engine.condition.status_of(model), True) for model in engine.models.values()]
    failed = [engine.condition.status_of(model) for model in engine.repository.failed.values()]
    entries += [_listed(status, False) for status in (*engine.condition.beside(), *failed)]
    entries += [_listed(other.status(not engine.draining), True) for other in engine.outside.values()]
    here = {entry.name for entry in entries}
    for name, config in engine.versions.configs.items():
        if name not in here:
            entries.append(Listed(name=name, version=config.version, state="unloaded"))
    return entries


def _listed(status: ModelStatus, answers: bool) -> Listed:
    return Listed(
        name=status.name,
        version=status.version,
        state=status.state or ("ready" if status.ready else "failed" if status.error else "loading"),
        answers=answers,
        reason=status.error,
        queued=status.queued,
        in_flight=status.in_flight,
        device_memory_bytes=status.device_memory_bytes,
    )
