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
    given = chart.spec.agent.limits.open_files
    if given is not None and given >= FILES:
        yield well("ulimits", f"the agent may open {given} files (agent.limits.open_files)")
    elif 0 <= soft < FILES:
        user = chart.facts.of("service").text("user") or "USER"
        more = "" if hard is None or not 0 <= hard < FILES else f" (hard limit {hard:.0f})"
        fix = "Set agent.limits.open_files: 65536 in fleet.yaml"
        if more:
            line = f"echo '{user} - nofile 65536' | sudo tee /etc/security/limits.d/50-fleetctl.conf"
            fix = f"on the host: {line}; then agent.limits.open_files: 65536 in fleet.yaml"
        why = "each connection is one: an agent under load refuses connections"
        yield warning("ulimits", f"a process may open only {soft:.0f} files{more}", why, fix)
    else:
        yield well("ulimits", f"a process may open {'any number of' if soft < 0 else f'{soft:.0f}'} files")


def _services(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("service")
    wanted = chart.spec.agent.supervisor
    by_root = fact.yes("root") or chart.facts.of("rights").text("way")
    if fact.missing:
        yield unknown("systemd", f"whether systemd is there is unknown: {fact.missing}")
    elif not fact.yes("systemd"):
        yield well(
            "systemd", "no systemd: agents run as supervised processes, and do not come back after a reboot"
        )
    elif wanted == "process":
        yield well("systemd", "systemd is there, and agent.supervisor does without it")
    elif fact.yes("linger") or (by_root and wanted != "systemd-user"):
        yield well("systemd", "systemd is there, and services of ours outlive a login")
    else:
        user = fact.text("user") or "USER"
        yield warning(
            "systemd",
            f"lingering is off for {user}" + ("" if by_root else ", and there is no sudo"),
            "no service of systemd can keep the agent: it does not start, or runs as a process that a reboot ends",
            f"on the host: sudo loginctl enable-linger {user}",
            "linger",
        )
