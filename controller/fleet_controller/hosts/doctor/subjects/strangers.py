"""Device memory held by processes that are not ours. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.facts import Fact, mapping
from fleet_controller.hosts.doctor.finding import Finding, problem, unknown, warning, well
from fleet_controller.hosts.doctor.subjects import driver, smi

MIB = 1 << 20
# Driver and X server hold this much; a process with less computes nothing.
LITTLE_MIB = 64
WHY = "a model that fits this device may not get the memory that it needs, and shares its time"


def judge(chart: Chart) -> Iterator[Finding]:
    there = chart.facts.of("driver")
    if not there.missing and not driver.present(there):
        return
    fact = chart.facts.of("apps")
    said = smi.complaint(fact)
    if said:
        yield unknown("strangers", f"who holds device memory is unknown: {said}")
        return
    strangers = [one for row in smi.table(fact) if (one := _stranger(fact, row)) is not None]
    if strangers:
        pids = " ".join(pid for pid, _, _ in strangers)
        what = "; ".join(told for _, told, _ in strangers)
        much = any(mib is None or mib >= LITTLE_MIB for _, _, mib in strangers)
        fix = f"on the host: ps -fp {pids.replace(' ', ',')}; end what should not run (sudo kill {pids})"
        yield (problem if much else warning)("strangers", f"device memory is held by {what}", WHY, fix)
        return
    used = _unexplained(chart, fact)
    if used:
        why = "a process that was killed while the GPU was busy leaves it behind; one in a container is not listed"
        fix = "on the host: sudo fuser -v /dev/nvidia*; reset the GPU or reboot where nobody is there"
        yield warning("strangers", used, why, fix)
    else:
        yield well("strangers", "no stranger holds device memory")


def _stranger(fact: Fact, row: smi.Row) -> tuple[str, str, float | None] | None:
    """(pid, words, MiB); None for a process of ours, or none at all."""
    pid = row.text("pid")
    if not (pid.isascii() and pid.isdigit()):
        return None
    who = Fact(mapping(mapping(fact.value.get("who")).get(pid)))
    if who.yes("ours"):
        return None
    mib = row.number("used_memory")
    name = who.text("command") or row.text("process_name") or "a process that is not seen from here"
    user = f" of {who.text('user')}" if who.text("user") else ""
    size = f" ({mib:.0f} MiB)" if mib is not None else ""
    return pid, f"pid {pid}{user}: {name[:120]}{size}", mib


def _unexplained(chart: Chart, apps: Fact) -> str:
    """Memory in use on a device on which nobody computes."""
    busy = {row.text("gpu_uuid") for row in smi.table(apps)}
    for row in smi.table(chart.facts.of("gpus")):
        used, total = row.number("memory.used"), row.number("memory.total")
        idle = row.text("uuid") not in busy and row.yes("mig.mode.current") is not True
        if idle and used is not None and total and used > max(1024, total / 20):
            return f"GPU {row.text('index') or '?'} has {used:.0f} MiB in use, and no process that holds it is seen"
    return ""
