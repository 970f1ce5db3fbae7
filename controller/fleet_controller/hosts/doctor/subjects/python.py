"""Python: the one that looks after a host (3.8 and newer), the one that runs agents (3.11 and newer). PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, unknown, well

AGENT = (3, 11)
INSTALL = (
    "on the host: sudo apt-get install -y python3 python3-venv (Fedora, RHEL: sudo dnf install -y python3.11), and name"
    " it in install.python where it is not python3"
)


def judge(chart: Chart) -> Iterator[Finding]:
    failure = chart.failure
    if failure is not None and failure.kind == "python":
        why = "the small program that looks after a host is Python"
        yield problem("python", failure.cause, why, failure.next_step)
        return
    fact = chart.facts.of("python")
    if fact.missing:
        yield unknown("python", f"its Pythons are unknown: {fact.missing}")
        return
    version, path = fact.text("agent"), fact.text("agent_path")
    known = parsed(version)
    if known is None:
        why = fact.text("why") or "it did not say its version"
        yield problem("python", f"{path} can't be run: {why}", "agents run with it", INSTALL)
    elif known < AGENT:
        yield problem("python", f"{path} is Python {version}", "agents need Python 3.11 or newer", INSTALL)
    elif fact.no("venv") or (fact.no("ensurepip") and chart.spec.install.wheels == "index"):
        # Where wheels are sent, pip comes with them.
        yield problem(
            "python",
            f"{path} (Python {version}) can't make virtual environments: venv or ensurepip is missing",
            "an agent gets an environment of its own",
            f"on the host: sudo apt-get install -y python{known[0]}.{known[1]}-venv (or python3-venv)",
        )
    else:
        yield well("python", f"{path} is Python {version}" + (", with venv" if fact.yes("venv") else ""))


def parsed(version: str) -> tuple[int, int] | None:
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return None
    return int(parts[0]), int(parts[1])
