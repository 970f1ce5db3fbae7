"""The controller alone: p95 over target starts a host over SSH, quiet drains and stops one, and both say why."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_load_over_the_latency_target_starts_a_host_and_quiet_stops_one(
    fleet: Any, ssh_hosts: Any
) -> None:
    hosts = ssh_hosts(2)
    fleet.write(
        ssh_hosts.yaml(hosts),
        {
            "min_servers": 1,
            "max_servers": 2,
            "latency": {"percentile": 95, "target_ms": 200, "window": "10s"},
            "cooldown": {"scale_up": "2s", "scale_down": "4s"},
            "stabilization": {"scale_up": "3s", "scale_down": "4s"},
        },
        model={"options": {"delay_ms": 100}, "batching": {"max_batch_size": 1}},
    )
    fleet.cli("up")
    assert fleet.pool()["desired"] == 1

    async with fleet.load(rate=14) as load:
        await asyncio.to_thread(fleet.wait_ready, 2, 90)
    assert not load.failed, load.failed[:3]
    await asyncio.to_thread(fleet.wait, "one host off", lambda: sorted(states(fleet)) == ["off", "ready"])

    told = [e for e in fleet.events() if e["kind"] == "scale"]
    up = next(e for e in told if e["to"] == 2)
    assert re.search(r"p95 \d+ ms over 200 ms for \d+ s", up["reason"]), up
    down = next(e for e in told if e["from"] == 2 and e["to"] == 1)
    assert down["reason"], down
    started = [e for e in fleet.events() if e["kind"] == "booting"]
    assert started[-1]["reason"] == up["reason"]
    drained = [e for e in fleet.events() if e["kind"] == "draining"]
    assert drained[-1]["reason"] == down["reason"]


def states(fleet: Any) -> list[str]:
    return [h["state"] for h in fleet.hosts().values()]
