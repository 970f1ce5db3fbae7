"""Whose a call is among the outside engines, and what of it goes on to the engine and back. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import orjson

from fleet_wire.command import CommandConfig
from fleet_wire.refusal import Refusal

# What the agent answers itself, whatever an engine's `paths` are.
_OWN = {"/healthz", "/readyz", "/status", "/metrics", "/openapi.json", "/v1/models", "/v2"}
_OWN_BELOW = ("/admin/", "/v2/health/", "/v2/repository/", "/v2/models/", "/v1/models/")

# RFC 9110 7.6.1, and what the agent's own server says for itself.
_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
_NOT_ON = _HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
_NOT_BACK = _HOP | {b"date", b"x-request-id"}

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A call is `model`'s. `kind` relay: to the engine, at `path` (percent-encoded, without the query); describe and
    ready: the agent says it itself; body: the JSON body's model decides (`claimed_by_body`)."""

    kind: Literal["relay", "describe", "ready", "body"]
    model: str = ""
    path: str = ""


def takes(command: CommandConfig, path: str) -> bool:
    """Whether the engine answers that address. `..` and `.` are nobody's: they could lead out of what is declared."""
    if any(part in ("..", ".") for part in path.split("/")):
        return False
    return any(path == start or path.startswith(start.rstrip("/") + "/") for start in command.paths)


def claimed(
    method: str,
    path: str,
    raw_path: str,
    headers: Mapping[bytes, bytes],
    engines: Mapping[str, CommandConfig],
    alone: bool,
) -> Claim | None:
    """None: the call is not for an outside engine. `path` is decoded, `raw_path` as it came; `alone`: nothing else is
    served here, so that whoever names nobody means the one engine that has the path. Raises Refusal `not_found`."""
    found = named(path, engines)
    if found is not None:
        name, rest = found
        return _of_model(method, path, raw_path, name, rest, engines[name])
    if path in _OWN or path.startswith(_OWN_BELOW):
        return None
    asked = headers.get(b"x-fleet-model", b"").decode("latin-1")
    if asked:
        if asked not in engines:
            return None
        if not takes(engines[asked], path):
            raise _no_such(asked, method, path)
        return Claim("relay", asked, raw_path)
    having = [name for name, command in engines.items() if takes(command, path)]
    only = having[0] if alone and len(having) == 1 else None
    if only is not None and (engines[only].served_name is None or not _is_json(method, headers)):
        return Claim("relay", only, raw_path)
    if having and path.startswith("/v1/") and _is_json(method, headers):
        return Claim("body", path=raw_path)
    return None


def claimed_by_body(
    claim: Claim, path: str, body: bytes, engines: Mapping[str, CommandConfig], alone: bool
) -> tuple[Claim | None, bytes]:
    """Whose the call is by its body, and the body as that engine should see it. None: no outside engine's."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    asked = document.get("model") if isinstance(document, dict) else None
    having = [name for name, command in engines.items() if takes(command, path)]
    if isinstance(asked, str) and asked in having:
        served = engines[asked].served_name
        if served is not None:
            assert isinstance(document, dict)
            body = orjson.dumps(document | {"model": served})
        return Claim("relay", asked, claim.path), body
    if alone and len(having) == 1:
        return Claim("relay", having[0], claim.path), body
    return None, body


def onward(headers: Headers, request_id: bytes, hides_authorization: bool) -> list[tuple[str, str]]:
    """A request's headers as the engine gets them. The agent's own token is not for it."""
    dropped = _NOT_ON | _named_by_connection(headers)
    if hides_authorization:
        dropped = dropped | {b"authorization"}
    kept = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in dropped
    ]
    return [*kept, ("x-request-id", request_id.decode("latin-1"))]


def back(headers: Headers) -> list[tuple[bytes, bytes]]:
    """An answer's headers as the client gets them."""
    lower = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_BACK | _named_by_connection(lower)
    return [(name, value) for name, value in lower if name not in dropped]


def _of_model(method: str, path: str, raw_path: str, name: str, rest: str, command: CommandConfig) -> Claim:
    first = path[: len("/v1")]
    if method in ("GET", "HEAD"):
        if rest == "" and (first == "/v1" or not takes(command, path)):
            return Claim("describe", name)
        if first == "/v2" and rest.split("/")[-1] == "ready" and rest.count("/") in (1, 3):
            return Claim("ready", name)
    if not takes(command, path):
        raise _no_such(name, method, path)
    if command.served_name is not None:
        return Claim("relay", name, f"{first}/models/{quote(command.served_name)}{quote(rest, safe='/:')}")
    return Claim("relay", name, raw_path)


def named(path: str, engines: Mapping[str, CommandConfig]) -> tuple[str, str] | None:
    """The engine whose name is in the path, and what stands behind it."""
    if not path.startswith(("/v1/models/", "/v2/models/")):
        return None
    tail = path[len("/v1/models/") :]
    names = [name for name in engines if tail == name or tail.startswith((f"{name}:", f"{name}/"))]
    if not names:
        return None
    name = max(names, key=len)
    return name, tail[len(name) :]


def _is_json(method: str, headers: Mapping[bytes, bytes]) -> bool:
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    # curl -d says that everything is a form.
    return method == "POST" and kind in (b"application/json", b"application/x-www-form-urlencoded")


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    )


def _no_such(name: str, method: str, path: str) -> Refusal:
    return Refusal("not_found", f"the engine of model {name} is not asked for {method} {path}; see its paths")
