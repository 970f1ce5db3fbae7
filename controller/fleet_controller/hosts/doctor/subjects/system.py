"""The system: its kind, its limits for processes, and whether services of ours outlive a login. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, unknown, warning, well

# What torch is built for.
ARCHITECTURES = ("x86_64", "aarch64")
# An agent holds a descriptor a connection; balancer and clients keep theirs open.
FILES = 4096


def judge(chart: Chart) -> Iterator[Finding]:
    yield from _kind(chart)
    yield from _files(chart)
    yield from _services(chart)


def _kind(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("system")
    if fact.missing:
        yield unknown("os", f"what system it has is unknown: {fact.missing}")
        return
    name, kernel, arch = fact.text("os") or "an unnamed system", fact.text("kernel"), fact.text("arch")
    if fact.text("system") not in ("", "Linux"):
        yield problem(
            "os", f"it runs {fact.text('system')}", "agents run on Linux only", "Use a Linux machine"
        )
    elif arch not in ARCHITECTURES:
        why = "torch has no ready-made wheels for it, so that installing an agent will likely fail"
        yield warning("os", f"{name} on {arch or 'an unknown architecture'}", why, "Set install.interpreter")
    else:
        yield well("os", f"{name}, kernel {kernel}, {arch}, {fact.number('cpus') or 0:.0f} CPUs")


def _files(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("limits")
    soft, hard = fact.number("nofile"), fact.number("nofile_hard")
    if soft is None:
        yield unknown("ulimits", f"how many files a process may open is unknown: {fact.missing}")
        return
    if 0 <= soft < FILES:
        user = chart.facts.of("service").text("user") or "USER"
        more = "" if hard is None or not 0 <= hard < FILES else f" (hard limit {hard:.0f})"
        yield warning(
            "ulimits",
            f"a process may open only {soft:.0f} files{more}",
            "each connection is one: an agent under load refuses connections",
            f"on the host: echo '{user} - nofile 65536' | sudo tee /etc/security/limits.d/50-fleetctl.conf",
        )
    else:
        yield well("ulimits", f"a process may open {'any number of' if soft < 0 else f'{soft:.0f}'} files")


def _services(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("service")
    if fact.missing:
        yield unknown("systemd", f"whether systemd is there is unknown: {fact.missing}")
    elif not fact.yes("systemd"):
        yield well(
            "systemd", "no systemd: agents run as supervised processes, and do not come back after a reboot"
        )
    elif fact.yes("root") or fact.yes("linger") or chart.facts.of("rights").text("way") in ("root", "sudo"):
        yield well("systemd", "systemd is there, and services of ours outlive a login")
    else:
        user = fact.text("user") or "USER"
        yield warning(
            "systemd",
            f"no sudo, and lingering is off for {user}",
            "no service of systemd can keep the agent: it runs as a supervised process, which a reboot ends for good",
            f"on the host: sudo loginctl enable-linger {user}",
            "linger",
        )
