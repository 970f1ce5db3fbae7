"""The device's memory as two numbers: used and total. Unknown is None, never a zero. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from fleet_wire.agent import DeviceMemory, ModelConfig


def declared_memory(models: Sequence[ModelConfig], bound: int | None) -> DeviceMemory:
    """The memory of a device that can't be asked: what the loaded `models` declare, out of the configured bound.

    Where one of them declares nothing, what is used is unknown.
    """
    needs = [model.device_memory_bytes for model in models]
    known = [need for need in needs if need is not None]
    used = sum(known) if known and len(known) == len(needs) else None
    return DeviceMemory(used_bytes=used, total_bytes=bound)


def bounded(reading: DeviceMemory, bound: int | None) -> DeviceMemory:
    """A reading with the configured bound on the total."""
    if bound is None or reading.total_bytes is None:
        return reading
    return reading.model_copy(update={"total_bytes": min(bound, reading.total_bytes)})


def together(readings: Sequence[DeviceMemory]) -> DeviceMemory:
    """Of several devices: the sum of each figure that all of them know."""
    return DeviceMemory(
        used_bytes=_sum([reading.used_bytes for reading in readings]),
        total_bytes=_sum([reading.total_bytes for reading in readings]),
        reserved_bytes=_sum([reading.reserved_bytes for reading in readings]),
    )


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
