"""Is the host reached, as whom, and are files taken? PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well
from fleet_controller.hosts.failure import HostFailure

WHY = "fleetctl does everything on a host over SSH: nothing can be installed, started or stopped there"
# A connection of ours has up to this many commands at work, and a transfer takes two sessions.
SESSIONS = 6
# sshd's own default is 10:30:100; a controller, an operator and a balancer's machine may connect at once.
STARTUPS = 4
# What a machine that is off looks like from here.
SILENT = frozenset({"timeout", "refused", "route", "lost"})
MENDS = {"host-key-unknown": "host-key"}


def judge(chart: Chart) -> Iterator[Finding]:
    if chart.spec.is_local:
        yield skipped("ssh", "this machine: no SSH is needed")
        return
    failure = chart.failure
    if failure is not None and failure.unreachable:
        if chart.power.state == "off" and failure.kind in SILENT:
            yield skipped("ssh", "it is switched off, says its power control: nothing can be looked at")
            return
        jump = f" (jump host {failure.jump})" if failure.jump else ""
        yield problem("ssh", failure.cause + jump, WHY, failure.next_step, MENDS.get(failure.kind))
        return
    way = f" through {chart.spec.ssh.jump}" if chart.spec.ssh.jump else ""
    took = f" in {chart.connected_s:.2f} s" if chart.connected_s is not None else ""
    yield well("ssh", f"connected as {chart.user}{way}{took}; the host key is the known one")
    yield from _files(chart)
    yield from _server(chart)


def _files(chart: Chart) -> Iterator[Finding]:
    if isinstance(chart.files, HostFailure):
        failure = chart.files
        why = "releases are copied with SFTP"
        yield problem("sftp", failure.cause, why, failure.next_step)
    elif chart.files is None:
        yield unknown("sftp", "whether files can be copied there was not tried")
    else:
        yield well("sftp", "files can be copied there")


def _server(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("ssh")
    startups, sessions = fact.value.get("startups"), fact.number("sessions")
    if isinstance(startups, list) and startups and isinstance(startups[0], int) and startups[0] < STARTUPS:
        yield warning(
            "ssh-limits",
            f"sshd lets only {startups[0]} logins begin at once (MaxStartups)",
            "connections are dropped at random while several people or programs log in",
            "on the host: echo 'MaxStartups 10:30:100' | sudo tee /etc/ssh/sshd_config.d/50-fleetctl.conf"
            " && sudo systemctl reload ssh",
        )
    if sessions is not None and sessions < SESSIONS:
        yield warning(
            "ssh-limits",
            f"sshd opens only {sessions:.0f} sessions on a connection (MaxSessions)",
            f"fleetctl uses up to {SESSIONS} on the one connection that it keeps",
            "on the host: echo 'MaxSessions 10' | sudo tee /etc/ssh/sshd_config.d/50-fleetctl.conf"
            " && sudo systemctl reload ssh",
        )
