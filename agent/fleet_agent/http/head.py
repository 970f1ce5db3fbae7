"""Reads the head of an ordinary call to a model, and only that. PURE.

`read` takes HTTP/1.1 in the one form that every client library sends: POST to a model's address, plain header lines,
a body of known length. Whatever is unusual or doubtful (a transfer coding, a header that comes twice, `Expect`, an
upgrade, an escape in the path, a line that ends in a bare newline ...) is None: httptools decides about it, which
refuses what could be read in two ways. So nothing can be smuggled through here that the parser wouldn't take.
Sources: RFC 9112 (3, 5.1, 6.3), RFC 9110 5.6.2 (token).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(
    rb"POST (/v[12]/(?:models/[\w.~/@!$&'()*+,;=-]+(?::predict|/infer)|embeddings)) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+)\r\n",
    re.ASCII,
)
# What changes how the message is read, or wants more than an answer.
_UNUSUAL = frozenset(
    (
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"upgrade",
        b"trailer",
        b"http2-settings",
        b"proxy-connection",
    )
)
# The headers that somebody here looks at; the others are checked for their form and passed over.
_READ = (
    b"accept",
    b"authorization",
    b"connection",
    b"content-length",
    b"content-type",
    b"inference-header-content-length",
    b"traceparent",
    b"tracestate",
    b"x-fleet-model",
    b"x-fleet-priority",
    b"x-request-id",
    b"x-request-timeout-ms",
)
_FIELD = re.compile(
    rb"^(" + b"|".join(sorted((*_READ, *_UNUSUAL))) + rb"):[ \t]*([^\r]*)", re.IGNORECASE | re.MULTILINE
)


@dataclass(slots=True)
class Head:
    """`headers`: those that count here, by lower-case name; `length` of the body in bytes; `end`: where the body begins
    in what was read."""

    path: bytes
    headers: dict[bytes, bytes]
    length: int
    end: int


def read(data: bytes) -> Head | None:
    """The head at the beginning of `data`, if it is whole and ordinary."""
    match = _HEAD.match(data)
    if match is None:
        return None
    path, block = match.groups()
    fields = _FIELD.findall(block)
    headers = {name.lower(): value.rstrip(b" \t") for name, value in fields}
    length = headers.get(b"content-length", b"")
    if (
        len(headers) != len(fields)
        or not _UNUSUAL.isdisjoint(headers)
        or not length.isdigit()
        or len(length) > 9
        or (b"connection" in headers and headers[b"connection"].lower() != b"keep-alive")
    ):
        return None
    return Head(path, headers, int(length), match.end())
