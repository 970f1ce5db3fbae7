"""The head of a response: how long its body is, and the bytes that may go on to the client.

Decides alone what is a well-formed response; anything else is BadResponse, and the connection to the host is of no
further use. Also writes the balancer's own answers (refusals).
"""

from __future__ import annotations

import re

from fleet_balancer.http.grammar import (
    CHUNKED,
    FIELDS,
    UNTIL_CLOSE,
    VALUE,
    Limits,
    broken_field,
    broken_line_end,
    length_of,
    tokens_of,
    without,
)
from fleet_balancer.http.usual import CONNECTION, REQUEST_ID, USUAL_RESPONSE
from fleet_wire.refusal import Refusal

_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: " + VALUE + rb"*+)?+\r\n" + FIELDS + rb"\r\n")
_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [^\r\n]*)?\r\n")
_SPECIAL = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|keep-alive|proxy-connection|proxy-authenticate|upgrade|te|"
    rb"x-request-id|retry-after|endpoint-load-metrics): ?([^\r]*)"
)
# Connection options that name no field to drop: framing stays, and the lines of the others are cut in any case.
_NOT_NAMED = frozenset((b"content-length", b"transfer-encoding", b"close", b"keep-alive", b"upgrade", b"te"))
REASON = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    414: b"URI Too Long",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


_STATUS = {b"%d" % status: status for status in range(100, 600)}


class BadResponse(Exception):
    """The host sent what is not an HTTP/1.x response. str() says which rule it breaks."""


class ResponseHead:
    """A response's head.

    `size` is how many input bytes it took. `length` is the body's bytes, CHUNKED or UNTIL_CLOSE. `kept` is the
    status line and the end-to-end fields with their CRLFs, without the empty line and without any x-request-id.
    `keep_alive` is whether the host lets the connection be used again, `retry_after` whether it says when to come
    again, `load` the value of its endpoint-load-metrics (ORCA), `upgrade` what protocol it names to switch to.
    """

    status: int
    size: int
    kept: bytes
    length: int
    keep_alive: bool = True
    retry_after: bool = False
    upgrade: bytes | None = None
    load: bytes | None = None

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} length={self.length} keep_alive={self.keep_alive}>"


def parse_response(data: bytes, method: bytes, limits: Limits) -> ResponseHead | None:
    """The head at the start of `data`, answering `method`; None while it is unfinished. Raises BadResponse."""
    match = USUAL_RESPONSE.match(data)
    if match is None:
        return parse_strictly(data, method, limits)
    code, length, staying, request_id = match.groups()
    size = match.end()
    if length is None or code == b"204" or (size > limits.sure and not _within(data, size, limits)):
        return parse_strictly(data, method, limits)
    head = ResponseHead()
    head.status = _STATUS[code]
    head.size = size
    head.length = int(length) if method != b"HEAD" and code != b"304" else 0
    if staying is None and request_id is None:
        head.kept = data[: size - 2]
        return head
    cuts = []
    if staying is not None:
        cuts.append((match.start(3) - CONNECTION, match.end(3) + 2))
    if request_id is not None:
        cuts.append((match.start(4) - REQUEST_ID, match.end(4) + 2))
        cuts.sort()
    head.kept = without(data, cuts, size - 2)
    return head


def _within(data: bytes, size: int, limits: Limits) -> bool:
    return size - 4 <= limits.head and data.count(b"\r\n", 0, size - 4) <= limits.fields


def parse_strictly(data: bytes, method: bytes, limits: Limits) -> ResponseHead | None:
    """As parse_response, for every head there is."""
    end = data.find(b"\r\n\r\n")
    match = _HEAD.match(data) if end > 0 else None
    if match is None or end > limits.head:
        _explain(data, end, limits)
        return None
    if data.count(b"\r\n", 0, end) > limits.fields:
        raise BadResponse(f"more than {limits.fields} header lines")
    head = ResponseHead()
    minor, code = match.groups()
    head.status = int(code)
    head.size = end + 4
    _read_special(head, data, data[: end + 2].lower(), minor == b"0", method)
    return head


def _read_special(head: ResponseHead, data: bytes, low: bytes, old: bool, method: bytes) -> None:
    """Fill in `head` from every field that matters, and cut out of `kept` what must not reach the client."""
    status = head.status
    chunked = False
    length: int | None = None
    plain_length = b""
    nominated: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    for found in _SPECIAL.finditer(low):
        name, value = found.groups()
        if name == b"content-length":
            number = length_of(value.strip(b" \t"))
            if number is None or (length is not None and number != length):
                raise BadResponse("Content-Length is not one plain decimal number")
            if length is not None or status == 204 or status < 200:
                cuts.append(found.span())
            elif not value.isdigit():
                cuts.append(found.span())
                plain_length = b"content-length: %d\r\n" % number
            length = number
            continue
        if name == b"retry-after":
            head.retry_after = True
            continue
        cuts.append(found.span())
        if name == b"endpoint-load-metrics":
            head.load = data[found.start(2) : found.end(2)].strip(b" \t")
        elif name == b"upgrade":
            head.upgrade = data[found.start(2) : found.end(2)].strip(b" \t")
        elif name == b"connection":
            nominated += tokens_of(value)
        elif name == b"transfer-encoding":
            if chunked or old or value.strip(b" \t") != b"chunked":
                raise BadResponse("Transfer-Encoding is not exactly 'chunked'")
            chunked = True
    if chunked and length is not None:
        raise BadResponse("both Content-Length and Transfer-Encoding are given")
    if method == b"HEAD" or status == 204 or status == 304 or status < 200:
        head.length = 0
    elif chunked:
        head.length = CHUNKED
    elif length is not None:
        head.length = length
    else:
        head.length = UNTIL_CLOSE
    kept = without(data, cuts, len(low))
    if named := {name for name in nominated if name not in _NOT_NAMED}:
        lines = kept.split(b"\r\n")
        kept = b"\r\n".join([lines[0], *(x for x in lines[1:] if x.partition(b":")[0].lower() not in named)])
    may_stay = b"keep-alive" in nominated if old else b"close" not in nominated
    head.keep_alive = may_stay and head.length != UNTIL_CLOSE
    head.kept = (b"HTTP/1.1" + kept[8:] if old else kept) + plain_length


def _explain(data: bytes, end: int, limits: Limits) -> None:
    """Return where the head is merely unfinished; else raise BadResponse."""
    if end > limits.head or (end < 0 and len(data) > limits.head):
        raise BadResponse(f"the headers are longer than {limits.head} bytes")
    line = data.find(b"\r\n") + 2
    if (line > 1 and not _LINE.match(data)) or not (data[:7] == b"HTTP/1."[: len(data)]):
        raise BadResponse("the status line is not HTTP/1.1 NNN REASON")
    if end < 0:
        if why := broken_line_end(data):
            raise BadResponse(why)
        return
    raise BadResponse(broken_line_end(data[: end + 4]) or broken_field(data[line : end + 2]))


def refusal_bytes(refusal: Refusal, id_line: bytes, *, close: bool, bodiless: bool = False) -> bytes:
    """A refusal as a whole response. `id_line`: the x-request-id field with its CRLF, or empty.

    `bodiless` for HEAD: the head alone, with the length of the body not sent.
    """
    body = refusal.body()
    lines = [b"HTTP/1.1 %d %b" % (refusal.status, REASON[refusal.status])]
    lines += [f"{name}: {value}".encode() for name, value in refusal.headers()]
    lines.append(b"content-length: %d" % len(body))
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, id_line, b"" if bodiless else body])
