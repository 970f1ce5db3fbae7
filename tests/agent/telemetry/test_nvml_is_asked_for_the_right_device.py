"""Readings and errors are those of the device that the worker computes on, and a driver that hangs hurts nobody."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from fleet_agent.device import nvml as asking
from fleet_agent.device.nvml import Lost, NvmlDevice, names_of, process_memory
from fleet_agent.device.watch import DeviceWatch

GIB = 2**30
GPU = "11111111-2222-3333-4444-555555555555"
MIG = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


@pytest.fixture
def watched(nvml: Any) -> Iterator[Callable[[], DeviceWatch]]:
    made: list[DeviceWatch] = []

    def make() -> DeviceWatch:
        watch = DeviceWatch("cuda:0", GPU, 0, nvml)
        made.append(watch)
        watch.start()
        return watch

    yield make
    nvml.hangs.set()
    for watch in made:
        watch.stop()


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_asked_exists_in_pynvml() -> None:
    tree = ast.parse(Path(asking.__file__).read_text())
    asked = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.lower().startswith("nvml")
        and node.attr != "nvmlReturn"
    }
    assert len(asked) > 20
    assert [name for name in asked if not hasattr(pynvml, name)] == []


def test_a_whole_gpu(nvml: Any) -> None:
    reading = NvmlDevice(nvml, names_of(GPU, 0, {})).read(5.0)
    assert (reading.used, reading.total, reading.reserved) == (10 * GIB, 80 * GIB, GIB // 2)
    assert (reading.utilization, reading.temperature_c, reading.power_w) == (0.87, 61.0, 312.5)
    assert reading.processes is not None
    assert [(p.pid, p.name) for p in reading.processes] == [(4242, "python3"), (77, "miner")]


def test_an_old_driver_tells_less(nvml: Any) -> None:
    nvml.unsupported = {
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetComputeRunningProcesses",
    }
    reading = NvmlDevice(nvml, names_of(GPU, 0, {})).read(5.0)
    assert (reading.total, reading.reserved) == (80 * GIB, None)
    assert (reading.uncorrected, reading.remap_failed, reading.processes) == (None, None, None)


def test_a_mig_instance_has_its_own_memory_and_the_sensors_of_the_gpu(nvml: Any) -> None:
    device = NvmlDevice(nvml, names_of(MIG, 0, {}))
    reading = device.read(5.0)
    assert device.uuid == f"MIG-{MIG}"
    assert reading.total == 10 * GIB
    assert (reading.utilization, reading.temperature_c) == (None, 61.0)


def test_errors_of_another_mig_instance_are_not_ours(nvml: Any) -> None:
    device = NvmlDevice(nvml, names_of(MIG, 0, {}))
    events = device.listen()
    assert nvml.registered == [f"GPU-{GPU}"]
    nvml.tell(95, instance=1)
    assert device.next_xid(events) is None
    nvml.tell(95, instance=3)
    assert device.next_xid(events) == 95
    nvml.tell(79)
    assert device.next_xid(events) == 79


@pytest.mark.parametrize(
    ("visible", "uuid", "index", "expected"),
    [
        ("", GPU, 0, f"GPU-{GPU}"),
        ("3,1", GPU, 1, f"GPU-{GPU}"),  # numbers: CUDA has told the UUID of the right one
        (f"GPU-{GPU}", GPU, 0, f"GPU-{GPU}"),
        (f"MIG-{MIG}", MIG, 0, f"MIG-{MIG}"),
        (f"MIG-{MIG}", GPU, 0, f"MIG-{MIG}"),  # an old driver tells the whole GPU's
        (f"GPU-{GPU}, MIG-{MIG}", GPU, 1, f"MIG-{MIG}"),
    ],
)
def test_cuda_visible_devices(nvml: Any, visible: str, uuid: str, index: int, expected: str) -> None:
    assert NvmlDevice(nvml, names_of(uuid, index, {"CUDA_VISIBLE_DEVICES": visible})).uuid == expected


def test_a_gpu_that_is_cut_up_and_not_named_is_its_first_part(nvml: Any) -> None:
    nvml.mig_mode = True
    assert NvmlDevice(nvml, names_of(GPU, 0, {})).uuid == f"MIG-{MIG}"


@pytest.mark.parametrize(("how", "what"), [("lost", "the GPU is lost"), ("reset_required", "wants a reset")])
def test_a_gpu_that_is_gone_is_said_to_be(nvml: Any, how: str, what: str) -> None:
    device = NvmlDevice(nvml, names_of(GPU, 0, {}))
    setattr(nvml, how, True)
    with pytest.raises(Lost, match=what):
        device.read(5.0)


def test_a_driver_that_hangs_makes_the_reading_old_then_unknown(
    nvml: Any, watched: Callable[[], DeviceWatch]
) -> None:
    watch = watched()
    until(lambda: watch.reading(time.monotonic()) is not None)
    assert watch.verdict(time.monotonic()).state == "healthy"
    nvml.hangs.clear()
    asked = time.monotonic()
    later = asked + 10.0
    assert watch.reading(later) is None
    verdict = watch.verdict(later)
    assert verdict.state == "unknown"
    assert "NVML does not answer" in str(verdict.reason)
    assert time.monotonic() - asked < 0.5
    nvml.hangs.set()
    until(lambda: watch.verdict(time.monotonic()).state == "healthy")


def test_a_driver_without_the_device_is_unknown(nvml: Any, watched: Callable[[], DeviceWatch]) -> None:
    nvml.known = set()
    watch = watched()
    until(lambda: "Not Found" in str(watch.verdict(time.monotonic()).reason))
    assert watch.verdict(time.monotonic()).state == "unknown"


def test_an_xid_is_heard_at_once(nvml: Any, watched: Callable[[], DeviceWatch]) -> None:
    watch = watched()
    until(lambda: nvml.registered)
    nvml.tell(79)
    until(lambda: watch.verdict(time.monotonic()).state == "failed", 2.0)
    assert watch.xids == [79]


def test_a_lost_gpu_is_failed(nvml: Any, watched: Callable[[], DeviceWatch]) -> None:
    watch = watched()
    until(lambda: watch.reading(time.monotonic()) is not None)
    nvml.lost = True
    until(lambda: watch.verdict(time.monotonic()).state == "failed", 2.0)


def test_what_some_processes_hold_on_all_gpus(nvml: Any) -> None:
    assert process_memory(nvml, {4242}) == 6 * GIB
    nvml.processes = [(4242, None, b"x")]
    assert process_memory(nvml, {4242}) is None
    nvml.lost = True
    assert process_memory(nvml, {4242}) is None
