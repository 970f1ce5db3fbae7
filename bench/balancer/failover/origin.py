"""A host that can be killed, stopped and broken: `origin.py PORT LOG MS`. Answers POST after MS milliseconds.

LOG gets a line "ID SECONDS" for each POST that is begun, written at once, so that it outlives kill -9; SECONDS is the
machine's monotonic clock, which the load shares. SIGUSR1: POSTs are answered with 500, at once; GETs stay well.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import cast

import uvloop

WELL = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 6\r\n\r\nbroken"


class Origin(asyncio.Protocol):
    log = 0
    delay_s = 0.0
    broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            size = 0
            if (at := head.find(b"\r\ncontent-length:")) >= 0:
                size = int(head[at + 17 :].split(b"\r\n", 1)[0])
            if len(self.data) < end + 4 + size:
                return
            self.data = self.data[end + 4 + size :]
            if not head.startswith(b"post "):
                self.transport.write(WELL)
                continue
            request = head.split(b"\r\nx-request-id:", 1)[1].split(b"\r\n", 1)[0].strip()
            os.write(Origin.log, b"%b %.6f\n" % (request, time.monotonic()))
            if Origin.broken:
                self.transport.write(BROKEN)
            else:
                asyncio.get_running_loop().call_later(Origin.delay_s, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(WELL)


def breaks() -> None:
    Origin.broken = True


async def main() -> None:
    loop = asyncio.get_running_loop()
    Origin.log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Origin.delay_s = float(sys.argv[3]) / 1000.0
    loop.add_signal_handler(signal.SIGUSR1, breaks)
    server = await loop.create_server(Origin, "127.0.0.1", int(sys.argv[1]), reuse_address=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
