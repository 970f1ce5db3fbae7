"""What one look at a GPU gave, and whose memory that is. PURE.

Every figure may be None: this GPU or this driver doesn't tell it. Figures have the sizes that nvidia-smi shows: `used`
is without what the driver and the firmware keep for themselves, `total` is with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fleet_wire.agent import DeviceMemory, ForeignProcess

# NVML's bits of "clocks event reasons"; those that only say that the GPU is idle, or that somebody set its clocks, are
# left out. Source: nvml.h, "nvmlClocksEventReasons".
THROTTLES = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x20: "software_thermal_slowdown",
    0x40: "hardware_thermal_slowdown",
    0x80: "power_brake",
}
_NAME_MOST = 60


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds memory on the GPU; `used` in bytes."""

    pid: int
    name: str
    used: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """`at`: time.monotonic() seconds. `uncorrected`: ECC errors that could not be corrected, since the driver's start.
    `recovery`: what the driver says has to be done (NVML_GPU_RECOVERY_ACTION_...). `processes`: None where unknown."""

    at: float
    used: int | None = None
    total: int | None = None
    reserved: int | None = None
    processes: tuple[Process, ...] | None = None
    utilization: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttle_bits: int | None = None
    uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    recovery: int | None = None

    @property
    def memory(self) -> DeviceMemory:
        return DeviceMemory(used_bytes=self.used, total_bytes=self.total, reserved_bytes=self.reserved)

    @property
    def throttled_by(self) -> list[str]:
        bits = self.throttle_bits or 0
        return [name for bit, name in THROTTLES.items() if bits & bit]


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes of the workers and of everybody else; None: not known."""

    workers: int | None
    foreign: int | None
    strangers: list[ForeignProcess]


def shares(reading: Reading, ours: Collection[int], reserved_by_torch: int | None) -> Shares:
    """Whose the memory is. `ours`: the pids of the workers.

    In a container NVML may tell other numbers for our own processes, or none: where no worker is among the processes,
    what they hold is what torch says, and nobody is called a stranger.
    """
    processes = reading.processes or ()
    known = [process for process in processes if process.pid in ours]
    if not known:
        return Shares(reserved_by_torch, None, [])
    others = [process for process in processes if process.pid not in ours]
    workers = sum(process.used or 0 for process in known)
    foreign = sum(process.used or 0 for process in others)
    return Shares(
        workers if all(process.used is not None for process in known) else reserved_by_torch,
        foreign if all(process.used is not None for process in others) else None,
        [ForeignProcess(pid=p.pid, name=printable(p.name), used_bytes=p.used) for p in others],
    )


def printable(name: str) -> str:
    """A process's name, which anybody may choose, without what moves a terminal's cursor."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= _NAME_MOST else plain[: _NAME_MOST - 3] + "..."
