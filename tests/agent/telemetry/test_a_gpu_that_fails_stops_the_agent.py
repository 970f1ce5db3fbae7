"""A front and its workers, all real but for the GPU: the worker computes on the CPU and says that it is cuda:0."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_agent.crew import crew
from fleet_agent.crew.link import WorkerLink
from fleet_agent.engine.engine import Engine
from fleet_agent.front.server import Front
from fleet_agent.telemetry.report import agent_status
from fleet_wire.agent import AgentConfig, ModelConfig

GIB = 2**30
UUID = "11111111-2222-3333-4444-555555555555"
SLOW = """
import time


class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]

    def load(self, device, options):
        pass

    def forward(self, batch):
        time.sleep(float(batch.max()))
        return batch
"""


class OnAGpu(WorkerLink):
    """A worker that calls its CPU a GPU; it knows no device that isn't named."""

    started: list[str]

    def __init__(self, on_message: Callable[[Any], None]) -> None:
        def hear(message: tuple[Any, ...]) -> None:
            if message[0] == "hello":
                message = ("hello", {**message[1], "device": "cuda:0", "uuid": UUID})
            on_message(message)

        super().__init__(hear)

    async def start(self, device: str, threads: int, memory_bound: int) -> None:
        self.started.append(device)
        await super().start("cpu", threads, memory_bound)


class Host:
    """The engine and a client of its HTTP face."""

    def __init__(self, engine: Engine, http: httpx.AsyncClient, started: list[str]) -> None:
        self.engine, self.http, self.started = engine, http, started

    async def until(self, true: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    async def ask(self, seconds: float) -> httpx.Response:
        return await self.http.post("/v1/models/m:predict", json={"instances": [[seconds]]})


@pytest.fixture
async def host(nvml: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Host]:
    (tmp_path / "model.py").write_text(SLOW)
    monkeypatch.setattr(OnAGpu, "started", [], raising=False)
    monkeypatch.setattr(crew, "WorkerLink", OnAGpu)
    models = [ModelConfig(name="m", path=str(tmp_path), entrypoint="model:Model", max_batch_size=1)]
    engine = Engine(AgentConfig(listen="127.0.0.1:0", device="auto", threads=1, models=models), nvml)
    transport = httpx.ASGITransport(Front(engine, None))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://agent", timeout=60.0) as http:
        engine.start()
        made = Host(engine, http, OnAGpu.started)
        await made.until(lambda: engine.condition.state() == "ready")
        yield made
    nvml.hangs.set()
    await engine.stop()


async def its_figures_are_told(host: Host, nvml: Any) -> None:
    slot = host.engine.slots[0]
    assert slot.link is not None
    nvml.processes[0] = (slot.link.pid, 3 * GIB, b"python3")
    await host.until(lambda: agent_status(host.engine).devices[0].workers_bytes == 3 * GIB)
    status = (await host.http.get("/status")).json()
    [device] = status["devices"]
    assert status["device_memory"] == {
        "used_bytes": 10 * GIB,
        "total_bytes": 80 * GIB,
        "reserved_bytes": GIB // 2,
    }
    assert (device["name"], device["uuid"], device["health"]) == ("cuda:0", f"GPU-{UUID}", "healthy")
    assert device["foreign"] == [{"pid": 77, "name": "miner", "used_bytes": 2 * GIB}]
    assert (device["utilization"], device["temperature_c"], device["power_w"]) == (0.87, 61.0, 312.5)
    nvml.throttle = 0x40
    await host.until(lambda: agent_status(host.engine).devices[0].health == "degraded")
    assert (await host.http.get("/readyz")).status_code == 200  # hot is no reason to send nobody
    lines = (await host.http.get("/metrics")).text.splitlines()
    for line in (
        'fleet_agent_gpu_memory_bytes{device="cuda:0",kind="foreign"} 2.147483648e+09',
        'fleet_agent_gpu_throttled{device="cuda:0",reason="hardware_thermal_slowdown"} 1.0',
        'fleet_agent_device_health{device="cuda:0",state="degraded"} 1.0',
        'fleet_agent_gpu_temperature_celsius{device="cuda:0"} 61.0',
        'fleet_agent_gpu_power_watts{device="cuda:0"} 312.5',
    ):
        assert line in lines


async def test_its_figures_are_told_until_an_xid_of_the_hardware_takes_the_agent_out(
    host: Host, nvml: Any
) -> None:
    await its_figures_are_told(host, nvml)
    running = [asyncio.create_task(host.ask(30.0)) for _ in range(2)]  # one computes, one waits
    await host.until(lambda: host.engine.slots[0].running)
    await host.until(lambda: nvml.registered)
    nvml.tell(79)
    told = time.monotonic()
    await host.until(lambda: host.engine.condition.state() == "failed", 2.0)
    for reply in await asyncio.gather(*running):
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "unavailable"
    assert time.monotonic() - told < 2.0
    ready = await host.http.get("/readyz")
    assert ready.status_code == 503
    said = ready.json()["error"]["message"]
    assert "device cuda:0: Xid 79 (GPU has fallen off the bus): switch the host off and on" in said
    status = (await host.http.get("/status")).json()
    assert (status["state"], status["error"]) == ("failed", said)
    assert (status["devices"][0]["health"], status["devices"][0]["xids"]) == ("failed", [79])
    assert (await host.ask(0.0)).status_code == 503
    await host.until(lambda: host.engine.slots[0].link is None)
    await asyncio.sleep(0.5)  # longer than the first back-off
    assert host.started == ["auto"]  # no worker is started on a dead GPU
    assert (
        'fleet_agent_gpu_xids_total{device="cuda:0",xid="79"} 1.0' in (await host.http.get("/metrics")).text
    )


@pytest.mark.slow
async def test_an_application_s_xid_and_a_hanging_driver_serve_on(host: Host, nvml: Any) -> None:
    await host.until(lambda: nvml.registered)
    nvml.tell(31)
    await host.until(lambda: agent_status(host.engine).devices[0].xids == [31])
    nvml.hangs.clear()
    started = time.monotonic()
    for _ in range(20):
        assert (await host.http.get("/healthz")).status_code == 200
        assert (await host.ask(0.0)).status_code == 200
    assert time.monotonic() - started < 5.0
    later = time.monotonic() + 30.0
    watch = host.engine.slots[0].watch
    assert watch is not None
    assert watch.verdict(later).state == "unknown"
    assert (await host.http.get("/readyz")).status_code == 200


@pytest.mark.slow
async def test_a_worker_that_ends_is_replaced_on_the_same_gpu_and_nowhere_else(host: Host) -> None:
    link = host.engine.slots[0].link
    assert link is not None
    assert link.pid is not None
    os.kill(link.pid, 9)
    await host.until(lambda: host.engine.slots[0].restarts == 1)
    await host.until(lambda: host.engine.condition.state() == "ready")
    assert host.started == ["auto", "cuda:0"]
    assert (await host.ask(0.0)).status_code == 200
