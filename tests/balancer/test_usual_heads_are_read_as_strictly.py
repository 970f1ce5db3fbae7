"""The one-pass reading of usual heads accepts nothing that the strict reading refuses, and says the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.http import request, response
from fleet_balancer.http.grammar import Limits
from fleet_balancer.http.request import RequestHead, parse_request
from fleet_balancer.http.response import BadResponse, ResponseHead, parse_response
from fleet_balancer.http.usual import USUAL_REQUEST, USUAL_RESPONSE
from fleet_wire.refusal import Refusal

LIMITS = Limits(head=400, target=60, fields=8, body=10_000)
NAMES = [
    "Host", "Content-Length", "Content-Type", "Content-Lengt", "Content-Lengths", "Connection", "Connections",
    "Authorization", "Authority", "Transfer-Encoding", "TE", "T", "Upgrade", "User-Agent", "Expect", "X-Unique",
    "X-Request-ID", "X-Api-Key", "X-Fleet-Model", "X-Forwarded-For", "Keep-Alive", "Proxy-Connection", "Accept",

    "X-Request-ID", "X-Fleet-Model-Version", "X-Fleet-Priority", "Retry-After",
    "Idempotency-Key", "If-Match", "Endpoint-Load-Metrics", "Date", "x", "!#$%&'*+.^_`|~",
]  # fmt: skip
VALUES = [
    "", "a", "0", "5", "05", "+5", "5, 5", "5 ", "10001", "9" * 18, "9" * 19, "keep-alive", "Keep-Alive", "close",
    "keep-alive, close", "upgrade", "a.test", "a.test:80", "[::1]:80", "a b", "Bearer x", "chunked", "\xe9", "\x00",
    "a\tb", "websocket", "100-continue", "\x7f",
]  # fmt: skip
LONG = "GET /" + "y" * 70
cases = st.sampled_from(["lower", "upper", "title", "as_is"])
fields = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from([":", ": ", ":  ", ":\t", " :"]),
        st.sampled_from(VALUES),
        cases,
    ),
    max_size=9,
)
ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"])


def written(start: str, lines: list[tuple[str, str, str, str]], end: str, after: bytes) -> bytes:
    head = start + "\r\n"
    for name, colon, value, case in lines:
        head += (name if case == "as_is" else getattr(name, case)()) + colon + value + end
    return head.encode("latin-1") + b"\r\n" + after


def outcome(read: Any) -> Any:
    """The head as a dict, None, or which error."""
    try:
        head: RequestHead | ResponseHead | None = read()
    except Refusal as refusal:
        return refusal.code
    except BadResponse:
        return "bad"
    if head is None:
        return None
    kind = type(head)
    names = [name for name in kind.__annotations__ if name not in ("unusual", "retry_after")]
    said = {name: getattr(head, name) for name in names}
    # One order of lines is as good as another: what is cut and said again stands at the end.
    said["kept"] = sorted(said["kept"].split(b"\r\n"))
    return said


@given(
    st.sampled_from(["GET /", "POST /v1/x", "PUT /a?b", "TRACE /", "CONNECT a:1", "GET *", "GET http://a/", LONG]),
    st.sampled_from([" HTTP/1.1", " HTTP/1.1", " HTTP/1.1\r\nHost: a", " HTTP/1.1\r\nHost: a", " HTTP/1.0"]),
    fields,
    ends,
    st.sampled_from([b"", b"12345", b"\r\n"]),
)  # fmt: skip
def test_requests(start: str, version: str, lines: Any, end: str, after: bytes) -> None:
    data = written(start + version, lines, end, after)
    assert outcome(lambda: parse_request(data, LIMITS)) == outcome(
        lambda: request.parse_strictly(data, LIMITS)
    )


@given(
    st.sampled_from([f"HTTP/1.{v}" for v in ("1 200 OK", "1 204 No", "1 304", "0 200 OK", "1 101 S", "1 099")]),
    st.sampled_from([b"GET", b"HEAD"]),
    fields,
    ends,
    st.sampled_from([b"", b"12345"]),
)  # fmt: skip
def test_responses(start: str, method: bytes, lines: Any, end: str, after: bytes) -> None:
    data = written(start, lines, end, after)
    assert outcome(lambda: parse_response(data, method, LIMITS)) == outcome(
        lambda: response.parse_strictly(data, method, LIMITS)
    )


def test_usual_traffic_is_usual() -> None:
    """What common clients and servers send takes the fast way."""
    for head in (
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a:80\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n",
        b"POST /v1/x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n"
        b"User-Agent: python-httpx/0.27\r\nContent-Length: 0\r\nAuthorization: Bearer x\r\ntraceparent: 00\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost:a\r\nx-session-id: 7\r\n\r\n",
    ):
        assert USUAL_REQUEST.match(head), head
    for head in (
        b"HTTP/1.1 200 OK\r\ndate: x\r\nserver: uvicorn\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
    ):
        assert USUAL_RESPONSE.match(head), head
