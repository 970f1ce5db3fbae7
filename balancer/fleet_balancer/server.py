"""The admin listener: what the balancer is doing, and which hosts it may use. One request per connection.

GET /healthz (open)   GET /status /metrics /backends   PUT /backends   POST /backends/NAME/drain|undrain
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import re
import time

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from pydantic import ValidationError

from fleet_balancer.front import Front
from fleet_balancer.http.grammar import CHUNKED, Limits
from fleet_balancer.http.request import RequestHead, parse_request
from fleet_balancer.http.response import refusal_bytes
from fleet_balancer.metrics import FrontCollector
from fleet_balancer.probe import Prober
from fleet_balancer.proxy import Proxy
from fleet_wire.balancer import BackendList, BalancerStatus
from fleet_wire.refusal import Refusal

MAX_BODY = 16 * 1024 * 1024
TIMEOUT_S = 10.0
_DRAIN = re.compile(rb"/backends/([^/?]+)/(drain|undrain)")


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AdminServer:
    """Answers for `front`. `token` None: everyone who can connect may ask and change (loopback only; see __main__)."""

    def __init__(self, front: Front, proxy: Proxy, prober: Prober, token: str | None) -> None:
        self._front = front
        self._proxy = proxy
        self._prober = prober
        self._token = token
        self._started_at = time.time()
        self._backends = BackendList(pools=[p.config for p in front.pools.values()], backends=[])
        self._endpoint = ""
        self._server: asyncio.Server | None = None
        self._registry = CollectorRegistry()
        self._registry.register(FrontCollector(front, proxy))

    async def start(self, host: str, port: int, endpoint: str) -> tuple[str, int]:
        """Listen. Raises OSError where that is not possible."""
        self._endpoint = endpoint
        self._server = await asyncio.start_server(self._serve, host, port, limit=64 * 1024)
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def replace(self, backends: BackendList, *, lenient: bool = False) -> None:
        """Swap the whole list in; `lenient` is how new hosts are probed (see Prober).

        Raises Refusal where the list contradicts itself; then nothing has changed.
        """
        swap = self._front.swap(backends, time.monotonic())
        self._backends = backends
        self._prober.forget(swap.removed)
        self._proxy.swap(swap)
        self._prober.watch(swap.added, lenient=lenient)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        id_line = b""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                try:
                    head, body = await _read_request(reader, writer)
                    if head is None:
                        return
                    id_line = b"x-request-id: %b\r\n" % head.request_id if head.request_id else b""
                    content_type, reply = self._answer(head, body)
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                        % (content_type, len(reply))
                        + (b"" if head.method == b"HEAD" else reply)
                    )
                except Refusal as refusal:
                    writer.write(refusal_bytes(refusal, id_line, close=True))
                await writer.drain()
                writer.write_eof()
                # What a refused client still sends is read away: closing on unread input would reset the connection.
                while await reader.read(64 * 1024):
                    pass
        except (OSError, TimeoutError):
            pass  # the client left or stalled; there is nobody to tell
        finally:
            writer.close()

    def _answer(self, head: RequestHead, body: bytes) -> tuple[bytes, bytes]:
        """Content type and body of the 200. Raises Refusal."""
        path = head.target.split(b"?", 1)[0]
        method = b"GET" if head.method == b"HEAD" else head.method
        if path == b"/healthz" and method == b"GET":
            return b"text/plain", b"ok\n"
        self._authorize(head)
        if path == b"/status" and method == b"GET":
            return b"application/json", self.status().model_dump_json(by_alias=True).encode()
        if path == b"/metrics" and method == b"GET":
            return CONTENT_TYPE_PLAIN_0_0_4.encode(), generate_latest(self._registry)
        if path == b"/backends" and method == b"GET":
            return b"application/json", self._redacted()
        if path == b"/backends" and method == b"PUT":
            self.replace(_backends_of(body))
            return b"application/json", self._redacted()
        if (match := _DRAIN.fullmatch(path)) and method == b"POST":
            self._set_state(match[1].decode("latin-1"), match[2] == b"drain")
            return b"application/json", self._redacted()
        if path in (b"/status", b"/metrics", b"/backends", b"/healthz") or match:
            raise Refusal("method_not_allowed", f"{head.method.decode('latin-1')} is not for this path")
        raise Refusal(
            "not_found", "paths here: /healthz /status /metrics /backends /backends/NAME/drain|undrain"
        )

    def _authorize(self, head: RequestHead) -> None:
        if self._token is None:
            return
        scheme, _, given = head.authorization.partition(b":")[2].strip().partition(b" ")
        good = hmac.compare_digest(given.strip(), self._token.encode())
        if scheme.lower() != b"bearer" or not good:
            raise Refusal(
                "unauthorized", "this needs the header Authorization: Bearer TOKEN, with the admin token"
            )

    def _set_state(self, name: str, draining: bool) -> None:
        backends = self._backends.backends
        if not any(b.name == name for b in backends):
            raise Refusal("not_found", f"there is no backend {name!r:.200}")
        state = "draining" if draining else "active"
        changed = [b.model_copy(update={"state": state}) if b.name == name else b for b in backends]
        self.replace(self._backends.model_copy(update={"backends": changed}))

    def _redacted(self) -> bytes:
        hidden = [b.model_copy(update={"token": None}) for b in self._backends.backends]
        return self._backends.model_copy(update={"backends": hidden}).model_dump_json(by_alias=True).encode()

    def status(self) -> BalancerStatus:
        now = time.monotonic()
        return BalancerStatus(
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            endpoint=self._endpoint,
            pools=[pool.status() for pool in self._front.pools.values()],
            backends=[member.status(now) for member in self._front.members],
        )


def _backends_of(body: bytes) -> BackendList:
    try:
        return BackendList.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise Refusal("bad_request", f"not a BackendList: {where}: {first['msg']}") from None


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
