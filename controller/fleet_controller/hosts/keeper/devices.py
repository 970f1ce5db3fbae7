"""What nvidia-smi says of this host's GPUs: memory in use, and which process holds how much.

It runs as a process of its own with a time limit: a driver that hangs must not take the keeper with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from fleet_controller.hosts.keeper.elevation import PATH
from fleet_controller.hosts.keeper.speech import Trouble

SECONDS = 20.0
MIB = 1024 * 1024


class Holder:
    """A process that holds memory of the GPU `uuid`; `used` in bytes, None: not told."""

    def __init__(self, pid: int, uuid: str, used: int | None) -> None:
        self.pid = pid
        self.uuid = uuid
        self.used = used


class Gpu:
    """`used` and `total` in bytes, None: not told (as of a GPU that is cut into MIG instances)."""

    def __init__(self, index: int, uuid: str, used: int | None, total: int | None) -> None:
        self.index = index
        self.uuid = uuid
        self.used = used
        self.total = total


class Devices:
    """All GPUs at one time."""

    def __init__(self, gpus: list[Gpu], holders: list[Holder]) -> None:
        self.gpus = gpus
        self.holders = holders

    def on(self, gpu: Gpu) -> list[Holder]:
        return [one for one in self.holders if one.uuid == gpu.uuid]

    def as_json(self) -> dict[str, Any]:
        return {
            "gpus": [[one.index, one.uuid, one.used, one.total] for one in self.gpus],
            "holders": [[one.pid, one.uuid, one.used] for one in self.holders],
        }


def from_json(value: dict[str, Any]) -> Devices:
    return Devices([Gpu(*one) for one in value["gpus"]], [Holder(*one) for one in value["holders"]])


def look() -> tuple[Devices | None, str]:
    """The devices, or None and why there is nothing to see. Raises Trouble("device") where nvidia-smi hangs."""
    program = shutil.which("nvidia-smi", path=os.environ.get("PATH", "") + ":" + PATH)
    if program is None:
        return None, "there is no nvidia-smi here"
    status, text = asked(
        [program, "--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits"]
    )
    if status:
        return None, "nvidia-smi does not work: " + " ".join(text.split())[-200:]
    gpus = []
    for words in rows(text):
        if len(words) == 4 and words[0].isdigit():
            gpus.append(Gpu(int(words[0]), words[1], size(words[2]), size(words[3])))
    if not gpus:
        return None, "nvidia-smi finds no GPU"
    status, text = asked(
        [program, "--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader,nounits"]
    )
    if status:
        return None, "nvidia-smi does not tell who uses the GPUs: " + " ".join(text.split())[-200:]
    holders = [Holder(int(w[0]), w[1], size(w[2])) for w in rows(text) if len(w) == 3 and w[0].isdigit()]
    return Devices(gpus, holders), ""


def make_nodes() -> None:
    """Have the GPUs' device files made, as libcuda would on first use: an agent that may gain no privileges cannot."""
    program = shutil.which("nvidia-modprobe", path=os.environ.get("PATH", "") + ":" + PATH)
    if program is not None:
        asked([program, "-c", "0", "-u"])


def asked(argv: list[str]) -> tuple[int, str]:
    # Not subprocess.run: it waits for ever for a killed process that hangs in the driver.
    work = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        out, _ = work.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        work.kill()
        raise Trouble(
            "device",
            f"{os.path.basename(argv[0])} did not answer within {SECONDS:.0f} s: the GPU's driver hangs",
            "See `dmesg | grep -i xid` on the host; most often only a reboot or a power cycle helps",
        ) from None
    return work.returncode, out.decode("utf-8", "replace")


def rows(text: str) -> list[list[str]]:
    return [[word.strip() for word in line.split(",")] for line in text.splitlines() if line.strip()]


def size(word: str) -> int | None:
    """MiB as nvidia-smi writes them, "[N/A]" for one."""
    return int(word) * MIB if word.isdigit() else None


def told(amount: int | None) -> str:
    return "an unknown amount" if amount is None else f"{amount / (1024 * MIB):.1f} GiB"
