"""Waiting at a real balancer before a real host that may have only so many requests at once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from typing import Any

import pytest

CAP = 4
# Whose turn has not come is not yet fair: the first replies are not counted. All take two seconds on a quiet machine.
FIRST, COUNTED = 80, 320


def most_at_once(lines: list[str]) -> int:
    """How many requests a host had begun and not done, at most."""
    now = most = 0
    for line in lines:
        if "/slow/" in line:
            now += (" begun " in line) - (" done " in line)
            most = max(most, now)
    return most


@pytest.mark.slow
@pytest.mark.parametrize("by", ["header", "key"])
async def test_of_three_tenants_one_flooding_the_others_keep_their_fair_share(
    by: str, origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    """Half as many connections again as the share needs; the flooding tenant has ten times as many."""
    connections = {"flood": 60, "b": 6, "c": 6}
    host = origin("a")
    front = balancer()
    document: dict[str, Any] = {
        "pools": [{"name": "default", "max_in_flight_per_server": CAP, "queue_size": 256}],
        "backends": [{"name": "a", "address": host.address}],
    }
    if by == "header":
        document["pools"][0]["tenant_header"] = "x-tenant"
    else:
        document["keys"] = [
            {"name": name, "sha256": hashlib.sha256(f"secret-{name}".encode()).hexdigest()}
            for name in connections
        ]
    code, body = front.ask("PUT", "/backends", document)
    assert code == 200, body
    await asyncio.to_thread(wait_until, lambda: front.backend("a")["healthy"])
    done: Counter[str] = Counter()
    failed: Counter[int] = Counter()
    replies = 0
    until = time.monotonic() + 60

    async def load(name: str) -> None:
        nonlocal replies
        headers = {"x_tenant": name} if by == "header" else {"x_api_key": f"secret-{name}"}
        client = await http.open(front.port)
        while replies < FIRST + COUNTED and time.monotonic() < until:
            reply = await client.ask("POST", "/slow/20", b"x", **headers)
            replies += 1
            if reply.status != 200:
                failed[reply.status] += 1
            elif FIRST < replies <= FIRST + COUNTED:
                done[name] += 1
        await client.close()

    await asyncio.gather(*(load(name) for name, count in connections.items() for _ in range(count)))
    fair = COUNTED / 3
    print({name: f"{done[name] / fair:.1%} of a fair share" for name in connections})  # noqa: T201
    assert not failed and sum(done.values()) == COUNTED
    assert done["b"] >= 0.95 * fair
    assert done["c"] >= 0.95 * fair
    assert most_at_once(host.log.read_text(encoding="utf-8").splitlines()) == CAP
    pool = front.status()["pools"][0]
    assert pool["arrivals"] == pool["completed"]


async def test_who_waits_goes_by_priority_and_a_hopeless_deadline_is_refused_at_once(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    host = origin("a")
    front = balancer()
    front.put(host, max_in_flight_per_server=1)
    await asyncio.to_thread(wait_until, lambda: front.backend("a")["healthy"])
    clients = [await http.open(front.port) for _ in range(36)]
    for i, client in enumerate(clients):
        priority = {"x_fleet_priority": "5"} if i >= 32 else {}
        client.send("POST", "/slow/100", b"x", x_request_id=f"r{i}", **priority)
        if i in (0, 31):
            await asyncio.to_thread(wait_until, lambda n=i: front.status()["pools"][0]["queued"] == n)
    for client in clients[:12] + clients[32:]:
        assert (await client.reply()).status == 200
    late = clients[0]
    start = time.monotonic()
    refused = await late.ask("POST", "/slow/100", b"x", x_request_timeout_ms="1000")
    assert time.monotonic() - start < 0.3
    assert refused.status == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert b"which is later than this request's deadline" in refused.body
    urgent = clients[1]
    assert (
        await urgent.ask("POST", "/slow/100", b"x", x_request_timeout_ms="1000", x_fleet_priority="9")
    ).status == 200
    for client in clients[12:32]:
        assert (await client.reply()).status == 200
    for client in clients:
        await client.close()
    begun = [line.split(" ")[0] for line in host.lines("begun")]
    assert begun[:5] == ["r0", "r32", "r33", "r34", "r35"]
    assert most_at_once(host.log.read_text(encoding="utf-8").splitlines()) == 1
