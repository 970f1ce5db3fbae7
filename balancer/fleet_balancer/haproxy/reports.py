"""Asks hosts how much device memory they have, where somebody needs to know. Whether they are ready, HAProxy asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from fleet_balancer.front import Front
from fleet_balancer.member.member import Member
from fleet_balancer.probing.line import Line
from fleet_balancer.probing.probe import JITTER, ask_memory
from fleet_balancer.probing.rounds import Rounds

SOON_S = 0.1


class Reporter:
    """One task per host. `interval_s` between questions (+-10 %), each of at most `timeout_s`."""

    def __init__(self, front: Front, rng: random.Random, *, interval_s: float, timeout_s: float) -> None:
        self._front = front
        self._rng = rng
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._rounds = Rounds()
        self._asked: set[Member] = set()

    def is_known(self, member: Member) -> bool:
        """Whether it was asked: before that it should get nothing, where memory matters."""
        pool = self._front.pool_of(member)
        return pool is None or not pool.reads_memory or member in self._asked

    def watch(self, members: Iterable[Member]) -> None:
        for member in members:
            self._rounds.begin(member, self._watch(member))

    def forget(self, members: Iterable[Member]) -> None:
        members = list(members)
        self._rounds.forget(members)
        self._asked.difference_update(members)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _watch(self, member: Member) -> None:
        await asyncio.sleep(self._rng.random() * min(0.1, self._interval_s))
        line = self._rounds.lines[member] = Line(member)
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
