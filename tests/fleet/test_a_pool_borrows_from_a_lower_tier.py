"""Interactive and batch share hosts, on real agents: one is lent and given back under load, and nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(480)]

EXAMPLES = Path(__file__).parents[2] / "examples"
CALM = {"cooldown": {"scale_up": "1s", "scale_down": "3s"}, "stabilization": {"scale_down": "3s"}}
SCALING = {"min_servers": 1, "max_servers": 2, **CALM}
POOLS = [
    {"name": "interactive", "hosts": ["h1", "h2"], "models": ["quick"], "scaling": SCALING},
    {"name": "batch", "hosts": ["h2", "h3"], "models": ["slow"], "tier": "batch", "scaling": SCALING},
]
LENT = "borrowed h2 from batch: interactive needs 2, has 1, no free host is left"
BACK = "gave h2 back to batch: interactive needs 1, has 2"


def model(name: str, delay_ms: int) -> dict[str, Any]:
    tiny = {"source": str(EXAMPLES / "tiny"), "entrypoint": "model:Tiny"}
    return {"name": name, **tiny, "options": {"delay_ms": delay_ms}}


async def traffic(endpoint: str, name: str, stop: asyncio.Event, seen: Counter[object]) -> None:
    """Four clients, each one request after the other, with time between them: the processors are the fleet's."""
    async with httpx.AsyncClient(timeout=30.0) as client:

        async def one() -> None:
            while not stop.is_set():
                try:
                    url = f"{endpoint}/v1/models/{name}:predict"
                    answer = await client.post(url, json={"instances": [[1.0, 2.0, 3.0, 4.0]]})
                    seen[answer.status_code if answer.status_code == 200 else answer.text] += 1
                except httpx.HTTPError as error:
                    seen[repr(error)] += 1
                await asyncio.sleep(0.02)

        await asyncio.gather(*(one() for _ in range(4)))


async def test_a_host_is_lent_and_given_back_without_a_failed_request(fleet: Any, local_hosts: str) -> None:
    models = [model("quick", 10), model("slow", 300)]
    fleet.write(local_hosts, {}, models=models, pools=POOLS)
    fleet.cli("up")
    fleet.cli("scale", "batch=2")
    assert {n: h["pool"] for n, h in fleet.hosts().items()} == {
        "h1": "interactive",
        "h2": "batch",
        "h3": "batch",
    }
    quick: Counter[object] = Counter()
    slow: Counter[object] = Counter()
    stop, endpoint = asyncio.Event(), fleet.endpoint
    clients = asyncio.gather(traffic(endpoint, "quick", stop, quick), traffic(endpoint, "slow", stop, slow))

    def pools() -> dict[str, int]:
        return {p["name"]: p["ready"] for p in fleet.status()["pools"]}

    await asyncio.to_thread(fleet.cli, "scale", "interactive=2")
    status = fleet.status()
    assert {p["name"]: p["ready"] for p in status["pools"]} == {"interactive": 2, "batch": 1}
    assert next(h for h in status["hosts"] if h["name"] == "h2")["pool"] == "interactive"
    assert LENT in fleet.cli("explain", "interactive")
    assert "1 of its hosts serves interactive: h2" in fleet.cli("explain", "batch")

    await asyncio.to_thread(fleet.cli, "scale", "interactive=1")
    await asyncio.to_thread(fleet.wait, "h2 is back", lambda: pools() == {"interactive": 1, "batch": 2})
    stop.set()
    await clients
    assert set(quick) == {200} and quick[200] > 50, quick
    assert set(slow) == {200} and slow[200] > 20, slow
    told = [(e["kind"], e["pool"], e["reason"]) for e in fleet.events() if e["host"] == "h2"]
    story = [step for step in told if step[0] in ("draining", "booting", "ready")]
    assert [kind for kind, _, _ in story] == ["booting", "ready", "draining"] * 2 + ["booting", "ready"]
    assert [pool for _, pool, _ in story] == ["batch"] * 3 + ["interactive"] * 3 + ["batch"] * 2
    assert [reason for kind, _, reason in story if kind == "draining"] == [LENT, BACK]
