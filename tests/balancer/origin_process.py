"""A host for tests, as a process of its own: prints its port, then serves until killed.

    /readyz /status          what an agent answers (--status FILE: the JSON, read anew each time; without it 404)
    /slow/MS                 answers after MS milliseconds
    /echo                    the body back, chunked, as it comes
    /sink                    {"bytes", "sha256"} of the body
    /bytes/N                 N bytes
    /events/N                N server-sent events, one each 50 ms
    /hangup                  closes without an answer
    /seen                    the request's head as this host got it
    anything else            {"host": NAME}

--mood FILE, while it is there, holds lines "ready STATUS" (what /readyz answers) and "answer STATUS [HEADER: VALUE]"
(what everything else does).
--log FILE gets a line per request that is begun and one that is done (x-request-id, method, path).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from pathlib import Path


async def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--name", default="origin")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--status", type=Path)
    p.add_argument("--log", type=Path)
    p.add_argument("--ready", type=int, default=200)
    p.add_argument("--mood", type=Path)
    args = p.parse_args()
    log = args.log.open("a", buffering=1, encoding="utf-8") if args.log else None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            if log:
                log.write("- hangup -\n")
        finally:
            writer.close()

    def reply(writer: asyncio.StreamWriter, body: bytes, status: int = 200) -> None:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)

    def mood(what: str) -> list[str]:
        """The words after `what` in the mood file."""
        if args.mood is None or not args.mood.exists():
            return []
        lines = [line.split(" ", 2) for line in args.mood.read_text(encoding="utf-8").splitlines()]
        return next((words[1:] for words in lines if words[0] == what), [])

    async def body_of(reader: asyncio.StreamReader, headers: dict[str, str]):  # type: ignore[no-untyped-def]
        if "transfer-encoding" in headers:
            while size := int(await reader.readline(), 16):
                yield await reader.readexactly(size)
                await reader.readexactly(2)
            while await reader.readline() != b"\r\n":
                pass
        else:
            left = int(headers.get("content-length", 0))
            while left:
                data = await reader.read(min(left, 65536))
                if not data:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(data)
                yield data

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        request_id = headers.get("x-request-id", "-")
        if log and path not in ("/readyz", "/status"):
            log.write(f"{request_id} begun {method} {path}\n")
        if path == "/echo":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            async for data in body_of(reader, headers):
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        elif path == "/sink":
            digest, size = hashlib.sha256(), 0
            async for data in body_of(reader, headers):
                digest.update(data)
                size += len(data)
            reply(writer, json.dumps({"bytes": size, "sha256": digest.hexdigest()}).encode())
        else:
            body = b"".join([data async for data in body_of(reader, headers)])
            kind, _, argument = path[1:].partition("/")
            answer = mood("answer") if path not in ("/readyz", "/status") else []
            if path == "/readyz":
                reply(writer, b"", int(next(iter(mood("ready")), args.ready)))
            elif answer:
                extra = "".join(f"{line}\r\n" for line in answer[1:])
                writer.write(f"HTTP/1.1 {answer[0]} X\r\n{extra}content-length: 0\r\n\r\n".encode())
            elif path == "/status":
                if args.status is None:
                    reply(writer, b"none", 404)
                else:
                    reply(writer, args.status.read_bytes())
            elif path == "/seen":
                reply(writer, head + body)
            elif kind == "hangup":
                return False
            elif kind == "slow":
                await asyncio.sleep(float(argument) / 1000)
                reply(writer, json.dumps({"host": args.name}).encode())
            elif kind == "status":
                reply(writer, b"as asked", int(argument))
            elif kind == "bytes":
                left = int(argument)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
                while left:
                    writer.write(b"z" * min(left, 65536))
                    left -= min(left, 65536)
                    await writer.drain()
            elif kind == "events":
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for i in range(int(argument)):
                    event = b"data: %d\n\n" % i
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
                    await asyncio.sleep(0.05)
                writer.write(b"0\r\n\r\n")
            elif method == "HEAD":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n")
            elif kind == "close":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
                return False
            elif kind == "trailers":
                writer.write(
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"
                )
            else:
                reply(writer, json.dumps({"host": args.name}).encode())
        if log and path not in ("/readyz", "/status"):
            log.write(f"{request_id} done {method} {path}\n")
        return True

    server = await asyncio.start_server(serve, "127.0.0.1", args.port, limit=1 << 20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
