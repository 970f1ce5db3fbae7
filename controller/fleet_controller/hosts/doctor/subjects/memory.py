"""RAM, and /dev/shm, through which an agent's front passes tensors to its worker. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, unknown, warning, well
from fleet_controller.hosts.doctor.subjects.disk import gib

RAM = 2 << 30
# Docker's and podman's default is 64 MiB.
SHM = 128 << 20
SHM_WANTED = 1 << 30


def judge(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("memory")
    if fact.missing:
        yield unknown("memory", f"its memory is unknown: {fact.missing}")
        yield unknown("shm", f"the size of /dev/shm is unknown: {fact.missing}")
        return
    total, available, limit = fact.number("total"), fact.number("available"), fact.number("limit")
    most = min(size for size in (total, limit, float("inf")) if size is not None)
    if total is None:
        yield unknown("memory", "how much RAM it has is unknown")
    elif most < RAM:
        what = f"{gib(most)} of RAM" + (" (a limit of its container)" if limit is not None else "")
        yield warning(
            "memory", what, "importing torch alone takes about 1 GiB", "Give the machine more memory"
        )
    else:
        free = f", {gib(available)} available" if available is not None else ""
        yield well("memory", f"{gib(most)} of RAM{free}")
    yield from _shared(fact.number("shm_total"), fact.number("shm_free"), fact.yes("shm_writable"))


def _shared(total: float | None, free: float | None, writable: bool) -> Iterator[Finding]:
    why = "the agent hands tensors to its worker through it: requests fail once it is full"
    fix = "on the host: sudo mount -o remount,size=4g /dev/shm (in a container: --shm-size=4g)"
    if total is None:
        yield problem(
            "shm", "there is no /dev/shm", why, "on the host: sudo mount -t tmpfs -o size=4g tmpfs /dev/shm"
        )
    elif not writable:
        yield problem(
            "shm", "this user may not write to /dev/shm", why, "on the host: sudo chmod 1777 /dev/shm"
        )
    elif total < SHM:
        yield problem("shm", f"/dev/shm has {gib(total)}, as containers have by default", why, fix)
    elif total < SHM_WANTED:
        yield warning("shm", f"/dev/shm has {gib(total)}", why, fix)
    elif free is not None and free < SHM:
        yield problem(
            "shm", f"/dev/shm is full: {gib(free)} of {gib(total)} free", why, "on the host: ls -lS /dev/shm"
        )
    else:
        yield well("shm", f"/dev/shm has {gib(total)}")
