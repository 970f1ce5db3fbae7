"""Workers that POST all the time, each on a keep-alive connection of its own, and remember what became of each POST."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

BODY = b"x" * 100


@dataclass(slots=True)
class Post:
    """`sent` and `done` in seconds of the monotonic clock; `done` None: no answer yet. `status` 0: broken off."""

    id: str
    sent: float
    done: float | None = None
    status: int = 0

    @property
    def failed(self) -> bool:
        return self.done is not None and not 200 <= self.status < 300


@dataclass
class Load:
    """All POSTs, in the order in which they were sent. `running` ends it: what is under way is still awaited."""

    port: int
    posts: list[Post] = field(default_factory=list)
    running: bool = True
    open: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def failed(self) -> list[Post]:
        return [p for p in self.posts if p.failed]

    def rate(self, start: float, end: float) -> float:
        """Good answers a second between two times."""
        good = sum(p.done is not None and start <= p.done < end and not p.failed for p in self.posts)
        return good / (end - start)


class Worker(asyncio.Protocol):
    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.number = number
        self.count = 0
        self.post: Post | None = None
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.data = b""
        self.load.open += 1
        self.send()

    def send(self) -> None:
        if not self.load.running:
            self.transport.close()
            return
        self.count += 1
        self.post = Post(f"w{self.number}-{self.count}", time.monotonic())
        self.load.posts.append(self.post)
        self.transport.write(
            b"POST /v1/models/m:predict HTTP/1.1\r\nhost: bench\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (self.post.id.encode(), len(BODY), BODY)
        )

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:  # to its end, then
            return
        size = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(self.data) < end + 4 + size:
            return
        self.ended(int(head[9:12]))
        self.data = self.data[end + 4 + size :]
        if b"\r\nconnection: close" in head:
            self.transport.close()
        else:
            self.send()

    def ended(self, status: int) -> None:
        post, self.post = self.post, None
        if post is not None:
            post.status = status
            post.done = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.open -= 1
        status = int(self.data[9:12]) if self.data[:5] == b"HTTP/" else 0
        self.ended(status)
        if not self.load.running:
            if not self.load.open:
                self.load.ended.set()
        else:
            asyncio.get_running_loop().create_task(self.connect())

    async def connect(self) -> None:
        while self.load.running:
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.load.port)
                return
            except OSError:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def posting(port: int, workers: int) -> AsyncIterator[Load]:
    """`workers` POST while the block runs. At its end up to a second is given to what is under way."""
    load = Load(port)
    await asyncio.gather(*(Worker(load, n).connect() for n in range(workers)))
    try:
        yield load
    finally:
        load.running = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await load.ended.wait()
