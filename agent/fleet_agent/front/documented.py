"""What the addresses have in common in the OpenAPI document, and how their bodies are read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from fleet_wire.refusal import STATUS

_ERROR = {
    "type": "object",
    "required": ["code", "message", "retry_after_s"],
    "properties": {
        "code": {"enum": sorted(STATUS)},
        "message": {"type": "string"},
        "retry_after_s": {"type": ["number", "null"]},
    },
}
REFUSAL: dict[str, Any] = {
    "description": "A refusal; 429 and 503 carry Retry-After",
    "content": {
        "application/json": {
            "schema": {"type": "object", "required": ["error"], "properties": {"error": _ERROR}}
        }
    },
}


class JsonRoute(APIRoute):
    """A body here is JSON whatever its Content-Type says: curl -d names another one, tritonclient none."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def as_json(request: Request) -> Response:
            others = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
            scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
            return await handle(Request(scope, request.receive))

        return as_json


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """For handlers that read their body themselves."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def release() -> str:
    try:
        return version("fleetctl")
    except PackageNotFoundError:
        return "0"
