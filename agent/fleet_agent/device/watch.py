"""Watches one GPU while its worker lives: reads it once a second, hears its Xids, says how it is.

NVML is asked in two threads, one for readings and one that waits for errors: a driver that hangs makes the last reading
old, then unknown, and holds up nobody. What they find is left for `verdict`, which the front asks in its own loop.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import Any

from fleet_agent.device.health import DeviceHealth, Verdict
from fleet_agent.device.nvml import Lost, NvmlDevice, names_of
from fleet_agent.device.reading import Reading
from fleet_agent.device.xid import described

log = logging.getLogger("fleet_agent.device")

_EVERY_S = 1.0


class DeviceWatch:
    """`start` it, ask `verdict` and `reading`, `stop` it. `uuid`: as CUDA tells it, hexadecimal without a prefix."""

    def __init__(self, name: str, uuid: str, index: int, nvml: Any) -> None:
        """`nvml`: the pynvml module."""
        self._names = names_of(uuid, index, os.environ)
        self._nvml = nvml
        self._health = DeviceHealth(name)
        self._stop = threading.Event()
        # From the threads: a reading, an Xid, or why there is no reading.
        self._found: deque[Reading | int | Lost | str] = deque(maxlen=1000)
        self._uuid: str | None = None
        self._threads = [
            threading.Thread(target=work, name=f"nvml-{what}-{name}", daemon=True)
            for what, work in (("read", self._read), ("events", self._listen))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Doesn't wait: the threads are daemons and may be stuck in the driver."""
        self._stop.set()

    @property
    def uuid(self) -> str | None:
        """NVML's name of the device; None as long as NVML hasn't told."""
        return self._uuid

    @property
    def xids(self) -> list[int]:
        """The last few errors that the driver told, oldest first."""
        return self._health.xids

    @property
    def xid_counts(self) -> dict[int, int]:
        """All of them since the start, by number."""
        return self._health.xid_counts

    def verdict(self, now: float) -> Verdict:
        """`now`: time.monotonic()."""
        self._take(now)
        return self._health.verdict(now)

    def reading(self, now: float) -> Reading | None:
        """The last one, if it is younger than five seconds."""
        self._take(now)
        return self._health.reading(now)

    def _take(self, now: float) -> None:
        while self._found:
            found = self._found.popleft()
            if isinstance(found, Reading):
                self._health.read(found)
            elif isinstance(found, int):
                log.warning("device %s: Xid %d (%s)", self._health.name, found, described(found).name)
                self._health.heard(found, now)
            elif isinstance(found, Lost):
                self._health.lost(str(found))
            else:
                self._health.unreadable(found)

    def _read(self) -> None:
        device: NvmlDevice | None = None
        while not self._stop.is_set():
            try:
                if device is None:
                    device = NvmlDevice(self._nvml, self._names)
                    self._uuid = device.uuid
                self._found.append(device.read(time.monotonic()))
            except Lost as lost:
                self._found.append(lost)
                return
            except self._nvml.NVMLError as error:
                device = None
                self._found.append(f"NVML: {error}")
            self._stop.wait(_EVERY_S)

    def _listen(self) -> None:
        device: NvmlDevice | None = None
        events: Any = None
        while not self._stop.is_set():
            try:
                if device is None:
                    device = NvmlDevice(self._nvml, self._names)
                    events = device.listen()
                xid = device.next_xid(events)
                if xid is not None:
                    self._found.append(xid)
            except Lost as lost:
                self._found.append(lost)
                return
            except self._nvml.NVMLError_NotSupported:
                log.warning("device %s: its driver tells no Xids", self._health.name)
                return
            except self._nvml.NVMLError:
                device = None  # the reading thread says why
                self._stop.wait(_EVERY_S)
