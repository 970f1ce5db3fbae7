"""Room on this host's GPUs: for an agent that starts, and free again once it is gone."""

from __future__ import annotations

import glob
import json
import os
import time
from typing import Any

from fleet_controller.hosts.keeper.culprit import described, user, uses_our_files
from fleet_controller.hosts.keeper.devices import MIB, Devices, Gpu, Holder, from_json, look, make_nodes, told
from fleet_controller.hosts.keeper.files import read_json, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, boot_id, process
from fleet_controller.hosts.keeper.speech import Trouble

# What a driver may keep of its own between two moments without anybody using the GPU.
TOLERANCE = 256 * MIB
# Drivers give memory back a moment after the process is gone.
WAIT_S = 10.0


def look_before_start(place: Place, config: dict[str, Any]) -> list[str]:
    """Note down what is held before the agent starts. Returns what an operator should know.

    Raises Trouble("device") where strangers leave too little room for the models, or nvidia-smi hangs.
    """
    if config["device"] == "cpu":
        devices, why = None, "the agent runs on the CPU"
    else:
        make_nodes()
        devices, why = look()
    now = process(os.getpid())
    noted = {
        "boot_id": boot_id(),
        "ticks": now.ticks if now is not None else 0,
        "devices": None if devices is None else devices.as_json(),
    }
    write(_noted(place), json.dumps(noted))
    if devices is None:
        return [f"device memory is not watched: {why}"] if _has_gpu(config["device"]) else []
    gpu = _meant(config["device"], devices)
    strangers = devices.on(gpu) if gpu is not None else []
    if gpu is None or not strangers:
        return []
    names = "; ".join(_named(one) for one in strangers[:5])
    wanted = [model["device_memory_bytes"] for model in config["models"]]
    if gpu.used is not None and gpu.total is not None and None not in wanted:
        free = gpu.total - gpu.used
        if sum(wanted) > free:
            raise Trouble(
                "device",
                f"GPU {gpu.index} has {told(free)} free of {told(gpu.total)} and the models need"
                f" {told(sum(wanted))}; held by {names}",
                "End that process, move it to another machine, or take this host out of the pool;"
                " fleetctl ends no process that it did not start",
            )
    return [f"GPU {gpu.index} is shared with strangers: {names}"]


def prove_free(place: Place, own: list[Process], device: str) -> list[str]:
    """Wait until nothing of ours holds device memory, and it is back to what it was before the start.

    `own`: all processes that were the agent's. Returns who else holds some. Raises Trouble("device") with the culprit.
    """
    noted = read_json(_noted(place)) or {}
    if noted.get("boot_id") != boot_id():
        noted = {}  # from before a reboot, which frees everything
    if device == "cpu":
        return []
    before = from_json(noted["devices"]) if noted.get("devices") else None
    until = time.monotonic() + WAIT_S
    while True:
        now, why = look()
        if now is None:
            if before is not None:
                raise Trouble("device", f"whether the GPUs are free can't be seen: {why}", _REBOOT)
            return [f"that device memory is free again was not checked: {why}"] if _has_gpu(device) else []
        guilty = {(one.pid, one.uuid): one for one in now.holders if _ours(one, own, before, noted, place)}
        strangers = [one for one in now.holders if (one.pid, one.uuid) not in guilty]
        extra = excess(before, now, strangers)
        if not guilty and not extra:
            return [
                f"a stranger holds memory of a GPU, and is left alone: {_named(one)}" for one in strangers
            ]
        if time.monotonic() >= until:
            raise _held(list(guilty.values()), extra)
        time.sleep(0.2)


def excess(before: Devices | None, now: Devices, strangers: list[Holder]) -> list[tuple[Gpu, int]]:
    """GPUs that hold more than before the start, with how much more; what strangers took since then is not counted."""
    if before is None:
        return []
    was = {gpu.uuid: gpu for gpu in before.gpus}
    found = []
    for gpu in now.gpus:
        old = was.get(gpu.uuid)
        theirs = [one.used for one in strangers if one.uuid == gpu.uuid]
        if old is None or old.used is None or gpu.used is None or None in theirs:
            continue
        once = sum(one.used or 0 for one in before.on(old))
        more = gpu.used - old.used - max(0, sum(one or 0 for one in theirs) - once)
        if more > TOLERANCE:
            found.append((gpu, more))
    return found


_REBOOT = "See `dmesg | grep -i xid` on the host; a reboot or a power cycle frees a GPU for certain"


def _ours(
    one: Holder, own: list[Process], before: Devices | None, noted: dict[str, Any], place: Place
) -> bool:
    """A process of the agent, or one that must be: an orphan of our user, born since the start, or with our files."""
    if any(other.pid == one.pid for other in own):
        return True
    if before is not None and any(old.pid == one.pid for old in before.holders):
        return False
    there = process(one.pid)
    if there is None:
        return False
    if uses_our_files(there, place):
        return True
    try:
        same_user = os.stat(f"/proc/{one.pid}").st_uid == os.geteuid()
    except OSError:
        return False
    return same_user and there.parent == 1 and there.ticks >= int(noted.get("ticks") or 1 << 62)


def _held(guilty: list[Holder], extra: list[tuple[Gpu, int]]) -> Trouble:
    if guilty:
        names = "; ".join(_named(one) for one in guilty[:5])
        return Trouble(
            "device",
            f"the agent is gone, but device memory is still held by {names}, which looks like a child of the agent"
            " that hid itself",
            "End that process on the host; where it does not end, reboot or power-cycle the host",
        )
    gpu, more = extra[0]
    users = _who_has_devices_open()
    return Trouble(
        "device",
        f"the agent is gone, but GPU {gpu.index} holds {told(more)} more than before it started, and nvidia-smi names"
        " no process for it" + (f"; these have a GPU open: {users}" if users else ""),
        _REBOOT,
    )


def _who_has_devices_open() -> str:
    found = []
    for name in os.listdir("/proc"):
        one = process(int(name)) if name.isdigit() else None
        if one is not None:
            text = described(one)
            if "/dev/nvidia" in text:
                found.append(text)
    return "; ".join(found[:5])


def _named(one: Holder) -> str:
    there = process(one.pid)
    if there is None:
        return f"pid {one.pid}, which is gone or can't be seen from here ({told(one.used)})"
    return f"pid {one.pid} ({there.command()[:200]}) of {user(one.pid)}, {told(one.used)}"


def _meant(device: str, devices: Devices) -> Gpu | None:
    """The GPU that the agent will use: torch takes the first one where none is named."""
    index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0
    return next((gpu for gpu in devices.gpus if gpu.index == index), None) if device != "mps" else None


def _has_gpu(device: str) -> bool:
    return device.startswith("cuda") or bool(glob.glob("/dev/nvidia[0-9]*"))


def _noted(place: Place) -> str:
    return os.path.join(place.run, "devices.json")
