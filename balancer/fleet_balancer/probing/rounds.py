"""Who is asked over and over: a task and a kept connection for each host, begun and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from fleet_balancer.member.member import Member
from fleet_balancer.probing.line import Line


class Rounds:
    """`lines`: each host's connection, where its task has opened one."""

    def __init__(self) -> None:
        self.lines: dict[Member, Line] = {}
        self._tasks: dict[Member, asyncio.Task[None]] = {}

    def begin(self, member: Member, asking: Coroutine[Any, Any, None]) -> None:
        """Ask `member` as `asking` does, until it is forgotten."""
        self._tasks[member] = asyncio.get_running_loop().create_task(asking)

    def forget(self, members: Iterable[Member]) -> None:
        for member in members:
            self._tasks.pop(member).cancel()
            if (line := self.lines.pop(member, None)) is not None:
                line.close()

    async def stop(self) -> None:
        """End all of it; returns when every task has ended."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for line in self.lines.values():
            line.close()
        self.lines.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
