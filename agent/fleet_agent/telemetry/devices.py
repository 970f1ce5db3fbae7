"""The devices and their workers in Prometheus' form. What isn't known is absent, never a zero."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fleet_agent.crew import vitals
from fleet_agent.crew.slot import Slot
from fleet_wire.agent import DeviceStatus

_STATES = ("healthy", "degraded", "failed", "unknown")


def device_metrics(slots: Sequence[Slot], bound: int | None) -> Iterable[Metric]:
    """`bound`: the configured one on a device's memory."""
    devices = vitals.devices(slots, bound, time.monotonic())
    yield _memory(devices)
    yield _gauge("worker_memory_bytes", "Resident memory of the worker process.", devices, "worker_bytes")
    yield _gauge("gpu_utilization_ratio", "How busy NVML says it is, 0 to 1.", devices, "utilization")
    yield _gauge("gpu_temperature_celsius", "Its temperature.", devices, "temperature_c")
    yield _gauge("gpu_power_watts", "What it draws.", devices, "power_w")
    health = GaugeMetricFamily(
        "fleet_agent_device_health", "1: it is in that state.", labels=["device", "state"]
    )
    throttled = GaugeMetricFamily(
        "fleet_agent_gpu_throttled", "1: slowed down for that.", labels=["device", "reason"]
    )
    for device in devices:
        for state in _STATES:
            health.add_metric([device.name, state], device.health == state)
        for reason in device.throttled_by:
            throttled.add_metric([device.name, reason], 1)
    yield health
    yield throttled
    xids = CounterMetricFamily(
        "fleet_agent_gpu_xids", "Errors that the driver told.", labels=["device", "xid"]
    )
    for slot in slots:
        for xid, count in ({} if slot.watch is None else slot.watch.xid_counts).items():
            xids.add_metric([slot.device, str(xid)], count)
    yield xids
    recycles = CounterMetricFamily(
        "fleet_agent_worker_recycles", "Workers replaced by the leak guard.", labels=["reason"]
    )
    for reason, count in vitals.recycles(slots).items():
        recycles.add_metric([reason], count)
    yield recycles
    restarts = sum(slot.restarts for slot in slots)
    yield CounterMetricFamily(
        "fleet_agent_worker_restarts", "Workers that ended and were replaced.", restarts
    )
    hangs = sum(slot.hangs for slot in slots)
    yield CounterMetricFamily("fleet_agent_worker_hangs", "Workers that were killed for hanging.", hangs)


def _memory(devices: Iterable[DeviceStatus]) -> Metric:
    family = GaugeMetricFamily(
        "fleet_agent_gpu_memory_bytes",
        "Used, total and reserved as nvidia-smi has them; of what is used, the workers' and the other processes'.",
        labels=["device", "kind"],
    )
    for device in devices:
        kinds = {
            "used": device.memory.used_bytes,
            "total": device.memory.total_bytes,
            "reserved": device.memory.reserved_bytes,
            "workers": device.workers_bytes,
            "foreign": device.foreign_bytes,
        }
        for kind, value in kinds.items():
            if value is not None:
                family.add_metric([device.name, kind], value)
    return family


def _gauge(name: str, documentation: str, devices: Iterable[DeviceStatus], field: str) -> Metric:
    family = GaugeMetricFamily(f"fleet_agent_{name}", documentation, labels=["device"])
    for device in devices:
        value = getattr(device, field)
        if value is not None:
            family.add_metric([device.name], value)
    return family
