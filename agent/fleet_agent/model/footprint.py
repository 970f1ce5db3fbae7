"""How much memory this worker process holds: on a GPU what torch has reserved there, and its resident memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import torch

_PAGE = resource.getpagesize()
_EVERY_S = 1.0


class Footprint:
    """Weighs the process, at most once a second."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._at = float("-inf")

    def forget(self) -> None:
        """What is held will change: weigh again soon."""
        self._at = float("-inf")

    def weighed(self) -> tuple[int, int | None] | None:
        """(resident bytes, bytes that torch has reserved on the GPU or None); None: it was weighed just now."""
        now = time.monotonic()
        if now - self._at < _EVERY_S:
            return None
        self._at = now
        reserved = int(torch.cuda.memory_reserved(self._device)) if self._device.type == "cuda" else None
        return resident(), reserved


def resident() -> int:
    """Resident bytes of this process; its peak where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
