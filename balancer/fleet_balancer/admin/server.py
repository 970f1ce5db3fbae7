"""The admin listener: what the balancer is doing, and which hosts it may use. One request per connection.

GET /healthz (open)   GET /status /metrics /backends   PUT /backends
POST /backends/NAME/drain|undrain|weight   POST /admin/reload
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
from collections.abc import Sequence
from socket import socket
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_balancer.admin.desk import Desk
from fleet_balancer.http.grammar import CHUNKED, Limits
from fleet_balancer.http.request import RequestHead, parse_request
from fleet_balancer.http.response import refusal_bytes
from fleet_balancer.process.mistake import mistakes
from fleet_balancer.telemetry.metrics import exposition
from fleet_wire.balancer import BackendList
from fleet_wire.refusal import Refusal

Document = TypeVar("Document", bound=BaseModel)

MAX_BODY = 16 * 1024 * 1024
TIMEOUT_S = 10.0
STOP_S = 1.0
_ONE = re.compile(rb"/backends/([^/?]+)/(drain|undrain|weight)")
_PATHS = (b"/status", b"/metrics", b"/backends", b"/healthz", b"/admin/reload")


class Weight(BaseModel):
    """The body of POST /backends/NAME/weight. None: as the list says."""

    model_config = ConfigDict(extra="forbid")

    weight: float | None = Field(gt=0, allow_inf_nan=False)


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AdminServer:
    """Answers for `desk`. `token` None: everyone who can connect may ask and change (loopback only; see life)."""

    def __init__(self, desk: Desk, token: str | None) -> None:
        self.token = token
        self._desk = desk
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, sockets: Sequence[socket]) -> None:
        """Answer who connects to `sockets`."""
        for one in sockets:
            self._servers.append(await asyncio.start_server(self._serve, sock=one, limit=64 * 1024))

    async def stop(self) -> None:
        """Accept nothing new; answers under way get a moment."""
        for server in self._servers:
            server.close()
        if self._open:
            await asyncio.wait(self._open, timeout=STOP_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            async with asyncio.timeout(TIMEOUT_S) as limit:
                try:
                    head, body = await _read_request(reader, writer)
                    if head is None:
                        return
                    id_line = b"x-request-id: %b\r\n" % head.request_id if head.request_id else b""
                    # What is asked may take its time: a new process has to come up first.
                    limit.reschedule(None)
                    writer.write(await self._reply(head, body, id_line))
                except Refusal as refusal:
                    writer.write(refusal_bytes(refusal, b"", close=True))
                limit.reschedule(asyncio.get_running_loop().time() + TIMEOUT_S)
                await writer.drain()
                writer.write_eof()
                # What a refused client still sends is read away: closing on unread input would reset the connection.
                while await reader.read(64 * 1024):
                    pass
        except (OSError, TimeoutError):
            pass  # the client left or stalled; there is nobody to tell
        finally:
            writer.close()

    async def _reply(self, head: RequestHead, body: bytes, id_line: bytes) -> bytes:
        try:
            content_type, reply = await self._answer(head, body)
        except Refusal as refusal:
            return refusal_bytes(refusal, id_line, close=True)
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (content_type, len(reply))
        ) + (b"" if head.method == b"HEAD" else reply)

    async def _answer(self, head: RequestHead, body: bytes) -> tuple[bytes, bytes]:
        """Content type and body of the 200. Raises Refusal."""
        path = head.target.split(b"?", 1)[0]
        method = b"GET" if head.method == b"HEAD" else head.method
        if path == b"/healthz" and method == b"GET":
            return b"text/plain", b"ok\n"
        self._authorize(head)
        if path == b"/metrics" and method == b"GET":
            return CONTENT_TYPE_PLAIN_0_0_4.encode(), exposition(await self._desk.status())
        return b"application/json", await self._document(method, path, body)

    async def _document(self, method: bytes, path: bytes, body: bytes) -> bytes:
        desk = self._desk
        one = _ONE.fullmatch(path)
        if method == b"GET" and path == b"/status":
            return (await desk.status()).model_dump_json(by_alias=True).encode()
        if method == b"POST" and path == b"/admin/reload":
            return json.dumps({"pid": await desk.reload()}).encode()
        if method == b"PUT" and path == b"/backends":
            await desk.put(_parsed(BackendList, body))
        elif method == b"POST" and one:
            name = unquote_to_bytes(one[1]).decode("utf-8", "replace")
            if one[2] == b"weight":
                await desk.weigh(name, _parsed(Weight, body).weight)
            else:
                await (desk.drain(name) if one[2] == b"drain" else desk.undrain(name))
        elif method != b"GET" or path != b"/backends":
            if path in _PATHS or one:
                raise Refusal(
                    "method_not_allowed",
                    f"{method.decode('latin-1')} is not for this path: {_methods(path)} is",
                )
            raise Refusal(
                "not_found",
                "paths here: /healthz /status /metrics /backends /backends/NAME/drain|undrain|weight /admin/reload",
            )
        return desk.roster.redacted().model_dump_json(by_alias=True).encode()

    def _authorize(self, head: RequestHead) -> None:
        if self.token is None:
            return
        scheme, _, given = head.authorization.partition(b":")[2].strip().partition(b" ")
        good = hmac.compare_digest(given.strip(), self.token.encode())
        if scheme.lower() != b"bearer" or not good:
            raise Refusal(
                "unauthorized", "this needs the header Authorization: Bearer TOKEN, with the admin token"
            )


def _methods(path: bytes) -> str:
    if path == b"/backends":
        return "GET or PUT"
    return "POST" if path == b"/admin/reload" or _ONE.fullmatch(path) else "GET"


def _parsed(kind: type[Document], body: bytes) -> Document:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(
            "bad_request", f"not a {kind.__name__}: {mistakes(error)}; nothing was changed"
        ) from None


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[RequestHead | None, bytes]:
    """A request with its body; (None, b"") where the client left. Raises Refusal."""
    limits = Limits(body=MAX_BODY)
    data = b""
    while (head := parse_request(data, limits)) is None:
        more = await reader.read(64 * 1024)
        if not more:
            return None, b""
        data += more
    if head.length == CHUNKED:
        raise Refusal("not_implemented", "send the body with Content-Length")
    body = data[head.size :]
    if head.expects and len(body) < head.length:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < head.length:
        more = await reader.read(64 * 1024)
        if not more:
            return None, b""
        body += more
    return head, body[: head.length]
