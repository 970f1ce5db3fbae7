"""Which heads take the short way, and that nothing doubtful does."""

from __future__ import annotations

import pytest

from fleet_agent.http.head import read

PLAIN = b"POST /v1/models/a:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-Request-Id:  r1 \r\n\r\n"


def test_an_ordinary_head_is_read():
    head = read(PLAIN + b"abc")
    assert head is not None
    assert (head.path, head.length, head.end) == (b"/v1/models/a:predict", 3, len(PLAIN))
    assert head.headers == {b"content-length": b"3", b"x-request-id": b"r1"}


@pytest.mark.parametrize("path", [b"/v2/models/a/b/versions/2/infer", b"/v1/embeddings"])
def test_the_other_calls_to_models_are_ordinary_too(path):
    assert read(PLAIN.replace(b"/v1/models/a:predict", path)) is not None


@pytest.mark.parametrize(
    "change",
    [
        (b"POST", b"GET"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/v1/models/a:predict", b"/v1/models/a:predict?x=1"),
        (b"/v1/models/a:predict", b"/v1/models/%61:predict"),
        (b"/v1/models/a:predict", b"http://x/v1/models/a:predict"),
        (b"/v1/models/a:predict", b"/status"),
        (b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding: chunked\r\n"),
        (b"Host: x\r\n", b"Host: x\r\nTRANSFER-ENCODING:chunked\r\n"),
        (b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding : chunked\r\n"),
        (b"Host: x\r\n", b"Host: x\r\n Transfer-Encoding: chunked\r\n"),
        (b"Host: x\r\n", b"Host: x\nTransfer-Encoding: chunked\r\n"),
        (b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding: chunked\n"),
        (b"Host: x\r\n", b"Host: x\rTransfer-Encoding: chunked\r\n"),
        (b"Host: x\r\n", b"Host: x\x00\r\n"),
        (b"Host: x\r\n", b"Content-Length: 3\r\n"),
        (b"Host: x\r\n", b"content-length: 4\r\n"),
        (b"Content-Length: 3", b"Content-Length: +3"),
        (b"Content-Length: 3", b"Content-Length: 3, 3"),
        (b"Content-Length: 3", b"Content-Length: 0x3"),
        (b"Content-Length: 3", b"Content-Length:"),
        (b"Content-Length: 3\r\n", b""),
        (b"Host: x\r\n", b"Host: x\r\nExpect: 100-continue\r\n"),
        (b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"),
        (b"Host: x\r\n", b"Host: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"),
        (b"Host: x\r\n", b"Host: x\r\nContent-Encoding: gzip\r\n"),
        (b"\r\n\r\n", b"\r\n"),
        (b" /v1", b"  /v1"),
    ],
)
def test_what_is_unusual_is_the_parsers(change):
    changed = PLAIN.replace(*change, 1)
    assert changed != PLAIN
    assert read(changed + b"abc") is None
