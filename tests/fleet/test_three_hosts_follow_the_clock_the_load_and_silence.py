"""A day of three SSH hosts: a schedule, a step rule, a surge, silence and the first request after it. No request fails.

Only fleet.yaml makes the day short: its windows and cooldowns are seconds.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(900)]

# A host answers ten requests a second, one after the other.
MODEL = {"options": {"delay_ms": 100}, "batching": {"max_batch_size": 1}}
CALM = {"cooldown": {"scale_up": "2s", "scale_down": "3s"}, "stabilization": {"scale_down": "3s"}}
ALWAYS = {"min_servers": 1, "max_servers": 3, **CALM}
STEPS = {
    **ALWAYS,
    "steps": [{"when": "queued > 3", "for": "2s", "add": 1}, {"when": "queued < 1", "for": "5s", "add": -1}],
}
LATENCY = {"percentile": 95, "target_ms": 400, "window": "10s"}
SURGE = {**ALWAYS, "latency": LATENCY, "stabilization": {"scale_up": "3s", "scale_down": "3s"}}
SILENCE = {**ALWAYS, "latency": LATENCY, "min_servers": 0, "idle": {"scale_to_zero": True, "after": "4s"}}


class Day:
    """The fleet's day, a chapter for each version of its scaling."""

    def __init__(self, fleet: Any, hosts: str) -> None:
        self.fleet, self._hosts, self._before = fleet, hosts, 0

    async def chapter(self, scaling: dict[str, Any]) -> None:
        """fleet.yaml says this from now on."""
        told = await asyncio.to_thread(self.fleet.events) if self.fleet.file.exists() else []
        self._before = max((event["id"] for event in told), default=0)
        self.write(scaling)

    def write(self, scaling: dict[str, Any]) -> None:
        pool = {"name": "default", "hosts": ["h*"], "models": ["tiny"], "traffic": {"slow_start": "1s"}}
        self.fleet.write(self._hosts, scaling, model=dict(MODEL), pools=[{**pool, "scaling": scaling}])

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """What happened in this chapter."""
        events = await asyncio.to_thread(self.fleet.events)
        return [e for e in events if e["kind"] == kind and e["id"] > self._before]

    async def turns(self) -> list[tuple[int, int, str]]:
        """From, to and why, in this chapter."""
        return [(e["from"], e["to"], e["reason"]) for e in await self.told("scale")]

    async def until_ready(self, count: int, timeout_s: float = 180) -> None:
        def ready() -> bool:
            return bool(self.fleet.pool()["ready"] == count)

        # a look of the command line costs as much computing as the whole fleet does meanwhile
        await asyncio.to_thread(self.fleet.wait, f"{count} hosts ready", ready, timeout_s, 1.0)


def at_next_minute(servers: int, minutes: int = 0) -> dict[str, Any]:
    """A schedule that asks for so many servers from the next full minute on that is at least 6 s away, or from
    so many `minutes` after it.
    """
    fires = datetime.now(UTC) + timedelta(seconds=66, minutes=minutes)
    return {"cron": f"{fires.minute} {fires.hour} * * *", "min_servers": servers}


async def test_three_hosts_follow_a_schedule_a_step_rule_a_surge_and_silence(
    fleet: Any, ssh_hosts: Any
) -> None:
    day = Day(fleet, ssh_hosts.yaml(ssh_hosts(3)))
    await day.chapter(ALWAYS)
    await asyncio.to_thread(fleet.cli, "up")

    async with fleet.load(rate=4) as always:
        floor = at_next_minute(2)
        await day.chapter({**ALWAYS, "schedules": [floor]})
        await day.until_ready(2)
        back = at_next_minute(1)
        day.write({**ALWAYS, "schedules": [floor, back]})
        await day.until_ready(1)
        assert await day.turns() == [
            (1, 2, f'schedule "{floor["cron"]}" UTC asks for 2 servers'),
            (2, 1, f'schedule "{back["cron"]}" UTC asks for 1 server'),
        ]

        await day.chapter(STEPS)
        async with fleet.load(rate=9) as more:
            await day.until_ready(2)
        await day.until_ready(1)
        turns = await day.turns()
        assert turns[0][:2] == (1, 2) and turns[-1][1] == 1, turns
        assert all(why.startswith("queued ") and " > 3 for " in why for a, b, why in turns if b > a), turns
        assert all(why.startswith("queued 0 < 1 for ") for a, b, why in turns if b < a), turns

        await day.chapter(SURGE)
        async with fleet.load(rate=20) as surge:  # two hosts can't take it
            await day.until_ready(3)
            await asyncio.sleep(2)
        await day.until_ready(1)
        turns = await day.turns()
        assert max(b for a, b, _ in turns) == 3 and turns[-1][1] == 1, turns
        up, down = [why for a, b, why in turns if b > a], [why for a, b, why in turns if b < a]
        assert all(" over 400 ms" in why for why in up), turns
        assert re.search(r"p95 .+ over 400 ms for \d+ s", up[0]), turns
        assert all(" under 400 ms" in why for why in down), turns
        # each host says the same
        for kind, reasons in (("booting", up), ("draining", down)):
            said = [event["reason"] for event in await day.told(kind)]
            assert len(said) >= 2 and set(said) <= set(reasons), (kind, said, turns)

        await day.chapter(SILENCE)
        await asyncio.sleep(3)

    await day.until_ready(0)
    fleet.wait("all are off", lambda: sorted(fleet.in_state("off")) == ["h1", "h2", "h3"])
    async with fleet.load(rate=2) as again:  # the first of these wait at the door
        await day.until_ready(1)
    turns = await day.turns()
    assert [turn[:2] for turn in turns] == [(1, 0), (0, 1)], turns
    assert again.sent[0].ok and max(s.ms for s in again.sent) > 1000
    for load in (always, more, surge, again):
        assert load.sent and not load.failed, load.failed[:3]
