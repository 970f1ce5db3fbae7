"""Xids, the driver's numbers for errors of a GPU, in the kernel's log since the machine was started. PURE.

Numbers: NVIDIA "Xid Catalog" (docs.nvidia.com/deploy/xid-errors). The agent watches them as well while it runs; this is
for those from before it did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.facts import items, text
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well
from fleet_controller.hosts.doctor.subjects import driver

# [ 1234.567890] NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.
LINE = re.compile(
    r"\[\s*(\d{1,9}(?:\.\d{1,6})?)\].{0,80}?NVRM: Xid \(([^)]{1,40})\): (\d{1,4})\b(.{0,200})", re.ASCII
)
# A program's own doing: no fault of the GPU.
PROGRAMS = frozenset({8, 11, 13, 31, 32, 43, 45, 68, 69, 109})
# Acted on at the next occasion.
LATER = frozenset({63, 92, 94, 154, 156})
NAMES = {
    46: "it stopped and does not recover",
    48: "a double-bit memory error",
    62: "its micro-controller halted",
    63: "a bad memory row is to be remapped",
    64: "a bad memory row could not be remapped",
    74: "an error of NVLink",
    79: "it has fallen off the bus",
    92: "many single-bit memory errors",
    94: "a memory error that was contained",
    95: "a memory error that was not contained",
    119: "its system processor does not answer",
    120: "an error of its system processor",
    140: "a memory error that was not recovered",
}
OFF_AND_ON = frozenset({79})
DAY_S = 86400.0


def judge(chart: Chart) -> Iterator[Finding]:
    there = chart.facts.of("driver")
    if not there.missing and not driver.present(there):
        return
    fact = chart.facts.of("kernel_log")
    if fact.missing or fact.yes("denied"):
        why = fact.missing or "this user may not read the kernel's log"
        yield unknown(
            "xid", f"past errors of the GPU are unknown: {why}", "on the host: sudo dmesg | grep Xid"
        )
        return
    uptime = fact.number("uptime_s") or 0.0
    seen: dict[tuple[str, int], tuple[int, float, str]] = {}
    for line in items(fact.value.get("lines"))[-200:]:
        match = LINE.search(text(line))
        if match:
            at, device, code = float(match[1]), match[2], int(match[3])
            count, last, words = seen.get((device, code), (0, 0.0, ""))
            seen[device, code] = (count + 1, max(last, at), match[4].strip(" ,") or words)
    if not seen:
        yield well("xid", "the kernel's log has no error of a GPU since the machine was started")
    for (device, code), (count, last, words) in sorted(seen.items()):
        yield _told(device, code, count, max(0.0, uptime - last), words)


def _told(device: str, code: int, count: int, ago: float, words: str) -> Finding:
    times = f"{count} times, last " if count > 1 else ""
    when = f"{times}{ago / 3600:.1f} h ago"
    name = NAMES.get(code) or words or "see NVIDIA's catalogue of Xids"
    what = f"Xid {code} of {device}, {when}: {name}"
    if code in PROGRAMS:
        return skipped("xid", f"{what} (a program's doing, not the GPU's)")
    if code in OFF_AND_ON:
        fix = "Switch the host off and on; if it comes back, reseat or replace the GPU"
        return problem("xid", what, "what ran there is dead, and the GPU computes nothing", fix)
    reset = "fleetctl drain {host}; then on the host: sudo nvidia-smi --gpu-reset (or reboot it)"
    if code in LATER or code not in NAMES or ago > DAY_S:
        return warning("xid", what, "a GPU that does so again is about to fail", reset)
    return problem("xid", what, "it computes nothing, or what it computes can't be trusted", reset)
