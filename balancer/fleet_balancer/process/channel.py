"""Questions and answers between two of our own processes, over a pair of sockets: JSON with its length before it.

One side asks (Caller), the other answers (answer()); many questions may be under way. When one process ends, the other
sees the end of the stream at once, however it ended.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from fleet_wire.refusal import Refusal

# The longest message: a list of thousands of hosts with their histograms stays far below.
MAX_MESSAGE = 256 * 1024 * 1024
PATIENCE_S = 10.0

Message = dict[str, Any]
Answerer = Callable[[str, Message], Awaitable[Message]]


class ChannelClosed(Exception):
    """The process at the other end is gone, or does not answer in time."""


class Caller:
    """Asks. `closed` is set when the other process has gone; `farewell` is what it said last, unasked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.closed = asyncio.Event()
        self.farewell: Message | None = None
        self._writer = writer
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Message]] = {}
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @classmethod
    async def over(cls, end: socket.socket) -> Caller:
        return cls(*await asyncio.open_connection(sock=end, limit=1 << 20))

    async def ask(self, verb: str, body: Message | None = None, patience_s: float = PATIENCE_S) -> Message:
        """The answer. Raises Refusal where the other side refuses, ChannelClosed where it is gone or silent."""
        if self.closed.is_set():
            raise ChannelClosed("it has ended")
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            async with asyncio.timeout(patience_s):
                self._writer.write(_framed({"id": number, "verb": verb, "body": body or {}}))
                return await answer
        except TimeoutError:
            raise ChannelClosed(f"it did not answer within {patience_s:g} s") from None
        finally:
            self._open.pop(number, None)

    def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        self._end()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while (message := await _next(reader)) is not None:
                if message["id"] == 0:
                    self.farewell = message["body"]
                    continue
                answer = self._open.pop(message["id"], None)
                if answer is None or answer.done():
                    continue
                if (refused := message.get("refused")) is not None:
                    answer.set_exception(Refusal(*refused))
                else:
                    answer.set_result(message["body"])
        except OSError:
            pass  # the other process ended with something of ours unread
        self._end()
        self._writer.close()

    def _end(self) -> None:
        self.closed.set()
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ChannelClosed("it has ended"))
        self._open.clear()


class Respondent:
    """Answers. serve() returns when the asking process has gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._under_way: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket) -> Respondent:
        return cls(*await asyncio.open_connection(sock=end, limit=1 << 20))

    async def serve(self, answerer: Answerer) -> None:
        """Answer each question, several at once. A Refusal that `answerer` raises goes to who asked."""
        loop = asyncio.get_running_loop()
        try:
            while (message := await _next(self._reader)) is not None:
                task = loop.create_task(self._answer(answerer, message))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
        except OSError:
            pass  # as if it had closed in order

    async def farewell(self, body: Message) -> None:
        """The last word, unasked; returns when it is out, or there is nobody to hear it."""
        try:
            self._writer.write(_framed({"id": 0, "body": body}))
            async with asyncio.timeout(1.0):
                await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass

    def close(self) -> None:
        self._writer.close()

    async def _answer(self, answerer: Answerer, message: Message) -> None:
        reply: Message = {"id": message["id"]}
        try:
            reply["body"] = await answerer(message["verb"], message["body"])
        except Refusal as refusal:
            reply["refused"] = [refusal.code, refusal.message, refusal.retry_after_s]
        if not self._writer.is_closing():
            self._writer.write(_framed(reply))


def _framed(message: Message) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    return len(data).to_bytes(4, "big") + data


async def _next(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end of the stream."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_MESSAGE:
            return None
        message: Message = json.loads(await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        return None
    return message
