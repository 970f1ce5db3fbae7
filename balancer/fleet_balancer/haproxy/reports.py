"""Asks hosts how much device memory they have, where somebody needs to know. Whether they are ready, HAProxy asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from fleet_balancer.front import Front
from fleet_balancer.member.member import Member
from fleet_balancer.probing.line import Line
from fleet_balancer.probing.probe import JITTER, ask_memory

SOON_S = 0.1


class Reporter:
    """One task per host. `interval_s` between questions (+-10 %), each of at most `timeout_s`."""

    def __init__(self, front: Front, rng: random.Random, *, interval_s: float, timeout_s: float) -> None:
        self._front = front
        self._rng = rng
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._tasks: dict[Member, asyncio.Task[None]] = {}
        self._asked: set[Member] = set()
        self._lines: dict[Member, Line] = {}

    def is_known(self, member: Member) -> bool:
        """Whether it was asked: before that it should get nothing, where memory matters."""
        pool = self._front.pool_of(member)
        return pool is None or not pool.reads_memory or member in self._asked

    def watch(self, members: Iterable[Member]) -> None:
        for member in members:
            self._tasks[member] = asyncio.get_running_loop().create_task(self._watch(member))

    def forget(self, members: Iterable[Member]) -> None:
        for member in members:
            self._tasks.pop(member).cancel()
            if (line := self._lines.pop(member, None)) is not None:
                line.close()
            self._asked.discard(member)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, member: Member) -> None:
        line = Line(member)
        try:
            await self._ask(line, member)
        finally:
            line.close()

    async def _ask(self, line: Line, member: Member) -> None:
        await asyncio.sleep(self._rng.random() * min(0.1, self._interval_s))
        line = self._lines[member] = Line(member)
        while True:
            pool = self._front.pool_of(member)
            pause = self._interval_s
            if pool is not None and pool.reads_memory:
                report = await ask_memory(line, member, self._timeout_s)
                if report is not None:
                    pool.reported(member, report)
                if report is not None or member.health.healthy:
                    self._asked.add(member)
                if member.report is None:
                    # Its memory should count from its first request on.
                    pause = min(SOON_S, pause)
            await asyncio.sleep(pause * (1.0 + JITTER * (2.0 * self._rng.random() - 1.0)))
