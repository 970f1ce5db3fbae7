"""up -> predict -> scale out -> load -> a host dies -> scale in under load -> down, over real SSH."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(240)]


def kill(pid: int) -> float:
    """kill -9; when it was gone. The kernel takes its time to take a process apart, and it gets requests until then."""
    os.kill(pid, signal.SIGKILL)
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return time.monotonic()
        except OSError:
            return time.monotonic()
        time.sleep(0.001)


async def test_a_fleet_lives_through_load_loss_and_scaling(fleet: Any, ssh_hosts: Any) -> None:
    hosts = ssh_hosts(3)
    calm = {"cooldown": {"scale_up": "1h", "scale_down": "1h"}, "stabilization": {"scale_down": "1h"}}
    fleet.write(
        ssh_hosts.yaml(hosts),
        {"min_servers": 1, "max_servers": 3, **calm},
        model={"options": {"delay_ms": 40}, "batching": {"max_batch_size": 8}},
    )
    fleet.cli("up")
    assert json.loads(fleet.cli("status", "-o", "json"))["pools"][0]["ready"] == 1  # the program itself

    async with fleet.load(rate=50) as warm:
        await asyncio.sleep(4.1)
    assert len(warm.sent) >= 200
    assert not warm.failed, warm.failed[:3]

    fleet.cli("scale", "3")
    assert fleet.pool()["ready"] == 3

    victim = next(h for h in hosts if h.name == "h2")
    (agent,) = victim.agents()
    async with fleet.load(rate=50) as load:
        await asyncio.sleep(3)
        killed_at = time.monotonic()
        gone_at = await asyncio.to_thread(kill, agent.pid)
        await asyncio.sleep(12)
    assert len(load.sent) >= 600
    in_flight = [s for s in load.sent if s.start <= gone_at and killed_at <= s.end]
    assert all(s in in_flight for s in load.failed), load.failed
    assert len(load.failed) <= len(in_flight)
    assert all(s.status == 502 for s in load.failed), load.failed

    await asyncio.to_thread(fleet.wait_ready, 3)
    # its supervisor there starts it again, quicker than the controller could; the operator is told all the same
    told = [json.loads(line) for line in fleet.cli("events", "-o", "json").splitlines()]
    assert any((e["kind"], e["host"]) == ("restarted", "h2") for e in told)

    async with fleet.load(rate=50) as load:
        await asyncio.sleep(2)
        await asyncio.to_thread(fleet.cli, "scale", "1")
        await asyncio.sleep(1)
    assert not load.failed, load.failed[:3]
    assert fleet.pool()["ready"] == 1

    fleet.cli("down", "--yes")
    for host in hosts:
        assert host.left() == [], f"{host.name} still runs {host.left()}"
    assert set(fleet.in_state("off")) == {"h1", "h2", "h3"}
    assert not fleet.status()["controller"]["running"]
