"""Device memory decides: a host that can't hold the model's declared need gets no request and is no capacity."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(240)]


async def test_only_hosts_with_room_for_the_model_get_requests(fleet: Any) -> None:
    hosts = [
        {"name": "h1", "address": "local", "device_memory": "1GiB"},
        {"name": "h2", "address": "local", "device_memory": "8GiB"},
        {"name": "h3", "address": "local"},
    ]
    fleet.write(
        "hosts: " + json.dumps(hosts),
        {"min_servers": 2, "max_servers": 3},
        model={"device_memory": "2GiB"},
    )
    fleet.down_may_end_with = {0}
    fleet.cli("up")
    # what room a host has is known once it runs: until then h1 counted, so h3 comes last
    fleet.wait("h2 and h3 serve", lambda: {fleet.hosts()[h]["state"] for h in ("h2", "h3")} == {"ready"})
    async with fleet.load(rate=40) as load:
        await asyncio.sleep(5)
    async with fleet.load(rate=500) as crowd:  # at once: one host alone is not the least busy
        await asyncio.sleep(1)
    assert not load.failed + crowd.failed, (load.failed + crowd.failed)[:3]

    found = fleet.hosts()
    assert found["h1"]["state"] in ("ready", "draining", "stopping", "off")
    assert "no room" in (found["h1"]["error"] or found["h1"]["reason"])
    assert found["h2"]["device_memory"] == {"used_bytes": 2 << 30, "total_bytes": 8 << 30}
    assert {found["h2"]["state"], found["h3"]["state"]} == {"ready"}
    assert fleet.pool()["ready"] == 2
    assert served(fleet, "h1") == 0
    assert served(fleet, "h2") + served(fleet, "h3") == len(load.sent) + len(crowd.sent)
    assert served(fleet, "h2") > 0 and served(fleet, "h3") > 0


def served(fleet: Any, host: str) -> int:
    """Requests that the balancer sent there, by its own count."""
    folder = fleet.folder / ".fleetctl" / "test"
    admin = json.loads((folder / "balancer.json").read_text())["admin"]
    token = (folder / "tokens" / "balancer").read_text().strip()
    answer = httpx.get(f"http://{admin}/status", headers={"authorization": f"Bearer {token}"})
    return sum(b["requests"] for b in answer.raise_for_status().json()["backends"] if b["name"] == host)
