"""The doctor's rounds: this machine and every host, all at once, so that one that is silent delays no other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleet_controller.hosts.doctor import desk, here, mending
from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.diagnosis import diagnose
from fleet_controller.hosts.doctor.finding import worst_first
from fleet_controller.hosts.doctor.report import HostReport, Mend, Report
from fleet_controller.hosts.doctor.twins import twins
from fleet_controller.hosts.doctor.visit import visit
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.machines import Machines
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec

# A silent host costs its thread the whole connect_timeout; so that it costs nobody else's time there are many.
AT_ONCE = 64


@dataclass(frozen=True)
class Rounds:
    """`records` is what the journal has of the hosts, `journal_trouble` why it has nothing, "" where it was read.
    `balancer_runs`: ours has its ports."""

    spec: FleetSpec
    machines: Machines
    state: Path
    records: Mapping[str, HostRecord] = field(default_factory=dict)
    journal_trouble: str = ""
    balancer_runs: bool = False

    def examine(self, names: Sequence[str]) -> Report:
        """Look at this machine and those hosts. Raises no HostFailure: what went wrong is in the report."""
        at, began = time.time(), time.monotonic()
        with ThreadPoolExecutor(min(AT_ONCE, len(names)) + 1, thread_name_prefix="doctor") as pool:
            seen_here = pool.submit(desk.look, self.spec, names, self.state, self.balancer_runs)
            visits = [pool.submit(self._visit, name, at) for name in names]
            charts = [visit.result() for visit in visits]
            surroundings = replace(seen_here.result(), journal_trouble=self.journal_trouble)
        among = twins(chart for chart, _ in charts)
        hosts = tuple(
            HostReport(
                chart.name,
                chart.spec.address,
                chart.reached,
                seconds,
                tuple(worst_first([*diagnose(chart), *among.get(chart.name, ())])),
                off=not chart.reached and chart.power.state == "off",
            )
            for chart, seconds in charts
        )
        found = tuple(here.judge(surroundings, [chart for chart, _ in charts]))
        return Report(at, time.monotonic() - began, found, hosts)

    def _visit(self, name: str, at: float) -> tuple[Chart, float]:
        began = time.monotonic()
        try:
            chart = visit(self.machines.machine(name), self.records.get(name), at)
        except (
            Exception
        ) as error:  # the boundary of one host: an answer that makes no sense hides none of the others
            what = f"it answers what makes no sense ({type(error).__name__}: {brief(str(error), 200)})"
            next_step = "Log in with ssh and look at it; FLEETCTL_DEBUG=1 shows more"
            chart = Chart(self.spec.host(name), HostFailure(name, "output", what, next_step))
        return chart, time.monotonic() - began

    def mend(self, mend: Mend) -> str:
        """Do it, and say what was done. Raises HostFailure, or OSError."""
        return mending.do(mend, self.spec, self.machines, self.state)
