"""What was seen of a host, made up; and the doctor's rounds on real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_lab import nvidia
from fleet_lab.host import Host

from fleet_controller.hosts.doctor.chart import Chart, Clock, Line
from fleet_controller.hosts.doctor.diagnosis import diagnose
from fleet_controller.hosts.doctor.facts import Facts
from fleet_controller.hosts.doctor.finding import Finding
from fleet_controller.hosts.doctor.report import Report
from fleet_controller.hosts.doctor.rounds import Rounds
from fleet_controller.hosts.keeper.facts.nvidia import APPS, FIELDS, ROWS
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.spec import FleetSpec, HostSpec

GIB = 1 << 30
FleetOf = Callable[..., FleetSpec]


def said(out: str, fields: tuple[str, ...], status: int = 0) -> dict[str, Any]:
    return {"status": status, "out": out, "err": "", "fields": list(fields)}


def well() -> dict[str, Any]:
    """The facts of a host with an H100 on which all is well."""
    return {
        "system": {
            "os": "Debian GNU/Linux 12 (bookworm)",
            "kernel": "6.1.0-28-amd64",
            "system": "Linux",
            "arch": "x86_64",
            "cpus": 32,
            "uptime_s": 500_000.0,
        },
        "identity": {"machine_id": "1" * 32, "boot_id": "b1", "host_keys": ["k1"]},
        "rights": {"way": "sudo"},
        "memory": {
            "total": 128 * GIB,
            "available": 120 * GIB,
            "limit": None,
            "shm_total": 64 * GIB,
            "shm_free": 64 * GIB,
            "shm_writable": True,
        },
        "limits": {"nofile": 65536, "nofile_hard": 1 << 20},
        "service": {"systemd": True, "root": False, "user": "ops", "linger": False, "manager": True},
        "ssh": {"startups": [10, 100], "sessions": None},
        "clock": {"now": 1000.0, "synchronized": True},
        "disk": {
            "path": "/home/ops/.fleetctl/f/h1",
            "there": "/home/ops/.fleetctl/f/h1",
            "exists": True,
            "folder": True,
            "free": 400 * GIB,
            "total": 900 * GIB,
            "inodes_free": 10**7,
            "inodes": 10**8,
            "read_only": False,
            "noexec": False,
            "writable": True,
            "ours": True,
            "mode": 0o700,
            "type": "ext4",
        },
        "abandoned": {"paths": [], "count": 0},
        "releases": {"ill": {"abc": ""}, "wanted": "abc"},
        "port": {"port": 9400, "agent": True, "taken": True, "ours": True, "holder": ""},
        "python": {
            "keeper": "3.11.2",
            "path": "/usr/bin/python3",
            "agent_path": "python3",
            "agent": "3.11.2",
            "why": "",
            "venv": True,
            "ensurepip": True,
        },
        "driver": {
            "devices": [{"bus": "0000:3b:00.0", "driver": "nvidia"}],
            "nouveau": False,
            "module": True,
            "kernel_version": "550.54.14",
            "library_version": "550.54.14",
            "nodes": 1,
            "denied": [],
            "smi": "/usr/bin/nvidia-smi",
        },
        "gpus": said(nvidia.gpu(), FIELDS),
        "rows": said(nvidia.rows(), ROWS),
        "apps": {**said("", APPS), "who": {}},
        "kernel_log": {"lines": [], "uptime_s": 500_000.0},
        "torch": {"torch": "2.6.0+cu124", "built": "12.4", "available": True, "devices": 1, "why": ""},
    }


ChartOf = Callable[..., Chart]


@pytest.fixture
def chart_of() -> ChartOf:
    """`chart_of(memory={"shm_total": 1})`: all is well but this. A text in a fact's place: it is not known."""

    def make(name: str = "h1", spec: dict[str, Any] | None = None, **facts: Any) -> Chart:
        told: dict[str, Any] = {}
        for key, value in well().items():
            change = facts.pop(key, {})
            told[key] = {"trouble": change} if isinstance(change, str) else {"value": {**value, **change}}
        entry = {"name": name, "address": "10.0.0.11", "ssh": {"user": "ops"}, **(spec or {})}
        known = {"clock_seen": Clock(0.01, 0.02), "line": Line(0.003, 4 << 20, 0.1), "files": ""} | facts
        return Chart(
            HostSpec.model_validate(entry),
            facts=Facts(told),
            clock=known.pop("clock_seen"),
            user="ops",
            connected_s=0.2,
            **known,
        )

    return make


@pytest.fixture
def told(chart_of: ChartOf) -> Callable[..., dict[str, list[Finding]]]:
    """The findings about such a host, by check."""

    def judge(**facts: Any) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for finding in diagnose(chart_of(**facts)):
            found.setdefault(finding.check, []).append(finding)
        return found

    return judge


@pytest.fixture
def rounds_of(fleet_of: FleetOf, state: Path) -> Iterator[Callable[..., Rounds]]:
    """`rounds_of(hosts)`: the doctor's rounds on hosts of the lab. Nothing is installed on them, torch neither."""
    made: list[Machines] = []

    def make(
        hosts: list[Host],
        ssh: dict[str, Any] | None = None,
        python: str = sys.executable,
        sudo: str | None = None,
        **changes: Any,
    ) -> Rounds:
        entries = [host.entry(install={"python": python}, **changes) for host in hosts]
        for entry in entries:
            entry["ssh"] = {**entry["ssh"], **(ssh or {})}  # type: ignore[dict-item]
        spec = fleet_of(entries)
        made.append(Machines(spec, state, SudoPassword(sudo)))
        return Rounds(spec, made[-1], state)

    yield make
    for machines in made:
        machines.close()


@pytest.fixture
def examined(rounds_of: Callable[..., Rounds]) -> Callable[..., Report]:
    """The report on these hosts and on this machine."""

    def examine(hosts: list[Host], **changes: Any) -> Report:
        return rounds_of(hosts, **changes).examine([host.name for host in hosts])

    return examine


@pytest.fixture
def of() -> Callable[[Report, str, str], list[Finding]]:
    """`of(report, "h1", "ssh")`: what was found there of this; host "": this machine."""

    def pick(report: Report, host: str, check: str) -> list[Finding]:
        return [finding for name, finding in report.each() if name == host and finding.check == check]

    return pick
