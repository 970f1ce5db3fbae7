"""The agent's HTTP face: one ASGI application in front of the engine.

`Front` decides for every call: its request id, whether it may (bearer token), and how a refusal looks. The calls to
models go straight to their handlers; everything else, and the OpenAPI document of all, is FastAPI's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from fleet_agent.call import (
    Call,
    ClientGone,
    Headers,
    Receive,
    Reply,
    Send,
    deadline_of,
    priority_of,
    refused,
)
from fleet_agent.engine import Engine
from fleet_agent.inference import Inference, Work, versioned
from fleet_agent.metrics import EngineMetrics
from fleet_agent.served import Answer
from fleet_wire.refusal import STATUS, Refusal

log = logging.getLogger("fleet_agent.server")

_OPEN_PATHS = ("/healthz", "/readyz")
_CODES = {status: code for code, status in STATUS.items()}
_PLAIN = b"text/plain; version=0.0.4; charset=utf-8"


_ERROR = {
    "type": "object",
    "required": ["code", "message", "retry_after_s"],
    "properties": {
        "code": {"enum": sorted(STATUS)},
        "message": {"type": "string"},
        "retry_after_s": {"type": ["number", "null"]},
    },
}
_REFUSAL: dict[str, Any] = {
    "description": "A refusal; 429 and 503 carry Retry-After",
    "content": {
        "application/json": {
            "schema": {"type": "object", "required": ["error"], "properties": {"error": _ERROR}}
        }
    },
}


class Front:
    """The ASGI application, and what the short way past it (hot.py) shares with it.

    `active` counts the calls that aren't answered yet, `quiet` is set while there are none.
    """

    def __init__(self, engine: Engine, token: str | None) -> None:
        """`token`: what a caller has to present as a bearer token on all but /healthz and /readyz; None: nothing."""
        self._token = None if token is None else b"Bearer " + token.encode()
        self.engine = engine
        self.inference = Inference(engine)
        self._app = application(engine, self.inference)
        self.active = 0
        self.quiet = asyncio.Event()
        self.quiet.set()

    def begins(self) -> None:
        """A call has come."""
        self.active += 1
        if self.active == 1:
            self.quiet.clear()

    def ends(self) -> None:
        """A call was answered, or nobody waits for its answer any more."""
        self.active -= 1
        if not self.active:
            self.quiet.set()

    def authorise(self, path: str, headers: Headers) -> None:
        """Raises Refusal `unauthorized`."""
        if self._token is None or path in _OPEN_PATHS:
            return
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            raise Refusal("unauthorized", "this server wants its token: Authorization: Bearer TOKEN")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = Call(scope, receive)
        self.begins()
        try:
            try:
                self.authorise(call.path, call.headers)
                if self.engine.outside and await self._outside(call, scope, send):
                    return
                work = self.inference.route(call.path) if call.method == "POST" else None
                if work is None:
                    scope["fleet.call"] = call
                    await self._app(scope, call.receive, _identified(send, call))
                    return
                reply = await answered(self.engine, call, work)
            except Refusal as refusal:
                reply = refused(refusal)
            except ClientGone:
                return
            except (
                Exception
            ):  # The last boundary: the client gets the one shape of a refusal, whatever broke.
                reply = broken(call.request_id, f"{call.method} {call.path}")
            await _send(reply, call, send)
        finally:
            self.ends()


    async def _outside(self, call: Call, scope: MutableMapping[str, Any], send: Send) -> bool:
        """Whether the call was for an outside engine, and is answered. Raises Refusal, ClientGone."""
        has_token = self._token is not None
        reply = await self.engine.outside.answer(call, scope, send, self.engine.draining, has_token)
        if isinstance(reply, Reply):
            await _send(reply, call, send)
        return reply is not False


def broken(request_id: bytes, what: str) -> Reply:
    """The reply to a request on which the server failed, whose exception goes to the log."""
    log.exception("request %s: %s", request_id.decode(), what)
    message = f"the server failed on request {request_id.decode()}; see its log"
    return refused(Refusal("internal", message))


async def answered(engine: Engine, call: Call, work: Work) -> Reply:
    """The whole of a call to a model. Raises Refusal, and ClientGone when the client goes away before."""
    body = await call.body()
    asked = work(call.headers, body)
    deadline = deadline_of(call.headers, call.arrived)
    future: asyncio.Future[Answer | Refusal] = asyncio.get_running_loop().create_future()

    def ended(outcome: Answer | Refusal) -> None:
        if not future.done():
            future.set_result(outcome)

    ticket = engine.submit(
        asked.served, asked.payload, ended, deadline, priority_of(call.headers), asked.wants_tokens
    )
    watch = asyncio.create_task(call.gone())
    watch.add_done_callback(lambda task: None if task.cancelled() else future.cancel())
    try:
        outcome = await future
    except asyncio.CancelledError:
        engine.abandon(ticket)
        if watch.done() and not watch.cancelled():
            raise ClientGone from None
        raise
    finally:
        watch.cancel()
    if isinstance(outcome, Refusal):
        raise outcome
    return asked.reply(outcome)


def application(engine: Engine, inference: Inference) -> FastAPI:
    """Everything that has an address here, with its OpenAPI document at /openapi.json."""
    app = FastAPI(
        title="fleet-agent",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        responses={"default": _REFUSAL},
    )
    _show_refusals(app)
    _add_health(app, engine)
    _add_v1(app, engine, inference)
    _add_v2(app, engine, inference)
    _add_admin(app, engine)
    return app


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/healthz", tags=["health"], summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", tags=["health"], summary="200: models loaded and warmed; 503 says why not")
    async def readyz() -> dict[str, str]:
        if engine.state() != "ready":
            raise Refusal("unavailable", engine.reason() or "not ready", 1.0)
        return {"status": "ready"}

    @app.get("/status", tags=["health"], summary="AgentStatus: models, counters, latency, device memory")
    async def status() -> Response:
        body = engine.status(os.getpid()).model_dump_json(by_alias=True)
        return Response(body, media_type="application/json")

    metrics = EngineMetrics(engine)

    @app.get("/metrics", tags=["health"], summary="Prometheus text", response_class=PlainTextResponse)
    async def exposition() -> Response:
        return Response(metrics.text(), headers={"content-type": _PLAIN.decode()})


def _add_v1(app: FastAPI, engine: Engine, inference: Inference) -> None:
    @app.get("/v1/models", tags=["V1"], summary="The models, in OpenAI's form and KServe's")
    async def models() -> dict[str, Any]:
        created = int(engine.started_at)
        names = [*engine.models, *engine.outside]
        data = [{"id": n, "object": "model", "created": created, "owned_by": "fleetctl"} for n in names]
        return {"object": "list", "data": data, "models": names}

    @app.get("/v1/models/{name:path}", tags=["V1"], summary="Whether a model is ready")
    async def model(name: str) -> dict[str, Any]:
        served = engine.known(name)
        state = {"name": name, "version": served.config.version, "ready": engine.model_ready(name)}
        return {
            **state,
            "id": name,
            "object": "model",
            "created": int(engine.started_at),
            "owned_by": "fleetctl",
        }

    body = _body(
        {"type": "object", "required": ["instances"], "properties": {"instances": {"type": "array"}}}
    )

    @app.post("/v1/models/{name:path}:predict", tags=["V1"], summary="KServe V1 predict", openapi_extra=body)
    async def predict(name: str, request: Request) -> Response:
        return await _through(engine, request, inference.route(f"/v1/models/{name}:predict"))

    texts = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    body = _body(
        {
            "type": "object",
            "required": ["input", "model"],
            "properties": {
                "input": texts,
                "model": {"type": "string"},
                "encoding_format": {"enum": ["float", "base64"]},
            },
        }
    )

    @app.post("/v1/embeddings", tags=["OpenAI"], summary="OpenAI embeddings", openapi_extra=body)
    async def embeddings(request: Request) -> Response:
        return await _through(engine, request, inference.embed)


def _add_v2(app: FastAPI, engine: Engine, inference: Inference) -> None:
    @app.get("/v2", tags=["V2"], summary="Server metadata")
    async def server() -> dict[str, Any]:
        return {"name": "fleet-agent", "version": _version(), "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", tags=["V2"], summary="The process is alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", tags=["V2"], summary="200: ready; 503 says why not")
    async def ready() -> dict[str, bool]:
        if engine.state() != "ready":
            raise Refusal("unavailable", engine.reason() or "not ready", 1.0)
        return {"ready": True}

    @app.get("/v2/models/{name:path}/ready", tags=["V2"], summary="200: the model is ready")
    async def model_ready(name: str) -> dict[str, Any]:
        plain, version = versioned(name)
        _check_version(engine, plain, version)
        if not engine.model_ready(plain):
            raise Refusal("unavailable", engine.reason() or f"model {plain} is not ready", 1.0)
        return {"name": plain, "ready": True}

    tensor = {
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
    properties = {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}}
    body = _body({"type": "object", "required": ["inputs"], "properties": properties})

    @app.post(
        "/v2/models/{name:path}/infer", tags=["V2"], summary="Open Inference Protocol", openapi_extra=body
    )
    async def infer(name: str, request: Request) -> Response:
        return await _through(engine, request, inference.route(f"/v2/models/{name}/infer"))

    @app.get("/v2/models/{name:path}", tags=["V2"], summary="Model metadata")
    async def metadata(name: str) -> dict[str, Any]:
        plain, version = versioned(name)
        served = _check_version(engine, plain, version)
        if served.traits is None:
            raise Refusal("unavailable", served.error or f"model {plain} is not loaded yet", 1.0)
        tensors = {"inputs": served.traits.inputs, "outputs": served.traits.outputs}
        return {"name": plain, "versions": [served.config.version], "platform": "pytorch", **tensors}


def _add_admin(app: FastAPI, engine: Engine) -> None:
    @app.post("/admin/drain", tags=["admin"], summary="Take no new requests; those here are finished")
    async def drain() -> dict[str, Any]:
        engine.draining = True
        status = engine.status(os.getpid())
        return {"state": status.state, "in_flight": status.in_flight, "queued": status.queued}

    @app.post("/admin/models", tags=["admin"], summary="Load and unload models: not available yet")
    async def models() -> None:
        raise Refusal(
            "not_implemented",
            "models can't be loaded or unloaded in a running agent yet; start it with the new list",
        )

    @app.post("/v1/chat/completions", tags=["OpenAI"], summary="Not available yet")
    async def chat() -> None:
        raise Refusal(
            "not_implemented", "chat completions are not available yet; see /v1/models for what is served"
        )


def _check_version(engine: Engine, name: str, version: str | None) -> Any:
    served = engine.known(name)
    if version is not None and version != served.config.version:
        raise Refusal("not_found", f"model {name} has version {served.config.version} here, not {version}")
    return served


async def _through(engine: Engine, request: Request, work: Work | None) -> Response:
    """A handler behind FastAPI, for whoever mounts `application` without `Front`."""
    assert work is not None, "FastAPI's path is one of route's"
    call = request.scope.get("fleet.call") or Call(request.scope, request.receive)
    reply = await answered(engine, call, work)
    response = Response(reply.body, reply.status)
    response.raw_headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
    return response


def _show_refusals(app: FastAPI) -> None:
    """FastAPI's own errors in the one shape of a refusal."""

    async def show(request: Request, error: Exception) -> Response:
        reply = refused(_as_refusal(request, error))
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        if isinstance(error, HTTPException) and error.headers and "allow" in error.headers:
            headers["allow"] = error.headers["allow"]
        return Response(reply.body, reply.status, headers)

    for kind in (Refusal, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, show)


def _as_refusal(request: Request, error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):
        where = f"{request.method} {request.url.path}"
        messages = {404: f"there is nothing at {where}", 405: f"{where}: this method is not taken here"}
        code = _CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
        return Refusal(code, messages.get(error.status_code, f"{where}: {error.detail}"))
    return Refusal("bad_request", f"the request is not understood: {error}")


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _identified(send: Send, call: Call) -> Send:
    async def with_id(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"x-request-id", call.request_id)]
        await send(message)

    return with_id


async def _send(reply: Reply, call: Call, send: Send) -> None:
    headers = [
        *reply.headers,
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-request-id", call.request_id),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _version() -> str:
    try:
        return version("fleetctl")
    except PackageNotFoundError:
        return "0"
