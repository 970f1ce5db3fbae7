"""From what was seen of a host to what the doctor says of it. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, unknown, worst_first
from fleet_controller.hosts.doctor.subjects import (
    clock,
    device,
    disk,
    driver,
    memory,
    network,
    python,
    reach,
    rights,
    standing,
    strangers,
    system,
    torch,
    xid,
)

Judge = Callable[[Chart], Iterator[Finding]]

ALWAYS: tuple[Judge, ...] = (reach.judge, standing.judge)
WITH_FACTS: tuple[Judge, ...] = (
    rights.judge,
    system.judge,
    python.judge,
    disk.judge,
    memory.judge,
    network.judge,
    clock.judge,
    driver.judge,
    device.judge,
    strangers.judge,
    xid.judge,
    torch.judge,
)


def diagnose(chart: Chart) -> list[Finding]:
    """All that there is to say of one host, the worst first."""
    found = [finding for judge in ALWAYS for finding in judge(chart)]
    failure = chart.failure
    if failure is None:
        found += [finding for judge in WITH_FACTS for finding in judge(chart)]
    elif not failure.unreachable:
        # It is reached, and can't be looked at: most often for want of Python.
        if failure.kind == "python":
            found += python.judge(chart)
        else:
            why = "the same would stop a start"
            found.append(problem(failure.kind, failure.cause, why, failure.next_step))
        found.append(
            unknown("examination", "nothing else could be looked at, for the host could not be asked")
        )
    return worst_first(replace(finding, fix=finding.fix.replace("{host}", chart.name)) for finding in found)
