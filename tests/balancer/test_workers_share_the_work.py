"""Several worker processes on one port: they count as one, and one that dies is nobody's problem."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def workers_of(front: Any) -> list[int]:
    (nursery,) = children(front.pid)
    return children(nursery)


@pytest.fixture(scope="module")
def shared_pair(starters: Any) -> Any:
    """Two workers before three hosts."""
    origin, balancer = starters
    hosts = [origin(name) for name in "abc"]
    front = balancer("--backends", ",".join(h.address for h in hosts), "--workers", "2", "--grace", "3")
    return hosts, front


@pytest.fixture
def pair(shared_pair: Any, wait_until: Any) -> Any:
    hosts, front = shared_pair
    wait_until(lambda: all(b["healthy"] and not b["in_flight"] for b in front.status()["backends"]))
    return hosts, front


def begun(hosts: list[Any]) -> list[int]:
    """Requests that each host has got so far."""
    return [len(h.lines("begun")) for h in hosts]


async def spread(http: Any, front: Any, connections: int) -> list[Any]:
    """So many connections that each worker has some: the kernel deals them out."""
    return [await http.open(front.port) for _ in range(connections)]


async def test_least_connections_is_right_across_workers(pair: Any, http: Any, wait_until: Any) -> None:
    hosts, front = pair
    clients = await spread(http, front, 12)
    before = begun(hosts)
    for number, client in enumerate(clients, 1):
        client.send("GET", "/slow/1500")
        await asyncio.to_thread(wait_until, lambda n=number: sum(begun(hosts)) == sum(before) + n)
    # One after the other over two workers, and yet each of three hosts has four of twelve.
    assert [now - then for now, then in zip(begun(hosts), before, strict=True)] == [4] * 3
    status = await asyncio.to_thread(front.status)
    assert [b["in_flight"] for b in status["backends"]] == [4] * 3
    for client in clients:
        assert (await client.reply()).status == 200
        await client.close()


async def test_status_and_metrics_are_the_sum_of_the_workers(pair: Any, http: Any) -> None:
    _, front = pair
    before = await asyncio.to_thread(front.status)
    clients = await spread(http, front, 16)
    for client in clients:
        assert (await client.ask("GET", "/x")).status == 200
        assert (await client.ask("GET", "/status/404")).status == 404
    status = await asyncio.to_thread(front.status)
    pool, was = status["pools"][0], before["pools"][0]
    assert [pool[k] - was[k] for k in ("arrivals", "completed", "errors")] == [32, 32, 0]
    assert pool["latency"]["count"] == pool["completed"]
    assert sum(b["requests"] for b in status["backends"]) == pool["arrivals"]
    assert status["workers"] == 2 and status["pid"] == front.pid
    text = (await asyncio.to_thread(front.ask, "GET", "/metrics"))[1].decode()
    samples = {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["fleet_balancer_arrivals_total"] == pool["arrivals"]
    assert samples["fleet_balancer_latency_seconds_count"] == pool["completed"]
    assert samples["fleet_balancer_workers"] == 2
    assert samples["fleet_balancer_client_connections"] == 16
    for client in clients:
        await client.close()


async def test_a_killed_worker_is_replaced_and_its_requests_are_counted_as_broken_off(
    pair: Any, http: Any, wait_until: Any
) -> None:
    hosts, front = pair
    clients = await spread(http, front, 16)
    sent = sum(begun(hosts)) + 16
    for client in clients:
        client.send("GET", "/slow/1000")
    await asyncio.to_thread(wait_until, lambda: sum(begun(hosts)) == sent)
    before = (await asyncio.to_thread(front.status))["pools"][0]
    assert before["in_flight"] == 16
    victim = workers_of(front)[0]
    os.kill(victim, signal.SIGKILL)
    served = broken = 0
    for client in clients:
        try:
            served += (await client.reply()).status == 200
        except (ConnectionError, asyncio.IncompleteReadError):
            broken += 1
        await client.close()
    assert served and broken and served + broken == 16
    await asyncio.to_thread(
        wait_until, lambda: len(workers_of(front)) == 2 and victim not in workers_of(front)
    )
    # New connections to either worker are served with the list that holds, and nothing is left of the dead one.
    for client in await spread(http, front, 16):
        assert (await client.ask("GET", "/x")).status == 200
        await client.close()
    status = await asyncio.to_thread(front.status)
    pool = status["pools"][0]
    assert pool["in_flight"] == 0 and all(b["in_flight"] == 0 for b in status["backends"])
    changed = {k: pool[k] - before[k] for k in ("arrivals", "completed", "errors", "in_flight")}
    assert changed == {"arrivals": 16, "completed": served + 16, "errors": broken, "in_flight": -16}


async def test_a_new_process_takes_over_where_no_worker_could_be_made_any_more(
    origin: Any, balancer: Any, load: Any, wait_until: Any
) -> None:
    host = origin("a")
    front = balancer("--backends", host.address, "--workers", "2", "--grace", "3")
    await asyncio.to_thread(wait_until, lambda: front.backend(host.address)["healthy"])
    async with load(front.port, "/x", 8, 0.01) as tally:
        (nursery,) = children(front.pid)
        os.kill(nursery, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: front.pid != front.process.pid)
        await asyncio.sleep(0.1)
    assert tally.failed == 0 and tally.replies
    assert await asyncio.to_thread(front.process.wait, 10) == 0


async def test_a_list_reaches_every_worker_before_it_is_answered(
    origin: Any, balancer: Any, http: Any, load: Any, wait_until: Any
) -> None:
    hosts = [origin("a"), origin("b")]
    front = balancer("--workers", "2")
    front.put(*hosts)
    await asyncio.to_thread(wait_until, lambda: all(b["healthy"] for b in front.status()["backends"]))
    async with load(front.port, "/x", 16, 0.01) as tally:
        for _ in range(2):
            for host in hosts:
                code, _ = await asyncio.to_thread(front.ask, "POST", f"/backends/{host.name}/drain")
                assert code == 200
                # What was on its way has ended.
                await asyncio.to_thread(
                    wait_until, lambda name=host.name: not front.backend(name)["in_flight"]
                )
                had = begun([host])
                await asyncio.sleep(0.1)
                assert begun([host]) == had
                await asyncio.to_thread(front.ask, "POST", f"/backends/{host.name}/undrain")
    assert tally.failed == 0
    bad = {"pools": [{"name": "p"}], "backends": [{"name": "x", "address": "h:1"}]}
    code, body = await asyncio.to_thread(front.ask, "PUT", "/backends", bad)
    assert code == 400 and b"there is no pool default" in body
    for client in await spread(http, front, 8):
        assert (await client.ask("GET", "/x")).status == 200
        await client.close()


async def test_a_host_gets_no_more_at_once_than_it_may_over_all_workers(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    host = origin("a")
    front = balancer("--workers", "2")
    front.put(host, max_in_flight_per_server=3)
    await asyncio.to_thread(wait_until, lambda: front.backend("a")["healthy"])
    clients = await spread(http, front, 10)
    for client in clients:
        client.send("GET", "/slow/200")
        await asyncio.sleep(0.01)
    most = 0
    while len(host.lines("done")) < 10:
        most = max(most, len(host.lines("begun")) - len(host.lines("done")))
        await asyncio.sleep(0.005)
    assert most == 3
    for client in clients:
        assert (await client.reply()).status == 200
        await client.close()


# The last one: after it nobody is left of the pair.
async def test_requests_under_way_are_finished_when_the_supervisor_is_killed(
    pair: Any, http: Any, wait_until: Any
) -> None:
    hosts, front = pair
    workers = [*workers_of(front), *children(front.pid)]
    clients = await spread(http, front, 6)
    sent = sum(begun(hosts)) + 6
    for client in clients:
        client.send("GET", "/slow/500")
    await asyncio.to_thread(wait_until, lambda: sum(begun(hosts)) == sent)
    front.process.kill()
    front.process.wait()
    for client in clients:
        assert (await client.reply()).status == 200
        await client.close()
    # The port is free again, and nobody is left behind.
    await asyncio.to_thread(wait_until, lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))
    with pytest.raises(ConnectionRefusedError):
        await http.open(front.port)
