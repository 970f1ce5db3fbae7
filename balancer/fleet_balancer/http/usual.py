"""The heads that nearly all traffic has, each read by one expression in one pass.

Decides nothing of its own: a head that matches is one that the strict reading (request, response) accepts with the
same result, and whatever is unusual in it makes the match fail, so that the strict reading decides. Matching is linear:
quantifiers are possessive, and a line's first letter says which alternative is tried.
"""

from __future__ import annotations

import re

from fleet_balancer.http.grammar import TOKEN, VALUE

_LENGTH = rb" ?(0|[1-9][0-9]{0,17}+)"
_HOST = rb" ?([0-9A-Za-z.\-_~]++(?::[0-9]*+)?+)"
_TOKEN = re.compile(TOKEN)


def _any_case(word: bytes) -> bytes:
    return b"".join(b"[%c%c]" % (c, c - 32) if 0x61 <= c <= 0x7A else re.escape(b"%c" % c) for c in word)


def _lines(captured: dict[bytes, bytes], watched: list[bytes], first_group: int) -> bytes:
    """Field lines. `captured` ones have their value as a group, numbered in the order given here, and may come once;
    none begins with one of `watched`."""
    rest = TOKEN + rb"*+:" + VALUE + rb"*+\r\n"
    groups = {name: number for number, name in enumerate(captured, first_group)}
    firsts = list(dict.fromkeys(name[:1] for name in [*captured, *watched]))
    alternatives = []
    for first in firsts:
        # The commonest of all first: it begins like Content-Length.
        takes = [_any_case(b"ontent-type:") + VALUE + rb"*+\r\n"] if first == b"c" else []
        bars = [_any_case(name[1:]) for name in watched if name[:1] == first]
        for name, value in captured.items():
            if name[:1] == first:
                once = rb"(?(%d)(?!))" % groups[name]
                takes.append(_any_case(name[1:]) + b":" + once + value + rb"\r\n")
                bars.append(_any_case(name[1:]) + b":")
        takes.append(rb"(?!" + b"|".join(bars) + rb")" + rest)
        alternatives.append(_any_case(first) + rb"(?:" + b"|".join(takes) + rb")")
    letters = [c for c in map(b"%c".__mod__, range(0x21, 0x7F)) if _TOKEN.match(c)]
    free = b"".join(re.escape(c) for c in letters if c.lower() not in firsts)
    return rb"(?:" + b"|".join(alternatives) + rb"|[" + free + rb"]" + rest + rb")*+\r\n"


# Groups: method, target, Content-Length, "keep-alive" of Connection, the value of Authorization, host.
USUAL_REQUEST = re.compile(
    rb"(?!CONNECT |TRACE )("
    + TOKEN
    + rb"++) (/[\x21-\x22\x24-\x7e]*+) HTTP/1\.1\r\n"
    + _lines(
        {
            b"content-length": _LENGTH,
            b"connection": rb" ([Kk]eep-[Aa]live)",
            b"authorization": rb"(" + VALUE + rb"++)",
            b"host": _HOST,
        },
        b"transfer-encoding: expect: upgrade: te: keep-alive: proxy-connection: proxy-authorization: forwarded: "
        b"http2-settings: x-request-id: x-request-timeout-ms: x-real-ip: x-forwarded- x-fleet- x-api-key: "
        b"idempotency-key:".split(),
        3,
    )
)
CONNECTION = len(b"connection: ")
AUTHORIZATION = len(b"authorization:")

# Groups: status, Content-Length, "keep-alive" of Connection, the value of x-request-id (an agent echoes it).
USUAL_RESPONSE = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: "
    + VALUE
    + rb"*+)?+\r\n"
    + _lines(
        {
            b"content-length": _LENGTH,
            b"connection": rb" ([Kk]eep-[Aa]live)",
            b"x-request-id": rb"(" + VALUE + rb"*+)",
        },
        b"transfer-encoding: keep-alive: proxy-connection: proxy-authenticate: upgrade: te: retry-after: "
        b"endpoint-load-metrics:".split(),
        2,
    )
)
REQUEST_ID = len(b"x-request-id:")
