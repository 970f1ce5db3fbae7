"""Closed-loop load: `load.py PORT CONNECTIONS SECONDS BODY_BYTES KEY` prints {requests, rps, p50_ms, p99_ms, errors}.

Used where wrk is not installed; every request carries a header of its own, so that nothing can be looked up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop


class Worker(asyncio.Protocol):
    """One connection: sends the next request when the answer is complete (answers have 200 bytes of body)."""

    count = 0
    errors = 0
    latencies: list[float] = []

    def __init__(self, body: bytes, until: float, key: bytes) -> None:
        self.body = body
        self.key = key
        self.until = until
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        Worker.count += 1
        self.got = b""
        self.sent_at = time.perf_counter()
        self.transport.write(
            b"POST /v1/models/m:predict HTTP/1.1\r\nHost: bench\r\nX-Unique: %d\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
            % (Worker.count, self.key, len(self.body))
            + self.body
        )

    def data_received(self, data: bytes) -> None:
        self.got += data
        end = self.got.find(b"\r\n\r\n")
        if end < 0 or len(self.got) < end + 204:
            return
        if not self.got.startswith(b"HTTP/1.1 200"):
            Worker.errors += 1
        Worker.latencies.append(time.perf_counter() - self.sent_at)
        if time.perf_counter() < self.until:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or time.perf_counter() < self.until:
            Worker.errors += 1
        self.done.set_result(None)


async def main() -> None:
    port, connections, seconds, size = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        float(sys.argv[3]),
        int(sys.argv[4]),
    )
    key = sys.argv[5].encode()
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    workers = []
    for _ in range(connections):
        _, worker = await loop.create_connection(
            lambda: Worker(b"x" * size, start + seconds, key), "127.0.0.1", port
        )
        workers.append(worker)
    await asyncio.gather(*(worker.done for worker in workers))
    took = time.perf_counter() - start
    seen = sorted(Worker.latencies)
    result = {
        "requests": len(seen),
        "rps": len(seen) / took,
        "p50_ms": seen[len(seen) // 2] * 1000,
        "p99_ms": seen[int(len(seen) * 0.99)] * 1000,
        "errors": Worker.errors,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    uvloop.run(main())
