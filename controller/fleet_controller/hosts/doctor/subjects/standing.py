"""Power control, and what the journal has of the host. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well
from fleet_controller.lifecycle import HostState, Quarantine


def judge(chart: Chart) -> Iterator[Finding]:
    yield from _power(chart)
    yield from _journal(chart)


def _power(chart: Chart) -> Iterator[Finding]:
    driver, power = chart.spec.power.driver, chart.power
    if power.state == "uncontrolled":
        yield skipped("power", "no power control (power.driver: none)")
    elif power.state == "unknown" and driver == "wol":
        yield unknown("power", power.reason)
    elif power.state == "unknown":
        yield problem(
            "power",
            f"its power control ({driver}) does not say whether it is on: {power.reason}",
            "it can be switched neither on nor off while that is so",
            "Mend what it says; fleetctl doctor --host " + chart.name + " asks again",
        )
    elif power.state == "off" and chart.reached:
        yield problem(
            "power",
            f"its power control ({driver}) says that it is off, but it answers over SSH",
            "the control may belong to another machine, which would be switched instead",
            "Compare power with the machine (its address, BMC, domain)",
        )
    else:
        yield well("power", f"{driver} answers: it is {power.state}")


def _journal(chart: Chart) -> Iterator[Finding]:
    record = chart.record
    if record is None or record.state is not HostState.FAILED:
        if record is not None and record.cordoned:
            fix = f"fleetctl uncordon {chart.name}"
            yield warning("journal", "an operator took it out (drained)", "it is not started until", fix)
        return
    why = record.error or record.reason or "no reason was noted down"
    if record.quarantine is not None:
        held = record.quarantine is Quarantine.UNPROVEN
        yield problem(
            "journal",
            why if held else f"quarantined after {record.failures} failures in a row: {why}",
            "it is tried again only rarely",
            "Mend it, then `fleetctl up` tries it at once",
        )
    else:
        yield warning(
            "journal", f"it failed: {why}", "it is tried again by itself", "fleetctl up tries it at once"
        )
