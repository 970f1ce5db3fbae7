"""A host without room for the model's declared need gets nothing: hosts that report a bounded device memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

GIB = 1 << 30


def report(used: int, total: int, **held: int) -> dict[str, Any]:
    models = [
        {"name": name, "device_memory_bytes": size, "version": "1", "ready": True}
        for name, size in held.items()
    ]
    return {"device_memory": {"used_bytes": used * GIB, "total_bytes": total * GIB}, "models": models}


async def reported(front: Any, wait_until: Any, *names: str) -> None:
    def known() -> bool:
        backends = {b["name"]: b for b in front.status()["backends"]}
        return all(backends[n]["healthy"] and backends[n]["report_age_s"] is not None for n in names)

    await asyncio.to_thread(wait_until, known)


async def test_only_hosts_with_room_get_the_model(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    full = origin("full", status=report(7, 8))
    roomy = origin("roomy", status=report(1, 8))
    holds = origin("holds", status=report(7, 8, big=4 * GIB))
    unknown = origin("unknown")
    front = balancer()
    models = [{"name": "big", "device_memory_bytes": 4 * GIB}, {"name": "small"}]
    front.put(full, roomy, holds, unknown, models=models)
    await reported(front, wait_until, "full", "roomy", "holds", "unknown")
    client = await http.open(front.port)
    got = {
        json.loads((await client.ask("POST", "/v1/models/big:predict", b"{}")).body)["host"]
        for _ in range(12)
    }
    assert got == {"roomy", "holds", "unknown"}
    # The model may also be named by a header, or in a small JSON body.
    for _ in range(8):
        reply = await client.ask("POST", "/x", b"{}", x_fleet_model="big")
        assert json.loads(reply.body)["host"] != "full"
        reply = await client.ask("POST", "/v1/embeddings", b'{"model": "big", "input": "x"}')
        assert json.loads(reply.body)["host"] != "full"
    got = {
        json.loads((await client.ask("POST", "/v1/models/small:predict", b"{}")).body)["host"]
        for _ in range(12)
    }
    assert "full" in got
    await client.close()
    memory = front.backend("full")["device_memory"]
    assert memory == {"used_bytes": 7 * GIB, "total_bytes": 8 * GIB}


async def test_where_nobody_has_room_a_request_waits_then_is_refused_or_served(
    origin: Any, balancer: Any, http: Any, wait_until: Any, tmp_path: Any
) -> None:
    full = origin("full", status=report(8, 8))
    front = balancer("--probe-interval", "0.2")
    pool = {"models": [{"name": "big", "device_memory_bytes": 4 * GIB}], "queue_timeout_s": 0.5}
    front.put(full, **pool)
    await reported(front, wait_until, "full")
    client = await http.open(front.port)
    reply = await client.ask("POST", "/v1/models/big:predict", b"{}")
    assert reply.status == 503
    assert b"no host of pool default has room on its device for model big" in reply.body
    assert not full.lines("begun")
    front.put(full, **{**pool, "queue_timeout_s": 10})
    client.send("POST", "/v1/models/big:predict", b"{}")
    await asyncio.sleep(0.3)
    (tmp_path / "full.json").write_text(json.dumps(report(2, 8)), encoding="utf-8")
    assert (await client.reply()).status == 200
    await client.close()


async def test_an_unknown_model_is_refused_with_the_models_that_are_served(
    origin: Any, balancer: Any, http: Any, wait_until: Any
) -> None:
    front = balancer()
    front.put(models=[{"name": "minilm"}, {"name": "tiny"}])
    client = await http.open(front.port)
    reply = await client.ask("POST", "/v1/models/nix:predict", b"{}")
    assert reply.status == 404
    assert (
        json.loads(reply.body)["error"]["message"]
        == "no pool serves model 'nix'; models served: minilm, tiny"
    )
    await client.close()


async def test_the_model_decides_the_pool(origin: Any, balancer: Any, http: Any, wait_until: Any) -> None:
    a, b = origin("a"), origin("b")
    front = balancer()
    document = {
        "pools": [{"name": "one", "models": [{"name": "m1"}]}, {"name": "two", "models": [{"name": "m2"}]}],
        "backends": [
            {"name": "a", "address": a.address, "pool": "one"},
            {"name": "b", "address": b.address, "pool": "two"},
        ],
    }
    assert front.ask("PUT", "/backends", document)[0] == 200
    client = await http.open(front.port)

    async def host(method: str, path: str, body: bytes = b"", **headers: str) -> str:
        reply = await client.ask(method, path, body, **headers)
        assert reply.status == 200, reply
        return str(json.loads(reply.body)["host"])

    for _ in range(3):
        assert await host("POST", "/v1/models/m1:predict", b"{}") == "a"
        assert await host("GET", "/v1/models/m2") == "b"
        assert await host("POST", "/v2/models/m2/infer", b"{}") == "b"
        assert await host("POST", "/v1/chat/completions", b'{"model": "m2"}') == "b"
        assert await host("POST", "/v1/chat/completions", b'{"model": "m1"}', x_fleet_model="m2") == "b"
        assert await host("GET", "/v1/models") in "ab"
    unnamed = await client.ask("POST", "/v1/embeddings", b'{"input": "x"}')
    assert unnamed.status == 400
    assert b"x-fleet-model" in unnamed.body
    await client.close()
