"""A GPU that does what a test says, behind the functions of the real pynvml."""

from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

GIB = 2**30
GPU = "GPU-11111111-2222-3333-4444-555555555555"
MIG = "MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
NO_INSTANCE = 0xFFFFFFFF


class FakeNvml:
    """Stands for the module pynvml. Constants and exceptions are the real ones; a function that isn't faked fails the
    test, and a faked one has the real one's parameters."""

    def __init__(self) -> None:
        self.lost = False
        self.reset_required = False
        self.hangs = threading.Event()
        self.hangs.set()  # set: it answers
        self.unsupported: set[str] = set()
        self.used, self.total, self.reserved = 10 * GIB, 80 * GIB, GIB // 2
        self.processes = [(4242, 3 * GIB, b"/usr/bin/python3"), (77, 2 * GIB, b"/opt/miner --all")]
        self.uncorrected = 0
        self.rows = (0, 0, 0, 0)
        self.throttle = 0
        self.recovery = 0
        self.mig_mode = False
        self.known = {GPU, MIG}
        self.registered: list[Any] = []
        self._events: list[SimpleNamespace] = []
        self._event = threading.Condition()
        for name, function in inspect.getmembers(self, inspect.ismethod):
            if name.startswith("nvml"):
                real = list(inspect.signature(getattr(pynvml, name)).parameters)
                own = list(inspect.signature(function).parameters)
                assert own == real[: len(own)], f"{name}{own} is {name}{real} in pynvml"

    def __getattr__(self, name: str) -> Any:
        found = getattr(pynvml, name)
        assert not inspect.isfunction(found), f"{name} is not faked"
        return found

    def tell(self, xid: int, instance: int = NO_INSTANCE) -> None:
        """The driver reports an error."""
        event = SimpleNamespace(
            eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=xid, gpuInstanceId=instance
        )
        with self._event:
            self._events.append(event)
            self._event.notify()

    def _answer(self, name: str = "") -> None:
        self.hangs.wait()
        if self.lost:
            raise pynvml.NVMLError_GpuIsLost()
        if self.reset_required:
            raise pynvml.NVMLError_ResetRequired()
        if name in self.unsupported:
            raise pynvml.NVMLError_NotSupported()

    def nvmlInit(self) -> None:
        self.hangs.wait()

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._answer()
        if uuid not in self.known:
            raise pynvml.NVMLError_NotFound()
        return uuid

    def nvmlDeviceGetCount(self) -> int:
        self._answer()
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return GPU

    def nvmlDeviceIsMigDeviceHandle(self, device: str) -> int:
        return int(device.startswith("MIG-"))

    def nvmlDeviceGetMigMode(self, device: str) -> list[int]:
        return [int(self.mig_mode), int(self.mig_mode)]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: str, index: int) -> str:
        assert (device, index) == (GPU, 0)
        return MIG

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: str) -> str:
        assert migDevice == MIG
        return GPU

    def nvmlDeviceGetGpuInstanceId(self, device: str) -> int:
        assert device == MIG
        return 3

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: object = None) -> SimpleNamespace:
        self._answer("nvmlDeviceGetMemoryInfo_v2" if version else "")
        part = 8 if handle.startswith("MIG-") else 1
        if version is None:  # the old form counts what is reserved as used
            return SimpleNamespace(used=self.used + self.reserved, total=self.total)
        assert version == pynvml.nvmlMemory_v2
        return SimpleNamespace(used=self.used // part, total=self.total // part, reserved=self.reserved)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._answer("nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used, _ in self.processes]

    def nvmlSystemGetProcessName(self, pid: int) -> bytes:
        return next(name for own, _, name in self.processes if own == pid)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
        if handle.startswith("MIG-"):
            raise pynvml.NVMLError_NotSupported()
        return SimpleNamespace(gpu=87, memory=40)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        assert (handle, sensor) == (GPU, pynvml.NVML_TEMPERATURE_GPU)
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        assert handle == GPU
        return 312_500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.throttle

    def nvmlDeviceGetTotalEccErrors(self, handle: str, errorType: int, counterType: int) -> int:
        self._answer("nvmlDeviceGetTotalEccErrors")
        assert errorType == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        assert counterType == pynvml.NVML_VOLATILE_ECC
        return self.uncorrected

    def nvmlDeviceGetRemappedRows(self, device: str) -> tuple[int, int, int, int]:
        self._answer("nvmlDeviceGetRemappedRows")
        return self.rows

    def nvmlDeviceGetFieldValues(self, handle: str, fieldIds: list[int]) -> list[SimpleNamespace]:
        assert fieldIds == [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        value = SimpleNamespace(uiVal=self.recovery)
        return [SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, value=value)]

    def nvmlEventSetCreate(self) -> object:
        return self._events

    def nvmlDeviceRegisterEvents(self, handle: str, eventTypes: int, eventSet: object) -> None:
        assert eventTypes == pynvml.nvmlEventTypeXidCriticalError
        self.registered.append(handle)

    def nvmlEventSetWait(self, eventSet: list[SimpleNamespace], timeoutms: int) -> SimpleNamespace:
        self._answer()
        with self._event:
            if not self._event.wait_for(lambda: bool(eventSet), timeoutms / 1000):
                raise pynvml.NVMLError_Timeout()
            return eventSet.pop(0)


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml()
