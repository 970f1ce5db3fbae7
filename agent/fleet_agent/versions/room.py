"""Whether a model finds room in the devices' memory. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_wire.agent import DeviceMemory


def lacking(need: int, devices: Mapping[str, DeviceMemory], freed: int = 0, promised: int = 0) -> str | None:
    """Why `need` bytes don't fit on one of the devices; None: they do, or it isn't known there.

    `freed`: what will be given back on each before. `promised`: what others that are being loaded will take on each.
    """
    for name, memory in devices.items():
        if memory.used_bytes is None or memory.total_bytes is None:
            continue
        free = max(0, memory.total_bytes - memory.used_bytes - promised)
        if need > free + freed:
            there = f"{_said(free)} of {_said(memory.total_bytes)} are free on {name}"
            return f"needs {_said(need)} of device memory, and {there}{_after(freed)}"
    return None


def _after(freed: int) -> str:
    return f", {_said(freed)} more once the old one is unloaded" if freed else ""


def _said(count: int) -> str:
    """Bytes as a person reads them: 1.5 GiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
