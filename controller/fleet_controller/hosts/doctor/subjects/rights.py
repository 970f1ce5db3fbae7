"""May this user become root, and is that needed? PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, unknown, warning, well

WAYS = {
    "root": "the user is root",
    "sudo": "sudo works and asks for no password",
    "sudo with password": "sudo works with the password that was given",
}
WHY = (
    "without it an agent runs as this user's own service or process (no system unit), and --fix can't switch on"
    " lingering or persistence mode"
)
FIX = "Give its password with --ask-sudo-password, or allow this user sudo without one (NOPASSWD in /etc/sudoers.d)"


def judge(chart: Chart) -> Iterator[Finding]:
    fact = chart.facts.of("rights")
    way = fact.text("way")
    if way in WAYS:
        yield well("sudo", WAYS[way])
    elif fact.missing:
        yield unknown("sudo", f"whether sudo works is unknown: {fact.missing}")
    else:
        cause = fact.text("cause") or "this user can't become root"
        yield warning("sudo", cause, WHY, fact.text("next") or FIX)
