"""One GPU, or one MIG instance of it, through NVML (pynvml): its handle, a reading, the errors that the driver tells.

Calls may take long or never come back where the driver hangs; who calls is in a thread of its own (watch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import PurePath
from typing import Any

from fleet_agent.device.reading import Process, Reading
from fleet_agent.device.xid import REBOOT, RESET

_NO_INSTANCE = 0xFFFFFFFF
_EVENT_WAIT_MS = 500


class Lost(Exception):
    """The GPU is gone, or wants a reset before it does anything; str() says which, and what to do."""


def names_of(uuid: str, index: int, environment: Mapping[str, str]) -> list[str]:
    """What NVML may call the device that CUDA calls `uuid` (hexadecimal, without a prefix), best first.

    CUDA has applied CUDA_VISIBLE_DEVICES, whether numbers or UUIDs are in it, before it tells a UUID. Only for a MIG
    instance an old driver tells the UUID of the whole GPU; then the entry itself is the better name.
    """
    entries = [entry.strip() for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    entry = entries[index] if index < len(entries) else ""
    mig = [entry] if entry.startswith("MIG-") else []
    return [*mig, f"MIG-{uuid}", f"GPU-{uuid}"]


class NvmlDevice:
    """Raises `nvml.NVMLError` where the driver can't be asked, Lost where the GPU is gone."""

    def __init__(self, nvml: Any, names: list[str]) -> None:
        """`nvml`: the pynvml module. `names`: see `names_of`."""
        self._nvml = nvml
        nvml.nvmlInit()
        self._handle = self._guarded(lambda: self._find(names))
        self._gpu = self._handle  # of a MIG instance the GPU that it is a part of, where the sensors are
        self._instance: int | None = None
        if self._told(lambda: nvml.nvmlDeviceIsMigDeviceHandle(self._handle)):
            self._gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self._handle)
            self._instance = int(nvml.nvmlDeviceGetGpuInstanceId(self._handle))
        elif self._told(lambda: nvml.nvmlDeviceGetMigMode(self._handle)[0]):
            # The GPU is cut up and CUDA named none of its parts: it uses the first one.
            self._handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, 0)
            self._instance = int(nvml.nvmlDeviceGetGpuInstanceId(self._handle))

    @property
    def uuid(self) -> str:
        return _text(self._nvml.nvmlDeviceGetUUID(self._handle))

    def read(self, now: float) -> Reading:
        nvml, gpu = self._nvml, self._gpu
        memory = self._guarded(self._memory)
        rows = self._told(lambda: nvml.nvmlDeviceGetRemappedRows(gpu))
        milliwatts = self._told(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
        used = self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(self._handle))
        return Reading(
            at=now,
            used=int(memory.used),
            total=int(memory.total),
            reserved=_int(getattr(memory, "reserved", None)),
            processes=self._told(self._processes),
            utilization=None if used is None else used.gpu / 100.0,
            temperature_c=self._told(
                lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
            ),
            power_w=None if milliwatts is None else milliwatts / 1000.0,
            throttle_bits=self._told(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))),
            uncorrected=self._told(
                lambda: int(
                    nvml.nvmlDeviceGetTotalEccErrors(
                        gpu, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                    )
                )
            ),
            remap_pending=None if rows is None else bool(rows[2]),
            remap_failed=None if rows is None else bool(rows[3]),
            recovery=self._told(self._recovery),
        )

    def listen(self) -> Any:
        """An event set that hears of Xids, for `next_xid`."""
        nvml = self._nvml
        events = nvml.nvmlEventSetCreate()
        self._guarded(
            lambda: nvml.nvmlDeviceRegisterEvents(self._gpu, nvml.nvmlEventTypeXidCriticalError, events)
        )
        return events

    def next_xid(self, events: Any) -> int | None:
        """Waits for half a second at most; None: there was none for this device."""
        nvml = self._nvml
        try:
            event = self._guarded(lambda: nvml.nvmlEventSetWait(events, _EVENT_WAIT_MS))
        except nvml.NVMLError_Timeout:
            return None
        instance = int(event.gpuInstanceId)
        if self._instance is not None and instance not in (_NO_INSTANCE, self._instance):
            return None  # another part of the same GPU
        return int(event.eventData) if event.eventType == nvml.nvmlEventTypeXidCriticalError else None

    def _find(self, names: list[str]) -> Any:
        nvml = self._nvml
        for name in names[:-1]:
            try:
                return nvml.nvmlDeviceGetHandleByUUID(name)
            except (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument):
                continue
        return nvml.nvmlDeviceGetHandleByUUID(names[-1])

    def _memory(self) -> Any:
        """In NVML's second form, where the driver's own share is apart, as nvidia-smi shows it."""
        nvml = self._nvml
        try:
            return nvml.nvmlDeviceGetMemoryInfo(self._handle, version=nvml.nvmlMemory_v2)
        except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):
            return nvml.nvmlDeviceGetMemoryInfo(self._handle)

    def _processes(self) -> tuple[Process, ...]:
        found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return tuple(Process(int(p.pid), self._name(int(p.pid)), _int(p.usedGpuMemory)) for p in found)

    def _name(self, pid: int) -> str:
        name = self._told(lambda: _text(self._nvml.nvmlSystemGetProcessName(pid)))
        return PurePath(name.split(" ")[0]).name if name else "?"

    def _recovery(self) -> int | None:
        nvml = self._nvml
        [value] = nvml.nvmlDeviceGetFieldValues(self._gpu, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
        return int(value.value.uiVal) if value.nvmlReturn == nvml.NVML_SUCCESS else None

    def _told(self, ask: Callable[[], Any]) -> Any:
        """None where this GPU, this driver or this user isn't told that. Raises Lost."""
        try:
            return self._guarded(ask)
        except self._nvml.NVMLError:
            return None

    def _guarded(self, ask: Callable[[], Any]) -> Any:
        nvml = self._nvml
        try:
            return ask()
        except nvml.NVMLError_GpuIsLost:
            raise Lost(f"the GPU is lost (NVML: GPU_IS_LOST): {REBOOT}") from None
        except nvml.NVMLError_ResetRequired:
            raise Lost(f"the GPU wants a reset (NVML: RESET_REQUIRED): {RESET}") from None


def _int(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def process_memory(nvml: Any, pids: Collection[int]) -> int | None:
    """Bytes that these processes hold on all GPUs together; None where NVML can't tell. May take long, see above."""
    try:
        nvml.nvmlInit()
        total = 0
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid in pids:
                    if process.usedGpuMemory is None:
                        return None
                    total += int(process.usedGpuMemory)
    except nvml.NVMLError:
        return None
    return total
