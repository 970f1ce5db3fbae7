"""The framing of requests and chunked bodies, without I/O: any split gives the same, and h11 agrees."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.http.chunked import BadChunk, ChunkedDecoder, encode_chunk, encode_end
from fleet_balancer.http.grammar import CHUNKED, UNTIL_CLOSE, Limits
from fleet_balancer.http.request import RequestHead, parse_request
from fleet_balancer.http.response import BadResponse, ResponseHead, parse_response
from fleet_wire.refusal import Refusal

LIMITS = Limits()
TOKENS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-!#$%&'*+.^_`|~"
names = st.text(TOKENS, min_size=1, max_size=12).map(lambda s: "x-" + s)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
)
fields = st.lists(st.tuples(names, values), max_size=8)
targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=30)
NOISE = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"X",
    b"\x00",
    b"Content-Length: 5\r\n",
    b"Host: c\r\n",
    b"a: b\r\n",
]
NOISE += [b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"5\r\nhello\r\n0\r\n\r\n"]
cuts = st.lists(st.integers(0, 2000), max_size=10)


def head_bytes(method: str, target: str, extra: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} /{target} HTTP/1.1", "Host: a.test", *(f"{n}: {v}" for n, v in extra), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def pieces_of(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(i, len(data)) for i in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def described(head: RequestHead) -> tuple[object, ...]:
    return (head.method, head.target, head.size, head.length, head.keep_alive, head.host, head.kept)


@given(st.sampled_from(["GET", "POST", "PUT", "M-SEARCH"]), targets, fields, cuts, st.integers(0, 10**9))
def test_a_good_head_is_read_the_same_in_any_pieces_and_as_h11_reads_it(
    method: str, target: str, extra: list[tuple[str, str]], at: list[int], length: int
) -> None:
    data = head_bytes(method, target, [*extra, ("Content-Length", str(length))])
    whole = parse_request(data, LIMITS)
    assert whole is not None
    seen = b""
    for piece in pieces_of(data, at):
        assert len(seen) >= len(data) or parse_request(seen, LIMITS) is None
        seen += piece
    parsed = parse_request(seen, LIMITS)
    assert parsed is not None
    assert described(parsed) == described(whole)
    assert whole.length == length

    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(data)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (whole.method, whole.target)
    ours = [line.partition(b": ") for line in whole.kept.split(b"\r\n")[1:-1]]
    stripped = [
        (name.lower(), value.strip(b" \t"))
        for name, _, value in ours
        if not name.lower().startswith(b"x-fleet")
    ]
    theirs = [
        (name, value)
        for name, value in event.headers
        if name not in DROPPED and not name.startswith(b"x-fleet-")
    ]
    assert [x for x in stripped if x[0] not in DROPPED] == theirs


# Headers that hypothesis may make up and that never go on.
DROPPED = {b"x-request-timeout-ms", b"x-real-ip", b"x-request-id"}


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_unfinished_or_refused(data: bytes) -> None:
    try:
        head = parse_request(data, LIMITS)
    except Refusal as refusal:
        assert 400 <= refusal.status <= 505
    else:
        assert head is None or head.size <= len(data)


@given(
    st.sampled_from(
        [b"GET /g HTTP/1.1\r\nHost: a.test\r\n", b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n"]
    ),
    st.lists(
        st.sampled_from(NOISE),
        max_size=8,
    ),
)
def test_what_h11_refuses_in_a_head_is_refused_here(start: bytes, parts: list[bytes]) -> None:
    """The other way round it may be: here it is stricter (bare LF, both lengths, obsolete folding)."""
    data = start + b"".join(parts) + b"\r\n\r\n"
    try:
        head = parse_request(data, LIMITS)
    except Refusal:
        return
    assert head is not None
    other = h11.Connection(h11.SERVER)
    other.receive_data(data[: head.size])
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert (b"transfer-encoding", b"chunked") in event.headers or head.length != CHUNKED
    lengths = [value for name, value in event.headers if name == b"content-length"]
    assert head.length in (0, CHUNKED) or lengths == [str(head.length).encode()]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), cuts, st.binary(max_size=20))
def test_chunks_round_trip_in_any_pieces(chunks: list[bytes], at: list[int], after: bytes) -> None:
    data = b"".join(encode_chunk(c) for c in chunks) + encode_end(b"x-sum: 1\r\n")
    decoder = ChunkedDecoder()
    out = rest = b""
    for piece in pieces_of(data + after, at):
        if decoder.done:
            rest += piece
        else:
            out += decoder.feed(piece)
    assert decoder.done
    assert out == b"".join(chunks)
    assert decoder.trailers == b"x-sum: 1\r\n"
    assert decoder.rest + rest == after
    assert decoder.total == len(out)


@given(st.binary(max_size=60), st.sampled_from([b"", b"5\r\nhello\r\n", b"0\r\n"]), cuts)
def test_no_bytes_after_a_chunk_surprise_the_decoder(noise: bytes, start: bytes, at: list[int]) -> None:
    """In one piece or in many: the same payload before the same end or the same refusal."""

    def decode(pieces: list[bytes]) -> tuple[bytes, bool, bool]:
        decoder = ChunkedDecoder()
        out = b""
        try:
            for piece in pieces:
                if not decoder.done:
                    out += decoder.feed(piece)
        except BadChunk:
            return b"", False, True
        return out, decoder.done, False

    data = start + noise
    whole, split = decode([data]), decode(pieces_of(data, at))
    # A broken end may be noticed a little earlier or later, never taken for a good one.
    assert whole == split or (whole[2] != split[2] and not whole[1] and not split[1])


@pytest.mark.parametrize("end", [b"5\r\nhello\r\n0\r\n\r\n", b"a;ext=1\r\n0123456789\r\n00\r\n\r\n"])
def test_h11_decodes_the_same_chunks(end: bytes) -> None:
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + end)
    assert isinstance(other.next_event(), h11.Request)
    theirs = b""
    while isinstance(event := other.next_event(), h11.Data):
        theirs += event.data
    assert isinstance(event, h11.EndOfMessage)
    decoder = ChunkedDecoder()
    assert decoder.feed(end) == theirs
    assert decoder.done


@pytest.mark.parametrize(
    ("connection", "alive"),
    [(b"", True), (b"Connection: close\r\n", False), (b"Connection: Keep-Alive, Close\r\n", False)],
)
def test_connection_options_decide_whether_it_stays_open(connection: bytes, alive: bool) -> None:
    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + connection + b"\r\n", LIMITS)
    assert head is not None
    assert head.keep_alive is alive
    assert b"onnection" not in head.kept


@pytest.mark.parametrize(
    ("method", "response", "length"),
    [
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 5),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", CHUNKED),
        (b"GET", b"HTTP/1.1 200\r\n\r\n", UNTIL_CLOSE),
        (b"GET", b"HTTP/1.0 200 OK\r\n\r\n", UNTIL_CLOSE),
    ],
)
def test_a_responses_length(method: bytes, response: bytes, length: int) -> None:
    head = parse_response(response, method, LIMITS)
    assert isinstance(head, ResponseHead)
    assert (head.length, head.size) == (length, len(response))
    for i in range(len(response)):
        assert parse_response(response[:i], method, LIMITS) is None


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"]),
)
def test_any_bytes_are_a_response_or_unfinished_or_bad(noise: bytes, start: bytes) -> None:
    try:
        head = parse_response(start + noise, b"GET", LIMITS)
    except BadResponse as error:
        assert str(error)
    else:
        assert head is None or head.size <= len(start + noise)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "folding is obsolete"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", "between a header's name and its colon"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", "the value of header X holds a control byte"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbogus\r\n\r\n", "no colon"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "LF without CR"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "only HTTP/1.0 and HTTP/1.1"),
    ],
)
def test_a_refusal_says_which_rule_was_broken(raw: bytes, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        parse_request(raw, LIMITS)
