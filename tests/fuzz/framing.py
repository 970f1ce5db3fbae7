"""Random HTTP against the framing of the balancer, and against h11: `python tests/fuzz/framing.py --minutes 10`.

Inputs are the cases of tests/balancer/http_cases.json, cut, joined, repeated and sprinkled with the words that parsers
stumble over. Each goes through both readers, ours whole and in pieces. A run fails on any exception but a refusal, on
an answer that depends on the pieces, and on every disagreement with h11 that EXPLAINED does not name. With
--engine atheris (PyPI) coverage guides the inputs. The seed is printed; --seed plays it again.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h11

from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder
from fleet_balancer.http.grammar import CHUNKED, UNTIL_CLOSE, Limits
from fleet_balancer.http.request import parse_request
from fleet_balancer.http.response import BadResponse, parse_response
from fleet_wire.refusal import Refusal

CORPUS = Path(__file__).parents[1] / "balancer" / "http_cases.json"
LIMITS = Limits(body=10**12)
WORDS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"\r\n\r\n",
        b"0\r\n\r\n",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n", b"Host: a.test\r\n"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: x\r\n",
    ),
    *(
        b"Connection: close\r\n",
        b"Connection: content-length\r\n",
        b"Expect: 100-continue\r\n",
        b" folded\r\n",
    ),
    *(b"5\r\nhello\r\n", b"5;x=y\r\nhello\r\n", b"05\r\nhello\r\n", b"-1\r\n", b"fffffffff\r\n", b"X: y\r\n"),
    *(
        b"GET / HTTP/1.1\r\n",
        b"POST /p HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204 \r\n",
        b"HTTP/2.0",
    ),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"http://b.test/x", b"*", b"[::1]:80", b"Upgrade: websocket\r\n"),
]


@dataclass(frozen=True)
class Read:
    """One message as a reader saw it. kind: whole, refused or unfinished. `used`: bytes of head and body."""

    kind: str
    line: tuple[bytes, ...] = ()
    body: bytes = b""
    used: int = 0
    why: str = ""


# Where the two differ on purpose: (our kind, their kind, what our or their reason matches, why it is right).
EXPLAINED = [
    (
        "refused",
        "whole",
        r"LF without CR",
        "RFC 9112 2.2 lets a server be lenient with a bare LF; we are not",
    ),
    ("refused", "whole", r"begins with white space", "obsolete folding must be refused or replaced (5.2)"),
    (
        "refused",
        "whole",
        r"Transfer-Encoding",
        "CL beside TE, or TE in HTTP/1.0, is how smuggling begins (6.1)",
    ),
    (
        "refused",
        "whole",
        r"Content-Length",
        "h11 takes lists of equal lengths; we take one plain number (6.3)",
    ),
    ("refused", "whole", r"Host|authority", "h11 does not look into Host; RFC 9112 3.2 asks for 400"),
    (
        "refused",
        "whole",
        r"request target|request line",
        "h11 takes any target; we take a path or an http URL",
    ),
    ("refused", "whole", r"is not served here", "CONNECT and TRACE have no use on a fleet"),
    ("refused", "whole", r"HTTP/1\.0 and HTTP/1\.1|is not HTTP/1\.1 NNN", "h11 takes versions like HTTP/1.2"),
    ("refused", "whole", r"control byte|may not have|no name", "h11 is lenient with some bytes"),
    (
        "refused",
        "whole",
        r"chunk|trailer|CRLF",
        "extensions, sizes and trailers are bounded and checked here",
    ),
    ("refused", "whole", r"empty lines before", "one empty line is enough leniency (2.2)"),
    ("refused", "whole", r"milliseconds|x-request-timeout-ms", "a field of ours with a value it can't have"),
    ("refused", "whole", r"more than|longer than", "limits"),
    ("refused", "whole", r"not an HTTP request", "first bytes that no method begins with"),
    ("refused", "whole", r"Expect", "an expectation nobody can meet"),
    ("refused", "unfinished", r"", "what can never become a message is refused as soon as that is known"),
    ("unfinished", "refused", r"", "seen only with the end of the head here; the same refusal follows"),
    (
        "whole",
        "refused",
        r"SWITCH_UPGRADE",
        "the connection, not its framing, knows whether a 101 was asked for",
    ),
    ("whole", "refused", r"no request line received", "a server should skip an empty line (2.2)"),
    ("whole", "refused", r"Transfer-Encoding|Content-Length", "in a trailer: dropped here (RFC 9110 6.5.1)"),
    ("refused", "whole", r"no colon", "a control byte in the reason phrase"),
]


class Disagreement(AssertionError):
    """The two readers differ, and nothing in EXPLAINED says why."""


def ours_request(data: bytes) -> Read:
    try:
        head = parse_request(data, LIMITS)
    except Refusal as refusal:
        return Read("refused", why=refusal.message)
    if head is None:
        return Read("unfinished")
    line = (head.method, head.target)
    return _body(data, head.size, head.length, line)


def ours_response(data: bytes, method: bytes) -> Read:
    try:
        head = parse_response(data, method, LIMITS)
    except BadResponse as bad:
        return Read("refused", why=str(bad))
    if head is None:
        return Read("unfinished")
    return _body(data, head.size, head.length if head.status >= 200 else 0, (b"%d" % head.status,))


def _body(data: bytes, size: int, length: int, line: tuple[bytes, ...]) -> Read:
    if length == UNTIL_CLOSE:
        return Read("whole", line, data[size:], len(data))
    if length != CHUNKED:
        if len(data) < size + length:
            return Read("unfinished", line)
        return Read("whole", line, data[size : size + length], size + length)
    decoder = ChunkedDecoder()
    try:
        body = decoder.feed(data[size:])
    except BadChunk as bad:
        return Read("refused", why=str(bad))
    if not decoder.done:
        return Read("unfinished", line)
    return Read("whole", line, body, len(data) - len(decoder.rest))


def h11_request(data: bytes) -> Read:
    return _h11(h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20), data)


def h11_response(data: bytes, method: bytes) -> Read:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    return _h11(connection, data)


def _h11(connection: h11.Connection, data: bytes) -> Read:
    line: tuple[bytes, ...] = ()
    body = b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                if (
                    isinstance(connection.their_state, type(h11.SEND_BODY))
                    and line
                    and not _framed(connection)
                ):
                    return Read("whole", line, body, len(data))
                return Read("unfinished", line)
            if isinstance(event, h11.Request):
                line = (event.method, event.target)
            elif isinstance(event, h11.InformationalResponse):
                return Read(
                    "whole", (b"%d" % event.status_code,), b"", len(data) - len(connection.trailing_data[0])
                )
            elif isinstance(event, h11.Response):
                line = (b"%d" % event.status_code,)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Read("whole", line, body, len(data) - len(connection.trailing_data[0]))
            else:
                return Read("unfinished", line)
    except h11.RemoteProtocolError as error:
        return Read("refused", why=str(error))


def _framed(connection: h11.Connection) -> bool:
    """Whether the body has an end of its own; else it ends with the connection."""
    return type(connection._reader).__name__ != "Http10Reader"


def compare(ours: Read, theirs: Read, data: bytes, tally: collections.Counter[str]) -> None:
    if ours.kind == theirs.kind:
        if ours.kind == "whole":
            same = ours.line[-1:] == theirs.line[-1:] or b"://" in theirs.line[-1]
            if not same or ours.body != theirs.body or ours.used != theirs.used:
                raise Disagreement(f"read differently\n ours {ours}\n h11  {theirs}\n {data!r}")
        tally[f"both {ours.kind}"] += 1
        return
    for mine, other, pattern, why in EXPLAINED:
        if (mine, other) == (ours.kind, theirs.kind) and re.search(pattern, ours.why or theirs.why):
            tally[f"{mine} here, {other} by h11: {why}"] += 1
            return
    raise Disagreement(f"unexplained\n ours {ours}\n h11  {theirs}\n {data!r}")


def in_pieces(data: bytes, rng: random.Random) -> None:
    """Whatever the pieces, a head that was refused early stays refused, and one that was read stays read."""
    whole = ours_request(data)
    at = 0
    while at < len(data):
        at += rng.randint(1, max(1, len(data) // 4))
        part = ours_request(data[:at])
        if part.kind == "refused" and whole.kind != "refused":
            raise Disagreement(f"refused at {at} bytes ({part.why}), read whole\n {data!r}")
        if part.kind == "whole" and (whole.kind != "whole" or part.used != whole.used):
            raise Disagreement(f"read at {at} bytes, not whole\n {part}\n {whole}\n {data!r}")


def one(data: bytes, rng: random.Random, tally: collections.Counter[str]) -> None:
    compare(ours_request(data), h11_request(data), data, tally)
    in_pieces(data, rng)
    for method in (b"GET", b"HEAD"):
        compare(ours_response(data, method), h11_response(data, method), data, tally)


def seeds() -> list[bytes]:
    """The raw bytes of every case that is not a script of parts."""
    cases = json.loads(CORPUS.read_text(encoding="utf-8"))
    raws = (case["raw"] for part in ("requests", "responses") for case in cases[part])
    return [raw.encode("latin-1") for raw in raws if isinstance(raw, str)]


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
        at = rng.randint(0, len(data))
        what = rng.randrange(6)
        if what == 0:
            data[at:at] = rng.choice(WORDS)
        elif what == 1:
            del data[at : at + rng.choice((1, 1, 2, 8, 40))]
        elif what == 2 and data:
            data[min(at, len(data) - 1)] = rng.randrange(256)
        elif what == 3:
            other = rng.choice(corpus)
            cut = rng.randint(0, len(other))
            data[at:] = other[cut:]
        elif what == 4:
            end = min(len(data), at + rng.randint(1, 30))
            data[at:at] = data[at:end]
        else:
            data[at : at + 2] = rng.choice(WORDS)
    return bytes(data[:8000])


def by_chance(minutes: float, seed: int) -> tuple[int, collections.Counter[str]]:
    rng = random.Random(seed)
    tally: collections.Counter[str] = collections.Counter()
    corpus = seeds()
    until = time.monotonic() + 60.0 * minutes
    tried = 0
    while time.monotonic() < until:
        one(mutated(rng, corpus), rng, tally)
        tried += 1
    return tried, tally


def by_coverage(minutes: float, seed: int) -> None:
    atheris = importlib.import_module("atheris")  # a tool of this one mode, with wheels for few platforms
    atheris.instrument_all()
    rng = random.Random(seed)
    tally: collections.Counter[str] = collections.Counter()

    def target(data: bytes) -> None:
        one(data, rng, tally)

    check: Callable[[bytes], None] = target
    atheris.Setup([sys.argv[0], f"-max_total_time={round(60 * minutes)}", f"-seed={seed or 1}"], check)
    atheris.Fuzz()


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--minutes", type=float, default=10.0)
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    p.add_argument("--engine", choices=("chance", "atheris"), default="chance")
    args = p.parse_args()
    print(f"seed {args.seed}", flush=True)
    if args.engine == "atheris":
        by_coverage(args.minutes, args.seed)
        return 0
    try:
        tried, tally = by_chance(args.minutes, args.seed)
    except Disagreement as found:
        print(found)
        return 1
    print(f"{tried} inputs, each as a request and twice as a response; no crash, nothing unexplained")
    for what, count in tally.most_common():
        print(f"{count:9} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
