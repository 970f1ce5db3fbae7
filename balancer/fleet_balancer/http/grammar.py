"""The grammar that requests and responses share, and why a head that breaks it is refused.

Decides what a field line is. RFC 9110 section 5, RFC 9112 sections 2 to 5, read strictly: CRLF only, no obs-fold,
no white space before the colon, no control bytes. Quantifiers are possessive: matching is linear in the input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE = rb"[\t\x20-\x7e\x80-\xff]"
FIELD = TOKEN + rb"++:" + VALUE + rb"*+\r\n"
FIELDS = rb"(?:" + FIELD + rb")*+"

# Body lengths that are not a number of bytes.
CHUNKED = -1
UNTIL_CLOSE = -2

# Longest Content-Length that is read: 10 ** 18 - 1 bytes. int() of more digits is slow, and of > 4,300 an error.
MAX_LENGTH_DIGITS = 18

_FIELD = re.compile(FIELD)
_TOKEN_LIST = re.compile(rb"[^,]+")


@dataclass(frozen=True)
class Limits:
    """How much a peer may send before it is refused. Bytes; `fields` counts lines."""

    head: int = 32 * 1024
    target: int = 16 * 1024
    fields: int = 100
    body: int = 8 * 1024**3
    # A head of at most so many bytes breaks none of the limits on heads (a line has 4 bytes at least).
    sure: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sure", min(self.head, self.target, 4 * self.fields))


def length_of(value: bytes) -> int | None:
    """A Content-Length value as bytes, None where it isn't one plain decimal number (sign, list, leading zero)."""
    if value.isdigit() and len(value) <= MAX_LENGTH_DIGITS and (len(value) == 1 or value[0] != 0x30):
        return int(value)
    return None


def tokens_of(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, lower case, without empty ones."""
    members = (member.strip(b" \t").lower() for member in _TOKEN_LIST.findall(value))
    return [member for member in members if member]


def without(data: bytes, cuts: list[tuple[int, int]], end: int) -> bytes:
    """data[:end] less the spans in `cuts`, which are in order."""
    pieces = []
    at = 0
    for start, stop in cuts:
        pieces.append(data[at:start])
        at = stop
    pieces.append(data[at:end])
    return b"".join(pieces)


def broken_line_end(data: bytes | bytearray, start: int = 0) -> str | None:
    """Why an unfinished head can never become a good one: a bare LF or a bare CR. None: it still can."""
    at = data.find(b"\n", start)
    while at >= 0:
        if at == 0 or data[at - 1] != 0x0D:
            return "a line ends in LF without CR"
        at = data.find(b"\n", at + 1)
    at = data.find(b"\r", start)
    while 0 <= at < len(data) - 1:
        if data[at + 1] != 0x0A:
            return "a CR stands without LF"
        at = data.find(b"\r", at + 1)
    return None


def broken_field(fields: bytes) -> str:
    """Which rule the first bad field line in `fields` (lines with their CRLF) breaks; only called on a failed match."""
    at = 0
    while match := _FIELD.match(fields, at):
        at = match.end()
    line = fields[at:].split(b"\r\n", 1)[0]
    name, colon, _ = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        return "a header line begins with white space (line folding is obsolete)"
    if not colon:
        return "a header line has no colon"
    if not name:
        return "a header has no name"
    if name[-1:] in (b" ", b"\t"):
        return "white space stands between a header's name and its colon"
    if re.fullmatch(TOKEN + rb"+", name):
        return f"the value of header {name.decode('latin-1')} holds a control byte"
    return "a header's name holds a byte that names may not have"
