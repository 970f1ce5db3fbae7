"""A program that answers as nvidia-smi does: what real ones print for the queries that we make, well and ill.

The forms are those of drivers 470 to 590: CSV without header and units, exit codes, sentences.
"""

from __future__ import annotations

import shlex

UUID = "GPU-6e0b1f5c-8d2a-4f0e-9a77-1f0c3b2d4e5f"
OTHER = "GPU-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
# In the order of keeper/facts/nvidia.py: index .. mig.mode.current.
GPU = (
    "{index}, NVIDIA H100 80GB HBM3, {uuid}, 00000000:3B:00.0, 550.54.14, {persistence}, 81559, {used}, {heat},"
    " Enabled, {errors}, {ever}, {retired}, {hw_thermal}, Not Active, Not Active, {power_cap}, Disabled"
)
WELL = {
    "index": "0",
    "uuid": UUID,
    "persistence": "Enabled",
    "used": "4",
    "heat": "31",
    "errors": "0",
    "ever": "0",
    "retired": "[N/A]",
    "hw_thermal": "Not Active",
    "power_cap": "Not Active",
}
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA"
    " driver is installed and running.\n\n"
)
LOST = (
    "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost."
    "  Reboot the system to recover this GPU\n"
)
XID_79 = "[   12.345678] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
XID_13 = "[  100.000001] NVRM: Xid (PCI:0000:3b:00): 13, pid=4242, name=python3, Graphics SM Warp Exception\n"


def gpu(**changes: str) -> str:
    """One line of --query-gpu."""
    return GPU.format(**{**WELL, **changes}) + "\n"


def rows(pending: str = "No", failure: str = "No", uncorrectable: str = "0", uuid: str = UUID) -> str:
    """One line of --query-remapped-rows."""
    return f"{uuid}, {pending}, {failure}, {uncorrectable}\n"


def program(gpus: str = "", remapped: str = "", apps: str = "") -> str:
    """nvidia-smi that says this. It keeps persistence mode in a file beside itself."""
    return f"""#!/bin/sh
case "$1" in
  --query-gpu=*) printf %s {shlex.quote(gpus or gpu())} ;;
  --query-remapped-rows=*) printf %s {shlex.quote(remapped or rows())} ;;
  --query-compute-apps=*) printf %s {shlex.quote(apps)} ;;
  *) echo "Invalid combination of input arguments."; exit 2 ;;
esac
"""


def failing(said: str, status: int) -> str:
    return f"#!/bin/sh\nprintf %s {shlex.quote(said)}\nexit {status}\n"


HANGING = "#!/bin/sh\ntrap '' TERM INT\nsleep 600\n"
