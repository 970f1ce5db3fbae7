"""How much of the GPUs' memory the processes of outside engines hold, by NVML; unknown is None.

Read in a thread of its own, once in some seconds: a driver that hangs makes the figure unknown, and holds up nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from fleet_agent.device.nvml import process_memory

_EVERY_S = 5.0
_STALE_AFTER_S = 15.0


class MemoryOfProcesses:
    """Asks about `pids()` while started, which is called in the thread."""

    def __init__(self, nvml: Any, pids: Callable[[], set[int]]) -> None:
        self._nvml = nvml
        self._pids = pids
        self._stop = threading.Event()
        self._last: tuple[float, int | None] | None = None
        self._thread = threading.Thread(target=self._poll, name="nvml-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Doesn't wait: the thread is a daemon and may be stuck in the driver."""
        self._stop.set()

    def read(self) -> int | None:
        """Bytes; None where they are unknown or old."""
        last = self._last
        return None if last is None or time.monotonic() - last[0] > _STALE_AFTER_S else last[1]

    def _poll(self) -> None:
        while not self._stop.is_set():
            pids = self._pids()
            self._last = (time.monotonic(), process_memory(self._nvml, pids) if pids else None)
            self._stop.wait(_EVERY_S)
