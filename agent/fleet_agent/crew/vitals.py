"""How the devices and their workers are, as `/status` and `/metrics` say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleet_agent.crew.slot import Slot
from fleet_agent.device.memory import declared_memory, together
from fleet_agent.device.reading import Reading, shares
from fleet_wire.agent import DeviceHealthState, DeviceMemory, DeviceStatus, ModelConfig


def device_memory(slots: Sequence[Slot], loaded: Sequence[ModelConfig], bound: int | None) -> DeviceMemory:
    """Of all devices together; where no device can be asked, what the `loaded` models declare."""
    if not any(slot.watch for slot in slots) and not any(_is_gpu(slot) for slot in slots):
        return declared_memory(loaded, bound)
    return together([slot.device_memory(bound) for slot in slots])


def devices(slots: Iterable[Slot], bound: int | None, now: float) -> list[DeviceStatus]:
    return [_device(slot, bound, now) for slot in slots]


def recycles(slots: Iterable[Slot]) -> dict[str, int]:
    """Workers replaced by the leak guard, by reason."""
    found: dict[str, int] = {}
    for slot in slots:
        for reason, count in slot.recycles.items():
            found[reason] = found.get(reason, 0) + count
    return found


def _device(slot: Slot, bound: int | None, now: float) -> DeviceStatus:
    pid = None if slot.link is None else slot.link.pid
    state, reason, reading = _health(slot, now)
    reading = reading or Reading(now)
    whose = shares(reading, [] if pid is None else [pid], slot.reserved)
    return DeviceStatus(
        name=slot.device,
        uuid=None if slot.watch is None else slot.watch.uuid,
        health=state,
        reason=reason,
        memory=slot.device_memory(bound),
        workers_bytes=whose.workers,
        foreign_bytes=whose.foreign,
        foreign=whose.strangers,
        utilization=reading.utilization,
        temperature_c=reading.temperature_c,
        power_w=reading.power_w,
        throttled_by=reading.throttled_by,
        xids=[] if slot.watch is None else slot.watch.xids,
        worker_pid=pid,
        worker_bytes=slot.resident,
    )


def _health(slot: Slot, now: float) -> tuple[DeviceHealthState, str | None, Reading | None]:
    if slot.fault is not None:
        reading = None if slot.watch is None else slot.watch.reading(now)
        return "failed", slot.fault, reading
    if slot.watch is None:
        why = (
            "NVML (nvidia-ml-py and the driver's library) is not installed" if _is_gpu(slot) else "not a GPU"
        )
        return "unknown", f"device {slot.device}: {why}", None
    verdict = slot.watch.verdict(now)
    return verdict.state, verdict.reason, slot.watch.reading(now)


def _is_gpu(slot: Slot) -> bool:
    return slot.device.startswith("cuda")
