"""Listening sockets: opened so that several processes can share a port, and handed from one process to the next.

A port is first bound alone, so that a second balancer on it is an error and never a silent partner; only then is it
opened to sockets of our own workers (SO_REUSEPORT, socket(7)). Each worker has a socket of its own and the kernel deals
the connections out; the process that opened them keeps all of them, so what waits at a dead worker's socket is served
by the next one, and what waits at a hand-over by the new process.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass

BACKLOG = 4096


@dataclass(frozen=True)
class Listener:
    """An address that is listened on. `text` is how the operator wrote it, which may have port 0."""

    text: str
    sockets: tuple[socket.socket, ...]

    @property
    def address(self) -> str:
        """Where clients connect: "HOST:PORT"."""
        host, port = self.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def descriptors(self) -> list[int]:
        return [s.fileno() for s in self.sockets]

    def copies(self) -> list[socket.socket]:
        """The same sockets once more, for a loop that closes what it was given."""
        return [s.dup() for s in self.sockets]

    def close(self) -> None:
        for s in self.sockets:
            s.close()


def adopt(text: str, descriptors: Sequence[int]) -> Listener:
    """Sockets that this process was started with."""
    return Listener(text, tuple(socket.socket(fileno=d) for d in descriptors))


def opened(text: str, host: str, port: int, count: int = 1) -> Listener:
    """Listen on every address of `host`, with `count` sockets each. Raises OSError where that is not possible."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            if sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sockets.append(_bound(family, address, alone=True))
            sockets += [_bound(family, sockets[-1].getsockname(), alone=False) for _ in range(count - 1)]
    except OSError as error:
        for s in sockets:
            s.close()
        raise OSError(error.errno, f"{text}: {error.strerror or error}{_hint(error.errno)}") from None
    return Listener(text, tuple(sockets))


def _hint(number: int | None) -> str:
    """What to do about it."""
    if number == errno.EADDRINUSE:
        return "; `ss -ltnp` says by whom: stop that, or name another port"
    if number == errno.EADDRNOTAVAIL:
        return ": it is no address of this machine (0.0.0.0 is all of them)"
    if number == errno.EACCES:
        return "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    return ""


def widened(listener: Listener, count: int) -> Listener:
    """At least `count` sockets on the same address. None is ever closed: connections may wait there."""
    first = listener.sockets[0]
    more = [
        _bound(first.family, first.getsockname(), alone=False) for _ in range(count - len(listener.sockets))
    ]
    return Listener(listener.text, (*listener.sockets, *more))


def _bound(family: int, address: object, *, alone: bool) -> socket.socket:
    s = socket.socket(family, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not alone:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(address)  # type: ignore[arg-type]
        if alone:
            # Set before listen(), which is when the kernel puts the socket in the port's group.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.listen(BACKLOG)
        s.setblocking(False)
    except OSError:
        s.close()
        raise
    return s
