"""The Open Inference Protocol (V2): health, metadata, infer, and the model repository extension.

Sources: KServe "Open Inference Protocol"; Triton's "Model Repository Extension", as `tritonclient[http]` asks for it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

from fleet_agent.engine.engine import Engine
from fleet_agent.front.admin import Listed, changed, listed
from fleet_agent.front.documented import JsonRoute, json_body, release
from fleet_agent.front.waiting import through
from fleet_agent.http.call import parse_json
from fleet_agent.protocol.inference import Inference, versioned
from fleet_agent.versions.change import Load, Unload
from fleet_wire.agent import ModelConfig
from fleet_wire.refusal import Refusal

_EXTENSIONS = ("binary_tensor_data", "model_repository", "model_repository(unload_dependents)")
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string"},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
_INFER = {
    "type": "object",
    "required": ["inputs"],
    "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "items": _TENSOR}},
}
_STATES = {
    "loading": "LOADING",
    "ready": "READY",
    "unloading": "UNLOADING",
    "failed": "UNAVAILABLE",
    "unloaded": "UNAVAILABLE",
}


class Index(BaseModel):
    """`ready`: only the versions that take requests."""

    ready: bool = False


class Parameters(BaseModel):
    """`parameters` of a load: `config` is JSON in a string, keys of the model's configuration that are to differ."""

    parameters: dict[str, Any] = {}


def v2(engine: Engine, inference: Inference) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["V2"], route_class=JsonRoute)
    _add_protocol(router, engine, inference)
    _add_repository(router, engine)
    return router


def _add_protocol(router: APIRouter, engine: Engine, inference: Inference) -> None:
    @router.get("", summary="Server metadata")
    async def server() -> dict[str, Any]:
        return {"name": "fleet-agent", "version": release(), "extensions": list(_EXTENSIONS)}

    @router.get("/health/live", summary="The process is alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="200: ready; 503 says why not")
    async def ready() -> dict[str, bool]:
        if engine.condition.state() != "ready":
            raise Refusal("unavailable", engine.condition.reason() or "not ready", 1.0)
        return {"ready": True}

    @router.get("/models/{name:path}/ready", summary="200: the model is ready")
    async def model_ready(name: str) -> dict[str, Any]:
        plain, version = versioned(name)
        if not engine.condition.ready(engine.known(plain, version)):
            raise Refusal("unavailable", engine.condition.reason() or f"model {plain} is not ready", 1.0)
        return {"name": plain, "ready": True}

    @router.post(
        "/models/{name:path}/infer", summary="Open Inference Protocol", openapi_extra=json_body(_INFER)
    )
    async def infer(name: str, request: Request) -> Response:
        return await through(engine, request, inference.route(f"/v2/models/{name}/infer"))

    @router.get("/models/{name:path}", summary="Model metadata")
    async def metadata(name: str) -> dict[str, Any]:
        plain, version = versioned(name)
        served = engine.known(plain, version)
        if served.traits is None:
            raise Refusal("unavailable", served.error or f"model {plain} is not loaded yet", 1.0)
        tensors = {"inputs": served.traits.inputs, "outputs": served.traits.outputs}
        versions = [m.config.version for m in engine.versions.of(plain) if m.stage in ("answering", "kept")]
        return {"name": plain, "versions": versions, "platform": "pytorch", **tensors}


def _add_repository(router: APIRouter, engine: Engine) -> None:
    @router.post("/repository/index", summary="Every model that is here or can be loaded by its name")
    async def index(asked: Index | None = None) -> list[dict[str, str]]:
        only = asked is not None and asked.ready
        return [_indexed(entry) for entry in listed(engine) if entry.state == "ready" or not only]

    @router.post(
        "/repository/models/{name:path}/load", summary="Load a model, or load it with another config"
    )
    async def load(name: str, asked: Parameters | None = None) -> dict[str, str]:
        parameters = {} if asked is None else asked.parameters
        files = [key for key in parameters if key != "config"]
        if files:
            raise Refusal(
                "bad_request", f"the parameter {files[0]} is not taken: a model's files are on the host"
            )
        override = parameters.get("config")
        await changed(engine, Load(_configured(engine, name, override)))
        return {}

    @router.post("/repository/models/{name:path}/unload", summary="Unload all versions of a model")
    async def unload(name: str, asked: Parameters | None = None) -> dict[str, str]:
        # unload_dependents has nothing to do: no model here depends on another.
        await changed(engine, Unload(name))
        return {}


def _indexed(entry: Listed) -> dict[str, str]:
    reason = "unloaded" if entry.state == "unloaded" else entry.reason or ""
    return {"name": entry.name, "version": entry.version, "state": _STATES[entry.state], "reason": reason}


def _configured(engine: Engine, name: str, override: object) -> ModelConfig:
    """What the model was last, with the keys of `override` (JSON in a string). Raises Refusal."""
    known = engine.versions.configs.get(name)
    changes = {} if override is None else override
    if isinstance(changes, str):
        changes = parse_json(changes.encode())
    if not isinstance(changes, dict):
        raise Refusal(
            "bad_request", 'the parameter config is a JSON object in a string: {"version": "2", ...}'
        )
    if known is None and "path" not in changes:
        names = ", ".join(sorted(engine.versions.configs)) or "none"
        message = f"there is no model {name!r} to be loaded by its name; there is {names}"
        raise Refusal("not_found", f"{message}. A new one needs config with path and entrypoint")
    if changes.get("name", name) != name:
        raise Refusal("bad_request", f"config names the model {changes['name']!r}, the address {name!r}")
    before = {} if known is None else known.model_dump()
    try:
        return ModelConfig.model_validate({**before, **changes, "name": name})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        keys = ", ".join(ModelConfig.model_fields)
        raise Refusal("bad_request", f"config: {said} (the keys are {keys})") from None
