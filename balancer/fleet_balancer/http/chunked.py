"""The chunked coding (RFC 9112 section 7.1), both ways. Decides where a chunked body ends.

Strict: sizes are bare hexadecimal, lines end in CRLF, extensions and trailers are bounded; extensions are dropped.
"""

from __future__ import annotations

import re

from fleet_balancer.http.grammar import FIELDS, VALUE, broken_line_end

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;" + VALUE + rb"*+)?+\r\n")
_TRAILERS = re.compile(FIELDS + rb"\r\n")
MAX_SIZE_LINE = 1024
MAX_TRAILERS = 8 * 1024
MAX_TRAILER_FIELDS = 64
LAST_CHUNK = b"0\r\n\r\n"

# Fields that a trailer must not carry (RFC 9110 6.5.1): framing, routing, authentication, content description.
_FORBIDDEN = frozenset(
    b"content-length transfer-encoding host connection authorization proxy-authorization te trailer upgrade expect "
    b"keep-alive content-encoding content-type content-range cache-control max-forwards set-cookie cookie forwarded "
    b"www-authenticate proxy-authenticate x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-request-id "
    b"x-request-timeout-ms".split()
)


class BadChunk(Exception):
    """The body is not in the chunked coding. str() says which rule it breaks."""


class ChunkedDecoder:
    """Takes a chunked body in any pieces. After `done`, `rest` is what followed it, `trailers` its field lines."""

    __slots__ = ("_buffer", "_ends", "_left", "_trailing", "done", "rest", "total", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers = b""
        self.total = 0
        self._buffer = b""
        self._left = 0
        self._ends = False
        self._trailing = False

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises BadChunk."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces = []
        at = 0
        size = len(data)
        while at < size:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._ends = not self._left
                continue
            if self._ends:
                if size - at < 2:
                    if data[at] != 0x0D:
                        raise BadChunk("no CRLF after a chunk's data")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise BadChunk("no CRLF after a chunk's data")
                at += 2
                self._ends = False
                continue
            if self._trailing:
                at = self._read_trailers(data, at)
                break
            match = _SIZE.match(data, at)
            if match is None:
                self._check_unfinished_size(data[at:])
                break
            if match.end() - at > MAX_SIZE_LINE:
                raise BadChunk("a chunk's size line is too long")
            at = match.end()
            self._left = int(match[1], 16)
            self.total += self._left
            self._trailing = not self._left
        if self.done:
            self.rest = data[at:]
        else:
            self._buffer = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_unfinished_size(self, line: bytes) -> None:
        if b"\r\n" in line or b"\n" in line or broken_line_end(line):
            raise BadChunk("a chunk's size is not a hexadecimal number on a line that ends in CRLF")
        if len(line) > MAX_SIZE_LINE:
            raise BadChunk("a chunk's size line is too long")
        if not re.match(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*;|[ \t]*$|\r$)", line):
            raise BadChunk("a chunk's size is not a hexadecimal number")

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if max(end, len(data) if end < 0 else 0) - at > MAX_TRAILERS:
            raise BadChunk(f"the trailers are longer than {MAX_TRAILERS} bytes")
        if end < 0:
            if why := broken_line_end(data[at:]):
                raise BadChunk(why)
            return at
        section = data[at : end + 4]
        if not _TRAILERS.fullmatch(section) or section.count(b"\r\n") > MAX_TRAILER_FIELDS:
            raise BadChunk("the trailers are not well-formed header lines")
        lines = section[:-4].split(b"\r\n")
        good = [line for line in lines if line.partition(b":")[0].lower() not in _FORBIDDEN]
        self.trailers = b"".join(line + b"\r\n" for line in good if not line.lower().startswith(b"x-fleet-"))
        self.done = True
        return end + 4


def encode_chunk(payload: bytes) -> bytes:
    """One chunk; empty for an empty payload, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def encode_end(trailers: bytes) -> bytes:
    """The last chunk with its trailers."""
    return b"0\r\n%b\r\n" % trailers if trailers else LAST_CHUNK
