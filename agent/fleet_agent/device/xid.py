"""What an Xid, the driver's number for a GPU error, says about the GPU. PURE.

Source: NVIDIA "Xid Catalog" (docs.nvidia.com/deploy/xid-errors), its column "resolution bucket, immediate action";
NVIDIA's Kubernetes device plugin for those that are an application's doing (13, 31, 43, 45, 68, 109). Numbers that are
not listed here change nothing by themselves: what the driver wants done about them is in its recovery action, which
health.py reads as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# failed: this GPU computes nothing until somebody has acted. contained: one process lost its memory, the GPU is well
# until it happens again. noted: to be acted on some time. application: a program's fault.
Severity = Literal["failed", "contained", "noted", "application"]

RESET = "reset the GPU (nvidia-smi --gpu-reset) or reboot the host; if it comes back, replace the GPU"
REBOOT = "switch the host off and on; if it comes back, reseat or replace the GPU"
LINK = (
    "check NVLink (nvidia-smi nvlink -e) and reset the GPUs; if it comes back, replace the GPU or the bridge"
)
WINDOW = "reset the GPU at the next occasion (nvidia-smi --gpu-reset)"
NOTHING = "nothing has to be done to the GPU"


@dataclass(frozen=True, slots=True)
class Xid:
    """`name`: what happened; `remedy`: what the operator does."""

    name: str
    severity: Severity
    remedy: str


CATALOG = {
    8: Xid("GPU stopped processing", "application", NOTHING),
    11: Xid("invalid or corrupted push buffer stream", "application", NOTHING),
    13: Xid("graphics engine exception", "application", NOTHING),
    31: Xid("GPU memory page fault", "application", NOTHING),
    32: Xid("invalid or corrupted push buffer stream", "application", NOTHING),
    43: Xid("GPU stopped processing", "application", NOTHING),
    45: Xid("preemptive cleanup", "application", NOTHING),
    46: Xid("GPU stopped processing and does not recover", "failed", RESET),
    48: Xid("double-bit ECC error", "failed", RESET),
    62: Xid("internal micro-controller halt", "failed", RESET),
    63: Xid("a bad memory row is recorded for remapping", "noted", WINDOW),
    64: Xid("a bad memory row could not be remapped", "failed", RESET),
    68: Xid("video processor exception", "application", NOTHING),
    69: Xid("graphics engine class error", "application", NOTHING),
    74: Xid("NVLink error", "failed", LINK),
    79: Xid("GPU has fallen off the bus", "failed", REBOOT),
    92: Xid("high rate of single-bit ECC errors", "noted", WINDOW),
    94: Xid("contained ECC error", "contained", WINDOW),
    95: Xid("uncontained ECC error", "failed", RESET),
    109: Xid("context switch timeout", "application", NOTHING),
    110: Xid("security fault", "failed", RESET),
    119: Xid("timeout of a call to the GPU's system processor", "failed", RESET),
    120: Xid("error of the GPU's system processor", "failed", RESET),
    136: Xid("a link could not be trained", "failed", LINK),
    140: Xid("unrecovered ECC error", "failed", RESET),
    143: Xid("GPU initialization error", "failed", RESET),
    155: Xid("NVLink: software-defined error", "failed", LINK),
    156: Xid("resource retirement event", "noted", WINDOW),
    158: Xid("GPU fatal timeout", "failed", RESET),
}


def described(code: int) -> Xid:
    """The entry of the catalogue, or one that says that there is none."""
    return CATALOG.get(code) or Xid("not in the list of known ones", "noted", "see NVIDIA's Xid catalogue")
