"""Versions, zones, sessions, bounds and load reports through a real balancer and real hosts."""

from __future__ import annotations

import asyncio
import json
from typing import Any


def put(
    front: Any, wait_until: Any, pool: dict[str, Any], hosts: list[tuple[Any, dict[str, Any]]], **more: Any
) -> None:
    """PUT /backends with one pool, and wait until all hosts are in."""
    backends = [{"name": host.name, "address": host.address, **spec} for host, spec in hosts]
    code, body = front.ask(
        "PUT", "/backends", {"pools": [{"name": "default", **pool}], "backends": backends, **more}
    )
    assert code == 200, body
    wait_until(lambda: all(b["healthy"] for b in front.status()["backends"]))


async def hosts_of(client: Any, times: int, path: str, **headers: str) -> list[str]:
    """Which hosts answer so many requests, one after the other."""
    found = []
    for _ in range(times):
        reply = await client.ask("POST", path, b"{}", **headers)
        assert reply.status == 200, reply
        found.append(str(json.loads(reply.body)["host"]))
    return found


async def test_a_version_in_the_path_or_a_header_picks_the_hosts_that_have_it(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    old, new = origin("old"), origin("new")
    front = balancer()
    spec = [(old, {"models": {"m": "1"}}), (new, {"models": {"m": "2"}})]
    await asyncio.to_thread(put, front, wait_until, {"queue_timeout_s": 0.2}, spec)
    client = await http.open(front.port)
    assert set(await hosts_of(client, 4, "/v1/models/m:predict")) == {"old", "new"}
    assert set(await hosts_of(client, 4, "/v2/models/m/versions/1/infer")) == {"old"}
    assert set(await hosts_of(client, 4, "/v1/models/m:predict", x_fleet_model_version="2")) == {"new"}
    assert set(await hosts_of(client, 4, "/v1/anything", x_fleet_model="m", x_fleet_model_version="1")) == {
        "old"
    }
    reply = await client.ask("POST", "/v1/models/m:predict", b"{}", x_fleet_model_version="3")
    assert reply.status == 503
    await client.close()


async def test_a_session_stays_on_its_host_and_moves_only_when_that_host_leaves(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    hosts: list[tuple[Any, dict[str, Any]]] = [(origin(name), {}) for name in "abc"]
    front = balancer()
    routing = {"routing": "consistent_hash", "session_header": "x-chat"}
    await asyncio.to_thread(put, front, wait_until, routing, hosts)
    client = await http.open(front.port)
    homes = {}
    for i in range(12):
        found = set(await hosts_of(client, 3, "/x", x_chat=f"chat {i}"))
        assert len(found) == 1
        homes[i] = found.pop()
    assert len(set(homes.values())) > 1
    left = [(host, spec) for host, spec in hosts if host.name != homes[0]]
    await asyncio.to_thread(put, front, wait_until, routing, left)
    for i, home in homes.items():
        (now,) = await hosts_of(client, 1, "/x", x_chat=f"chat {i}")
        assert (now == home) == (home != homes[0])
    await client.close()


async def test_requests_stay_in_the_balancers_zone_while_it_has_room(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    near, far = origin("near"), origin("far")
    front = balancer()
    spec = [(near, {"zone": "a", "max_in_flight": 1}), (far, {"zone": "b"})]
    await asyncio.to_thread(put, front, wait_until, {}, spec, zone="a")
    client, other = await http.open(front.port), await http.open(front.port)
    assert set(await hosts_of(client, 6, "/x")) == {"near"}
    client.send("POST", "/slow/600", b"{}")
    await asyncio.to_thread(wait_until, lambda: front.backend("near")["in_flight"] == 1)
    assert await hosts_of(other, 2, "/x") == ["far", "far"]
    assert (await client.reply()).status == 200
    await client.close()
    await other.close()


async def test_a_load_report_in_a_reply_makes_a_full_host_count_as_busier(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    full, free = origin("full"), origin("free")
    full.mood("answer 200 endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc=1.0")
    front = balancer()
    await asyncio.to_thread(put, front, wait_until, {"routing": "gpu_memory"}, [(full, {}), (free, {})])
    client = await http.open(front.port)
    for _ in range(6):
        assert (await client.ask("POST", "/x", b"{}")).status == 200
    assert front.backend("full")["weight"] == 0.25
    assert front.backend("free")["requests"] == 5
    await client.close()
