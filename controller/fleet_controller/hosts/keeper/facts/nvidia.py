"""Facts: NVIDIA devices, their driver, what nvidia-smi says, who holds their memory, what the kernel wrote of them."""

from __future__ import annotations

import os
import pwd
import re
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.facts.programs import call, found, text
from fleet_controller.hosts.keeper.files import read
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import process
from fleet_controller.hosts.keeper.speech import Trouble

VENDOR = "0x10de"
LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
SMI_S = 20.0
# Of the kernel's log, in which Xids may lie far back.
LOG = 8 << 20

# `nvidia-smi --help-query-gpu`. clocks_throttle_reasons became clocks_event_reasons with driver 535, which takes both
# names; a driver that does not know a field says so, and is asked again without it.
FIELDS = (
    "index",
    "name",
    "uuid",
    "pci.bus_id",
    "driver_version",
    "persistence_mode",
    "memory.total",
    "memory.used",
    "temperature.gpu",
    "ecc.mode.current",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total",
    "retired_pages.pending",
    "clocks_throttle_reasons.hw_thermal_slowdown",
    "clocks_throttle_reasons.sw_thermal_slowdown",
    "clocks_throttle_reasons.hw_power_brake_slowdown",
    "clocks_throttle_reasons.sw_power_cap",
    "mig.mode.current",
)
ROWS = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure", "remapped_rows.uncorrectable")
APPS = ("gpu_uuid", "pid", "used_memory", "process_name")
RENAMED = ("clocks_throttle_reasons.", "clocks_event_reasons.")


def driver() -> dict[str, Any]:
    """What is plugged in, which kernel module has it, which libraries are there."""
    devices = []
    folder = "/sys/bus/pci/devices"
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        # 0x03....: a display or 3D controller; the card's sound device and bridges are not meant
        if read(path + "/vendor").strip() == VENDOR and read(path + "/class").startswith("0x03"):
            bound = os.path.join(path, "driver")
            by = os.path.basename(os.path.realpath(bound)) if os.path.exists(bound) else ""
            devices.append({"bus": name, "driver": by})
    modules = [line.split()[0] for line in read("/proc/modules", 1 << 22).splitlines() if line]
    nodes = [n for n in os.listdir("/dev") if re.match(r"nvidia\d+$", n)]
    version = re.search(r"Kernel Module[^\n]*?\s(\d+\.[\d.]+)", read("/proc/driver/nvidia/version"))
    return {
        "devices": devices,
        "nouveau": "nouveau" in modules,
        "module": "nvidia" in modules or os.path.isdir("/sys/module/nvidia"),
        "kernel_version": version.group(1) if version else read("/sys/module/nvidia/version").strip(),
        "library_version": library(),
        "nodes": len(nodes),
        "denied": [n for n in nodes if not os.access("/dev/" + n, os.R_OK | os.W_OK)],
        "smi": found("nvidia-smi") or "",
    }


def library() -> str:
    """The version of the NVML library that programs load, from the name of the file; "" where there is none."""
    for folder in LIBRARIES:
        real = os.path.realpath(os.path.join(folder, "libnvidia-ml.so.1"))
        version = re.search(r"\.so\.(\d+\.[\d.]+)$", real)
        if version and os.path.exists(real):
            return version.group(1)
    return ""


def has_device(facts: dict[str, Any]) -> bool:
    return bool(facts["devices"] or facts["nodes"] or facts["smi"])


def gpus() -> dict[str, Any]:
    return query("--query-gpu", list(FIELDS))


def rows() -> dict[str, Any]:
    return query("--query-remapped-rows", list(ROWS))


def query(what: str, fields: list[str]) -> dict[str, Any]:
    """nvidia-smi's table, without the fields that this version does not know. `fields`: what its columns are."""
    for _ in range(8):
        answer = call(
            ["nvidia-smi", "{}={}".format(what, ",".join(fields)), "--format=csv,noheader,nounits"], SMI_S
        )
        answer["fields"] = fields
        said = "{} {}".format(answer.get("out", ""), answer.get("err", ""))
        unknown = re.search(r'Field "([^"]*)" is not a valid field to query', said)
        if not unknown or unknown.group(1) not in fields:
            return answer
        name = unknown.group(1)
        if name.startswith(RENAMED[0]):
            fields = [field.replace(*RENAMED) for field in fields]
        else:
            fields = [field for field in fields if field != name]
    return answer


def apps(place: Place) -> dict[str, Any]:
    """Who computes on the devices: nvidia-smi's list, and of each process whose it is and what it is called."""
    answer = query("--query-compute-apps", list(APPS))
    own = {one.pid for one in place.processes()}
    who = {}
    for line in str(answer.get("out", "")).splitlines()[:200]:
        words = [word.strip() for word in line.split(",")]
        if len(words) > 1 and words[1].isdigit():
            pid = int(words[1])
            who[words[1]] = {"user": owner(pid), "command": command(pid), "ours": pid in own}
    answer["who"] = who
    return answer


def owner(pid: int) -> str:
    try:
        number = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def command(pid: int) -> str:
    one = process(pid)
    return one.command()[:200] if one is not None else ""


def kernel_log(args: dict[str, Any]) -> dict[str, Any]:
    """What the kernel's log has of Xids since the machine was started: by dmesg, as root where we may be."""
    said = call(["dmesg"], 10, LOG)
    if said.get("status") != 0 and not said.get("missing"):
        try:
            done = elevation_of(args).run(["dmesg"], 10)
            said = {"status": done.returncode, "out": text(done.stdout, LOG), "err": text(done.stderr)}
        except Trouble:
            pass
    if said.get("status") != 0:
        said = call(
            ["journalctl", "-k", "-b", "-q", "--no-pager", "-n", "5000", "-o", "short-monotonic"], 10, LOG
        )
        if said.get("status") != 0 or not said.get("out", "").strip():
            return {"denied": True}
    lines = [line for line in said["out"].splitlines() if "NVRM: Xid" in line]
    return {"lines": lines[-50:], "uptime_s": float((read("/proc/uptime") or "0").split()[0])}
