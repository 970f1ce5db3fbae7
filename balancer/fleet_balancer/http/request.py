"""The head of a request: what it asks, how long its body is, and the bytes that may go on to a host.

Decides alone what is a well-formed request (else a Refusal that closes the connection) and which of a client's
fields reach a host. Usual heads are read by one expression (http.usual). Of all others one expression checks the
whole head and one finds the fields that matter.
"""

from __future__ import annotations

import re

from fleet_balancer.http.grammar import (
    CHUNKED,
    FIELDS,
    TOKEN,
    Limits,
    broken_field,
    broken_line_end,
    length_of,
    tokens_of,
    without,
)
from fleet_balancer.http.usual import AUTHORIZATION, CONNECTION, USUAL_REQUEST
from fleet_wire.refusal import Refusal

_HEAD = re.compile(rb"(" + TOKEN + rb"++) ([\x21-\x22\x24-\x7e]++) HTTP/1\.([01])\r\n" + FIELDS + rb"\r\n")
_LINE = re.compile(TOKEN + rb"+ [\x21-\x22\x24-\x7e]+ HTTP/1\.[01]\r\n")
_VERSION = re.compile(rb"[^\r\n]* HTTP/[0-9]\.[0-9]\r\n")
_FIRST_BYTES = re.compile(TOKEN + rb"+(?: |$)|\r\n?|$")
# Matched against the lower-cased head. The match begins at the CRLF before the line: cutting it leaves good lines.
_SPECIAL = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|connection|authorization|expect|upgrade|te|keep-alive|"
    rb"proxy-connection|proxy-authorization|forwarded|http2-settings|idempotency-key|"
    rb"x-(?:request-id|request-timeout-ms|real-ip|api-key|forwarded-[^:]*|fleet-[^:]*)): ?([^\r]*)"
)
_HOST = re.compile(rb"(?:[0-9A-Za-z.\-_~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"[hH][tT][tT][pP][sS]?://([^/?]+)([^\r\n]*)")
_PROTOCOL = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

_NOT_SERVED = frozenset((b"CONNECT", b"TRACE"))
# Connection options whose own lines are cut in any case.
_USUAL_NOMINATIONS = frozenset((b"keep-alive", b"close", b"upgrade", b"te"))
# What a client may not remove by naming it in Connection: framing, and what the balancer itself says.
_KEPT = frozenset((b"host", b"content-length", b"transfer-encoding"))


class RequestHead:
    """A request's head.

    `size` is how many input bytes it took. `length` is the body's bytes, or CHUNKED. `kept` is the request line
    and the client's end-to-end fields, each line with its CRLF and no empty line at the end; the caller adds its own
    fields to it. `host` is as the client wrote it. `authorization` and `api_key` are those lines (or empty), apart
    because who asks for keys, and a host's own token, decide whether they go on. `expects` is whether the client waits
    for "100 Continue". `upgrade` is what the client would like to speak instead (an Upgrade field's value), where it is
    something that may be passed on. `unusual` False: none of the fields from `minor` on is anything but its default,
    except `authorization`. `idempotent` is whether it carries an Idempotency-Key. `priority`, `model` and
    `version` are the values of x-fleet-priority, -model and -model-version.
    """

    method: bytes
    target: bytes
    size: int
    host: bytes
    kept: bytes
    length: int = 0
    minor: int = 1
    keep_alive: bool = True
    expects: bool = False
    authorization: bytes = b""
    api_key: bytes = b""
    request_id: bytes | None = None
    timeout_ms: float | None = None
    model: bytes | None = None
    version: bytes | None = None
    priority: bytes | None = None
    upgrade: bytes | None = None
    idempotent: bool = False
    unusual: bool = False

    def __repr__(self) -> str:
        return f"<RequestHead {self.method.decode('latin-1')} {self.target.decode('latin-1')} length={self.length}>"


def parse_request(data: bytes, limits: Limits) -> RequestHead | None:
    """The head at the start of `data`; None while it is unfinished. Raises Refusal where it can't become one."""
    match = USUAL_REQUEST.match(data)
    if match is None:
        return parse_strictly(data, limits)
    head = RequestHead()
    head.method, target, length, staying, authorization, host = match.groups()
    head.size = size = match.end()
    if host is None or (size > limits.sure and not _within(data, target, size, limits)):
        return parse_strictly(data, limits)
    head.target = target
    head.host = host
    if length is not None:
        head.length = int(length)
        if head.length > limits.body:
            raise Refusal("too_large", f"the body is longer than {limits.body} bytes")
    # A "Connection: keep-alive" says nothing; who may see the authorization is decided elsewhere.
    if authorization is None and staying is None:
        head.kept = data[: size - 2]
    elif staying is None:
        begin, end = match.start(5) - AUTHORIZATION, match.end(5) + 2
        head.authorization = data[begin:end]
        head.kept = data[:begin] + data[end : size - 2]
    else:
        cuts = [(match.start(4) - CONNECTION, match.end(4) + 2)]
        if authorization is not None:
            begin, end = match.start(5) - AUTHORIZATION, match.end(5) + 2
            head.authorization = data[begin:end]
            cuts.append((begin, end))
            cuts.sort()
        head.kept = without(data, cuts, size - 2)
    return head


def _within(data: bytes, target: bytes, size: int, limits: Limits) -> bool:
    few = data.count(b"\r\n", 0, size - 4) <= limits.fields
    return few and size - 4 <= limits.head and len(target) <= limits.target


def parse_strictly(data: bytes, limits: Limits) -> RequestHead | None:
    """As parse_request, for every head there is."""
    end = data.find(b"\r\n\r\n")
    match = _HEAD.match(data) if end > 0 else None
    if match is None or end > limits.head:
        return _not_plain(data, end, limits)
    head = RequestHead()
    head.unusual = True
    head.method, head.target, minor = match.groups()
    head.size = end + 4
    if len(head.target) > limits.target:
        raise Refusal("uri_too_long", f"the request target is longer than {limits.target} bytes")
    if data.count(b"\r\n", 0, end) > limits.fields:
        raise Refusal("headers_too_large", f"more than {limits.fields} header lines")
    head.minor = 1 if minor == b"1" else 0
    _read_special(head, data, data[: end + 2].lower(), limits)
    return head


def _host_of(value: bytes) -> bytes:
    host = value.strip(b" \t")
    if not _HOST.fullmatch(host):
        raise Refusal("bad_request", "the Host header is not a host with an optional port")
    return host


def _length_of(value: bytes, limits: Limits) -> int:
    length = length_of(value)
    if length is None:
        raise Refusal("bad_request", "Content-Length must be one plain decimal number")
    if length > limits.body:
        raise Refusal("too_large", f"the body is longer than {limits.body} bytes")
    return length


def _read_special(head: RequestHead, data: bytes, low: bytes, limits: Limits) -> None:
    """Fill in `head` from every field that matters, and cut out of `kept` what must not reach a host."""
    host: bytes | None = None
    length: int | None = None
    plain_length = b""
    nominated: list[bytes] = []
    protocols: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    for found in _SPECIAL.finditer(low):
        name, value = found.groups()
        if name == b"host":
            if host is not None:
                raise Refusal("bad_request", "more than one Host header")
            host = _host_of(data[found.start(2) : found.end(2)])
        elif name == b"content-length":
            if length is not None:
                raise Refusal("bad_request", "more than one Content-Length header")
            length = _length_of(value.strip(b" \t"), limits)
            if not value.isdigit():
                # Said again in the plain form, which no host reads otherwise.
                cuts.append(found.span())
                plain_length = b"content-length: %d\r\n" % length
        elif name == b"x-request-id":
            given = data[found.start(2) : found.end(2)].strip(b" \t")
            if head.request_id is None and _REQUEST_ID.fullmatch(given):
                head.request_id = given
            cuts.append(found.span())
        elif name == b"x-fleet-priority":
            head.priority = value.strip(b" \t")
        elif name == b"idempotency-key":
            head.idempotent = True
        else:
            cuts.append(found.span())
            if name == b"connection":
                nominated += tokens_of(value)
            elif name == b"transfer-encoding":
                if head.length == CHUNKED or value.strip(b" \t") != b"chunked":
                    raise Refusal("bad_request", "Transfer-Encoding must be exactly 'chunked', given once")
                head.length = CHUNKED
            elif name == b"authorization":
                if head.authorization:
                    raise Refusal("bad_request", "more than one Authorization header")
                head.authorization = data[found.start() + 2 : found.end() + 2]
            elif name == b"x-api-key":
                if head.api_key:
                    raise Refusal("bad_request", "more than one x-api-key header")
                head.api_key = data[found.start() + 2 : found.end() + 2]
            elif name == b"upgrade":
                protocols += data[found.start(2) : found.end(2)].split(b",")
            elif name == b"expect":
                head.expects = head.minor == 1 and value.strip(b" \t") == b"100-continue"
            elif name == b"x-request-timeout-ms":
                head.timeout_ms = _timeout_of(value)
            elif name == b"x-fleet-model":
                head.model = data[found.start(2) : found.end(2)].strip(b" \t")
            elif name == b"x-fleet-model-version":
                head.version = data[found.start(2) : found.end(2)].strip(b" \t")
    if head.length == CHUNKED and (length is not None or not head.minor):
        raise Refusal("bad_request", "Transfer-Encoding beside Content-Length, or in an HTTP/1.0 request")
    if length is not None:
        head.length = length
    if host is None and head.minor:
        raise Refusal("bad_request", "HTTP/1.1 needs a Host header")
    head.host = host or b""
    head.keep_alive = b"close" not in nominated and (head.minor == 1 or b"keep-alive" in nominated)
    if protocols and b"upgrade" in nominated and head.minor and not head.length:
        head.upgrade = _upgrade_of(protocols)
    kept = without(data, cuts, len(low)) if cuts else data[: len(low)]
    if head.target[0] != 0x2F or not head.minor or head.method in _NOT_SERVED:
        kept = _unusual(head, kept)
    if any(name not in _USUAL_NOMINATIONS for name in nominated):
        kept = _without_nominated(head, kept, nominated)
    head.kept = kept + plain_length


def _upgrade_of(protocols: list[bytes]) -> bytes | None:
    """What may be passed on of an Upgrade field. Never h2c: what is in such a tunnel would pass all rules by."""
    names = [name for name in (p.strip(b" \t") for p in protocols) if _PROTOCOL.fullmatch(name)]
    return b", ".join(name for name in names if not name.lower().startswith(b"h2c")) or None


def _without_nominated(head: RequestHead, kept: bytes, nominated: list[bytes]) -> bytes:
    """Drop the fields that the client's Connection header names as meant for this hop only."""
    named = {name for name in nominated if name not in _KEPT}
    if b"authorization" in named:
        head.authorization = b""
    if b"x-api-key" in named:
        head.api_key = b""
    lines = kept.split(b"\r\n")
    return b"\r\n".join([lines[0], *(x for x in lines[1:] if x.partition(b":")[0].lower() not in named)])


def _unusual(head: RequestHead, kept: bytes) -> bytes:
    """Requests that are not `METHOD /path HTTP/1.1`: rewritten to that, or refused."""
    if head.method in _NOT_SERVED:
        raise Refusal("method_not_allowed", f"{head.method.decode()} is not served here")
    if absolute := _ABSOLUTE.fullmatch(head.target):
        # RFC 9112 3.2.2: the target's authority counts, whatever Host says.
        if not _HOST.fullmatch(absolute[1]):
            raise Refusal("bad_request", "the request target's authority is not a host with an optional port")
        head.host = absolute[1]
        path = absolute[2]
        head.target = path if path[:1] == b"/" else b"/" + path
        lines = [x for x in kept.split(b"\r\n")[1:] if not x.lower().startswith(b"host:")]
        kept = b"\r\n".join([b"", b"host: " + head.host, *lines])
    elif head.target[0] == 0x2F or (head.target == b"*" and head.method == b"OPTIONS"):
        kept = kept[kept.index(b"\r\n") :]
    else:
        raise Refusal("bad_request", "the request target must begin with '/'")
    return b"%b %b HTTP/1.1%b" % (head.method, head.target, kept)


def _timeout_of(value: bytes) -> float:
    value = value.strip(b" \t")
    if not value.isdigit() or len(value) > 10:
        raise Refusal("bad_request", "x-request-timeout-ms must be a whole number of milliseconds")
    return float(value)


def _not_plain(data: bytes, end: int, limits: Limits) -> RequestHead | None:
    """What the first expression didn't take: unfinished (None), begun with an empty line, or broken (Refusal)."""
    if data[:2] == b"\r\n":
        if data[2:3] in (b"\r", b"\n"):
            raise Refusal("bad_request", "empty lines before the request")
        if len(data) == 2:
            return None
        head = parse_request(data[2:], limits)
        if head is not None:
            head.size += 2
        return head
    if end > limits.head or (end < 0 and len(data) > limits.head):
        if b"\r\n" not in data[: limits.head]:
            raise Refusal("uri_too_long", f"the request line is longer than {limits.head} bytes")
        raise Refusal("headers_too_large", f"the headers are longer than {limits.head} bytes")
    line = data.find(b"\r\n") + 2
    if line > 1 and not _LINE.match(data):
        if _VERSION.match(data) and not re.match(rb"[^\r\n]* HTTP/1\.[01]\r\n", data):
            raise Refusal("version_not_supported", "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise Refusal("bad_request", "the request line is not METHOD TARGET HTTP/1.1")
    if end < 0:
        if not _FIRST_BYTES.match(data):
            raise Refusal("bad_request", "this is not an HTTP request")
        if why := broken_line_end(data):
            raise Refusal("bad_request", why)
        return None
    raise Refusal("bad_request", broken_line_end(data[: end + 4]) or broken_field(data[line : end + 2]))
