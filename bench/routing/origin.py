"""Nine real hosts in one process: `python origin.py` prints their ports. Each does one request at a time.

POST /v1/models/NAME:predict with the header `x-size` (seconds of work at speed 1) is answered when its turn has come
and its work is done: the work is waiting, so that hosts of all speeds fit on one core. A large model that meets too
little memory is answered 500 at once. GET /readyz and GET /status as an agent answers them; POST /reset forgets all.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.routing.traffic import NEED, NEEDY, SPEEDS, TOTAL, used_at_first  # a script, run by its path

_HEAD = re.compile(rb"(GET|POST) (/[^ ]*) HTTP/1\.1\r\n")
_SIZE = re.compile(rb"\r\nx-size: ?([0-9.]+)\r\n", re.IGNORECASE)
_MODEL = re.compile(rb"/v1/models/([^:]+):predict")


class Host:
    """One host's memory and turn. `free_at`: when the work that it has is done, on the loop's clock."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.speed = SPEEDS[number]
        self.forget()

    def forget(self) -> None:
        self.used = used_at_first(self.number)
        self.held: dict[str, int] = {}
        self.free_at = 0.0
        self.waiting = 0

    def takes(self, model: str) -> bool:
        """Whether `model` finds memory here; it is loaded then."""
        if model not in NEEDY or model in self.held:
            return True
        if self.used + NEED > TOTAL:
            return False
        self.used += NEED
        self.held[model] = NEED
        return True

    def status(self) -> bytes:
        models = [{"name": name, "device_memory_bytes": size} for name, size in self.held.items()]
        memory = {"used_bytes": self.used, "total_bytes": TOTAL}
        return json.dumps(
            {"models": models, "device_memory": memory, "in_flight": self.waiting, "queued": 0}
        ).encode()


class Connection(asyncio.Protocol):
    """One connection; bodies come whole with the head or right after it, and nobody sends ahead."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self.host = host
        self.loop = loop
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        match = _HEAD.match(self.data)
        if end < 0 or match is None:
            return
        length = re.search(rb"\r\ncontent-length: ?([0-9]+)\r\n", self.data[: end + 2], re.IGNORECASE)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.data) < whole:
            return
        head, self.data = self.data[: end + 2], self.data[whole:]
        method, path = match[1], match[2]
        host = self.host
        if method == b"GET":
            self.answer(200, host.status() if path == b"/status" else b"{}")
        elif path == b"/reset":
            host.forget()
            self.answer(200, b"{}")
        else:
            model = _MODEL.match(path)
            size = _SIZE.search(head)
            if model is None or size is None or not host.takes(model[1].decode()):
                self.answer(500, b'{"error": "out of memory"}')
                return
            now = self.loop.time()
            host.free_at = max(now, host.free_at) + float(size[1]) / host.speed
            host.waiting += 1
            self.loop.call_at(host.free_at, self.done)

    def done(self) -> None:
        self.host.waiting -= 1
        self.answer(200, b"{}")

    def answer(self, status: int, body: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)


async def main() -> None:
    loop = asyncio.get_running_loop()
    ports = []
    for number in range(len(SPEEDS)):
        host = Host(number)
        server = await loop.create_server(partial(Connection, host, loop), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
