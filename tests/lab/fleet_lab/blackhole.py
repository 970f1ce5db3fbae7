"""A port on loopback where packets vanish, as behind a firewall that drops or a machine without power."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def blackhole() -> Iterator[int]:
    """Its port. The backlog of the listener is full and nobody accepts: the kernel answers no further SYN."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port: int = server.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


@contextmanager
def mute() -> Iterator[int]:
    """The port of a server that takes connections and never says a word: a machine whose sshd hangs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]
