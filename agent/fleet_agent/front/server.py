"""The agent's HTTP face: one ASGI application in front of the engine.

`Front` decides for every call: its request id, whether it may (bearer token), and how a refusal looks. The calls to
models go straight to their handlers; everything else, and the OpenAPI document of all, is FastAPI's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from fleet_agent.engine.engine import Engine
from fleet_agent.front.admin import admin
from fleet_agent.front.chat import ANSWERS, Chat, body_schema
from fleet_agent.front.documented import REFUSAL, json_body, release
from fleet_agent.front.v2 import v2
from fleet_agent.front.waiting import answered, through
from fleet_agent.http.call import Call, ClientGone, Headers, Receive, Reply, Send, refused
from fleet_agent.protocol.inference import Inference, versioned
from fleet_agent.telemetry.metrics import EngineMetrics
from fleet_agent.telemetry.report import agent_status
from fleet_wire.refusal import STATUS, Refusal

log = logging.getLogger("fleet_agent.server")

_OPEN_PATHS = ("/healthz", "/readyz")
# What changes this server, and so is nothing for the clients of a proxy.
_OWN_PATHS = ("/admin/", "/v2/repository/models/")
_CODES = {status: code for code, status in STATUS.items()}
_PLAIN = b"text/plain; version=0.0.4; charset=utf-8"


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
                _check_proxied(call)
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
        engine = self.engine
        reply = await engine.outside.answer(call, scope, send, engine.draining, has_token, engine.traces)
        if isinstance(reply, Reply):
            await _send(reply, call, send)
        return reply is not False


def _check_proxied(call: Call) -> None:
    """A balancer presents this server's token for its clients, who must not get at more than the models by that.

    Raises Refusal `forbidden`.
    """
    if call.path.startswith(_OWN_PATHS) and b"x-forwarded-for" in call.headers:
        message = "is not for clients of a proxy or balancer (x-forwarded-for is set); ask this server itself"
        raise Refusal("forbidden", f"{call.path} {message}")


def broken(request_id: bytes, what: str) -> Reply:
    """The reply to a request on which the server failed, whose exception goes to the log."""
    log.exception("request %s: %s", request_id.decode(), what)
    message = f"the server failed on request {request_id.decode()}; see its log"
    return refused(Refusal("internal", message))


def application(engine: Engine, inference: Inference) -> FastAPI:
    """Everything that has an address here, with its OpenAPI document at /openapi.json."""
    app = FastAPI(
        title="fleet-agent",
        version=release(),
        docs_url=None,
        redoc_url=None,
        responses={"default": REFUSAL},
    )
    _show_refusals(app)
    _add_health(app, engine)
    _add_v1(app, engine, inference)
    app.include_router(v2(engine, inference))
    app.include_router(admin(engine))
    return app


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/healthz", tags=["health"], summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", tags=["health"], summary="200: models loaded and warmed; 503 says why not")
    async def readyz() -> dict[str, str]:
        if engine.condition.state() != "ready":
            raise Refusal("unavailable", engine.condition.reason() or "not ready", 1.0)
        return {"status": "ready"}

    @app.get("/status", tags=["health"], summary="AgentStatus: models, counters, latency, device memory")
    async def status() -> Response:
        body = agent_status(engine).model_dump_json(by_alias=True)
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
        name, version = versioned(name)
        served = engine.known(name, version)
        state = {"name": name, "version": served.config.version, "ready": engine.condition.ready(served)}
        return {
            **state,
            "id": name,
            "object": "model",
            "created": int(engine.started_at),
            "owned_by": "fleetctl",
        }

    body = json_body(
        {"type": "object", "required": ["instances"], "properties": {"instances": {"type": "array"}}}
    )

    @app.post("/v1/models/{name:path}:predict", tags=["V1"], summary="KServe V1 predict", openapi_extra=body)
    async def predict(name: str, request: Request) -> Response:
        return await through(engine, request, inference.route(f"/v1/models/{name}:predict"))

    texts = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    body = json_body(
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
        return await through(engine, request, inference.embed)

    chat = Chat(engine)

    @app.post(
        "/v1/chat/completions",
        tags=["OpenAI"],
        summary="OpenAI chat completions, streamed as server-sent events with stream: true",
        openapi_extra=json_body(body_schema()),
        responses=ANSWERS,
    )
    async def completions(request: Request) -> Response:
        return await chat.answer(request.scope.get("fleet.call") or Call(request.scope, request.receive))


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
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, p['loc'][1:])) or 'body'}: {p['msg']}" for p in error.errors())
    return Refusal("bad_request", f"the request is not understood: {said}")


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
