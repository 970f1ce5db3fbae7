"""What the front door's memory does: with 10,000 idle keep-alive connections, and while 1 GB passes each way."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.balancer.processes import resident_mb
from bench.balancer.subjects import KEY, serving

REQUEST = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
PIECE = b"z" * 65536


def idle(connections: int, a: int, b: int, folder: Path) -> float:
    """Resident MB of fleetctl with so many connections open, each of which has had one answer."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 2 * connections:
        raise RuntimeError(f"the limit of open files here is {hard}; {2 * connections} are needed")
    with serving("fleetctl", a, b, folder) as (port, pid):
        return asyncio.run(_hold(port, connections, lambda: resident_mb(pid)))


async def _hold(port: int, connections: int, measured: Callable[[], float]) -> float:
    request = REQUEST % (KEY.encode(), 0)
    writers = []
    for _ in range(connections // 100):
        batch = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(100)))
        for reader, writer in batch:
            writer.write(request)
            if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("a request was refused")
            writers.append(writer)
    held = measured()
    for writer in writers:
        writer.close()
    return held


def growth(size: int, download: bool, a: int, b: int, folder: Path) -> float:
    """How many MB fleetctl's memory rose at most while one body of `size` bytes went up, or came down."""
    with serving("fleetctl", a, b, folder) as (port, pid):
        asyncio.run(_pass(port, 1024 * 1024, download))
        before = resident_mb(pid)
        most = before
        over = threading.Event()

        def watch() -> None:
            nonlocal most
            while not over.is_set():
                most = max(most, resident_mb(pid))
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            asyncio.run(_pass(port, size, download))
        finally:
            over.set()
            watcher.join()
        return most - before


async def _pass(port: int, size: int, download: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    if download:
        head = REQUEST.replace(b"\r\n\r\n", b"\r\nx-answer-bytes: %d\r\n\r\n" % size) % (KEY.encode(), 0)
        writer.write(head)
    else:
        writer.write(REQUEST % (KEY.encode(), size))
        left = size
        while left > 0:
            writer.write(PIECE[:left])
            left -= len(PIECE)
            await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"refused: {head[:60]!r}")
    left = size if download else 200
    while left > 0:
        got = await reader.read(1 << 20)
        if not got:
            raise RuntimeError(f"{left} bytes are missing")
        left -= len(got)
    writer.close()
