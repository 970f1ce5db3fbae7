"""How much of the device's memory is used and how much there is. Unknown is None, never a zero.

`MemoryReader` runs in the front and asks NVML in a thread of its own: a driver that hangs makes the reading old,
then unknown, and holds up nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from fleet_wire.agent import DeviceMemory, ModelConfig

_EVERY_S = 1.0
_STALE_AFTER_S = 5.0


class MemoryReader:
    """Reads one GPU's memory once a second while started. `uuid` is the device's as NVML names it ("GPU-...")."""

    def __init__(self, uuid: str, nvml: Any) -> None:
        self._uuid = uuid
        self._nvml = nvml
        self._stop = threading.Event()
        self._last: tuple[float, DeviceMemory] | None = None
        self._thread = threading.Thread(target=self._poll, name="nvml", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Doesn't wait: the thread is a daemon and may be stuck in the driver."""
        self._stop.set()

    def read(self, now: float | None = None) -> DeviceMemory:
        """The last reading, or unknown if there is none younger than five seconds. `now`: time.monotonic()."""
        last = self._last
        if last is None or (time.monotonic() if now is None else now) - last[0] > _STALE_AFTER_S:
            return DeviceMemory()
        return last[1]

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self._nvml.nvmlInit()
                handle = self._nvml.nvmlDeviceGetHandleByUUID(self._uuid)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                reading = DeviceMemory(used_bytes=int(memory.used), total_bytes=int(memory.total))
                self._last = (time.monotonic(), reading)
            except self._nvml.NVMLError:
                self._last = None
            self._stop.wait(_EVERY_S)


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
    return DeviceMemory(used_bytes=reading.used_bytes, total_bytes=min(bound, reading.total_bytes))
