"""Open-loop clients: a request at each given moment, whatever became of those before."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def poisson(curve: Sequence[tuple[float, float]], seed: int) -> list[float]:
    """Moments of a Poisson process whose rate runs straight from point to point of `curve`: (second, rate)."""
    dice, highest = random.Random(seed), max(rate for _, rate in curve)
    moments: list[float] = []
    at = 0.0
    while True:
        at += dice.expovariate(highest)
        if at >= curve[-1][0]:
            return moments
        if dice.random() * highest < rate_at(curve, at):
            moments.append(at)


def rate_at(curve: Sequence[tuple[float, float]], at: float) -> float:
    for (t0, r0), (t1, r1) in pairwise(curve):
        if at < t1:
            return r0 + (r1 - r0) * (at - t0) / (t1 - t0)
    return curve[-1][1]


@dataclass(frozen=True)
class Answer:
    """`at`: when it was sent (Unix seconds). `seconds` until all of the answer was there."""

    at: float
    seconds: float
    status: int


class Clients:
    """Keep-alive HTTP/1.1 to one model."""

    def __init__(self, endpoint: str, model: str) -> None:
        self._host, _, port = endpoint.removeprefix("http://").partition(":")
        self._port = int(port)
        self._path = f"/v1/models/{model}:predict"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, items: int = 1) -> Answer:
        body = b'{"instances": [' + b", ".join([b"[1.0]"] * items) + b"]}"
        head = f"POST {self._path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n\r\n"
        at, began = time.time(), time.monotonic()
        try:
            async with asyncio.timeout(120):
                status = await self._exchange(head.encode() + body)
        except (OSError, EOFError, TimeoutError):
            status = 0
        return Answer(at, time.monotonic() - began, status)

    async def _exchange(self, request: bytes) -> int:
        reader, writer = await self._connection()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1])

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    async def follow(self, moments: Sequence[float]) -> list[Answer]:
        """Send at each of `moments` (seconds from now) and await all answers."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for moment in moments:
                await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
                tasks.append(group.create_task(self.send()))
        return [task.result() for task in tasks]

    async def measured(self, items: int, times: int) -> float:
        """The median seconds of a request with so many items, alone."""
        found = sorted([(await self.send(items)).seconds for _ in range(times)])
        return found[len(found) // 2]

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def percentile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(q * len(ordered))) - 1]
