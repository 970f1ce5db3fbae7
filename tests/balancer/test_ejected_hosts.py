"""Hosts whose probes pass and whose answers are bad: who is taken out, who is not, who comes back. Real processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

EJECTION = {"base_s": 0.6, "consecutive_5xx": 3}


async def settled(front: Any, wait_until: Any, **healthy: bool) -> None:
    await asyncio.to_thread(
        wait_until, lambda: {b["name"]: b["healthy"] for b in front.status()["backends"]} == healthy
    )


def ejected(front: Any) -> set[str]:
    return {b["name"] for b in front.status()["backends"] if b["ejected_s"] is not None}


async def served_by(client: Any, times: int, path: str = "/x", **headers: str) -> Counter[str]:
    """Who answered, by status or by the host's name."""
    seen: Counter[str] = Counter()
    for _ in range(times):
        reply = await client.ask("POST", path, b"x", **headers)
        seen[reply.body.decode()[10:-2] if reply.status == 200 else str(reply.status)] += 1
    return seen


@pytest.fixture
async def trio(origin: Any, balancer: Any, http: Any, wait_until: Any) -> Any:
    """Three hosts, a front door that ejects for 0.6 s after three failures, and a client."""
    hosts = [origin(name) for name in "abc"]
    front = balancer("--probe-interval", "0.2")
    front.put(*hosts, ejection=EJECTION, routing="round_robin")
    await settled(front, wait_until, a=True, b=True, c=True)
    client = await http.open(front.port)
    yield hosts, front, client
    await client.close()


async def test_a_host_that_answers_500_is_taken_out_and_comes_back_once_it_is_well(
    trio: Any, wait_until: Any
) -> None:
    hosts, front, client = trio
    hosts[0].mood("answer 500")
    assert (await served_by(client, 30))["500"] == 3
    row = front.backend("a")
    assert row["healthy"] and 0 < row["ejected_s"] <= 0.6
    assert row["error"] == "3 failures in a row"
    text = front.ask("GET", "/metrics")[1].decode()
    assert 'fleet_balancer_ejections_total{pool="default"} 1.0' in text
    # Still broken when it is tried: one error each time, and out for longer.
    await asyncio.to_thread(wait_until, lambda: not ejected(front))
    assert (await served_by(client, 30))["500"] == 1
    assert 0.6 < front.backend("a")["ejected_s"] <= 1.2
    hosts[0].mood()
    await asyncio.to_thread(wait_until, lambda: not ejected(front))
    seen = await served_by(client, 30)
    assert set(seen) == {"a", "b", "c"} and seen["a"] >= 8


async def test_what_clients_do_wrong_takes_no_host_out(trio: Any) -> None:
    _, front, client = trio
    assert await served_by(client, 20, "/status/404") == {"404": 20}
    assert await served_by(client, 20, "/status/429") == {"429": 20}
    assert await served_by(client, 10, "/slow/300", x_request_timeout_ms="20") == {"504": 10}
    assert ejected(front) == set()


async def test_a_poison_request_takes_out_half_at_most_and_never_the_last(trio: Any) -> None:
    _, front, client = trio
    assert await served_by(client, 40, "/status/500") == {"500": 40}
    assert len(ejected(front)) == 1
    seen = await served_by(client, 20)
    assert seen.total() == 20 and "500" not in seen


async def test_a_full_host_is_not_taken_out_as_a_broken_one_is(trio: Any) -> None:
    hosts, front, client = trio
    hosts[0].mood("answer 503 Retry-After: 1")
    for _ in range(4):  # what it declines, and what it serves in between
        assert (await served_by(client, 12))["503"] <= 5
        hosts[0].mood()
        await served_by(client, 6)
        hosts[0].mood("answer 503 Retry-After: 1")
    assert ejected(front) == set()
    seen = await served_by(client, 60)
    assert seen["503"] <= 6  # now it served nothing in between: set aside, by its 6th at the latest
    assert 0 < front.backend("a")["ejected_s"] <= 1.0


async def test_where_most_probes_fail_and_panic_is_set_health_is_ignored(trio: Any, wait_until: Any) -> None:
    hosts, front, client = trio
    front.put(*hosts, ejection=EJECTION, routing="round_robin", panic_share=0.5)
    for host in hosts[:2]:
        host.mood("ready 503")
    await settled(front, wait_until, a=False, b=False, c=True)
    assert await served_by(client, 30) == {"a": 10, "b": 10, "c": 10}
    assert 'fleet_balancer_panic{pool="default"} 1.0' in front.ask("GET", "/metrics")[1].decode()
    hosts[0].mood()
    await settled(front, wait_until, a=True, b=False, c=True)
    assert set(await served_by(client, 30)) == {"a", "c"}
