"""How replies begin."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from fleet_agent.http.call import Reply

_STARTS = 256


class Starts:
    """The status line and headers that many replies begin with, put together once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[tuple[bytes, bytes], ...], bool], bytes] = {}
        self._common: list[tuple[bytes, bytes]] = []
        self._last: tuple[int, tuple[tuple[bytes, bytes], ...], bool] = (0, (), False)
        self._start = b""

    def of(self, reply: Reply, common: list[tuple[bytes, bytes]], close: bool) -> bytes:
        """`common`: what all replies have, a new list whenever it changes (uvicorn's date, once a second)."""
        if common is not self._common or len(self._known) > _STARTS:
            self._common = common
            self._known.clear()
            self._last = (0, (), False)
        # Most replies have the very headers of the one before, which is cheaper to see than to look up.
        if reply.headers is self._last[1] and (reply.status, close) == self._last[::2]:
            return self._start
        key = (reply.status, reply.headers, close)
        start = self._known.get(key)
        if start is None:
            headers = [*common, *reply.headers, *([(b"connection", b"close")] if close else [])]
            lines = b"".join([b"%s: %s\r\n" % pair for pair in headers])
            start = self._known[key] = STATUS_LINE[reply.status] + lines
        self._last, self._start = key, start
        return start
