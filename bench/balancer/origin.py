"""A host for the benchmark: answers every request with 200 bytes, as cheaply as Python can. `origin.py PORT...`

A request with `x-answer-bytes: N` is answered with N bytes, as fast as they are taken.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

PIECE = b"y" * 65536
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 200\r\n\r\n" + b"y" * 200


class Origin(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.head = b""
        self.left = 0
        self.owed = 0
        self.held = False

    def pause_writing(self) -> None:
        self.held = True

    def resume_writing(self) -> None:
        self.held = False
        self.pay()

    def pay(self) -> None:
        while self.owed and not self.held:
            piece = PIECE[: self.owed]
            self.owed -= len(piece)
            self.transport.write(piece)

    def data_received(self, data: bytes) -> None:
        while data:
            if self.left:
                taken = min(self.left, len(data))
                self.left -= taken
                data = data[taken:]
            else:
                data = self.head + data
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    self.head = data
                    return
                self.head = b""
                low = data[:end].lower()
                at = low.find(b"\r\ncontent-length:")
                self.left = int(low[at + 17 :].split(b"\r", 1)[0]) if at >= 0 else 0
                data = data[end + 4 :]
                at = low.find(b"\r\nx-answer-bytes:")
                if at >= 0:
                    self.owed = int(low[at + 17 :].split(b"\r", 1)[0])
                    self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.owed)
                    self.pay()
                    continue
                if not self.left:
                    self.transport.write(ANSWER)
                    continue
            if not self.left:
                self.transport.write(ANSWER)


async def main() -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Origin, "127.0.0.1", int(port)) for port in sys.argv[1:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(main())
