"""The unit's text as a table, and as systemd itself reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.hosts.keeper.supervision.unit import (
    UnitSpec,
    environment_text,
    home_word,
    unit_name,
    unit_text,
)


def unit(**changes: Any) -> str:
    settings: dict[str, Any] = {
        "title": "fleetctl agent of host gpu-a in fleet demo",
        "argv": ["/bin/true", "-m", "fleet_agent"],
        "environment": "/opt/fleet/run/environment",
        "ended": "/opt/fleet/run/ended",
        "folder": "/opt/fleet/run",
        "user": "ops",
        "drain_s": 30.0,
        "limits": {"memory": None, "cpus": None, "tasks": None, "open_files": None},
        "needed": ["/opt/fleet/releases/1"],
        "writable": ["/opt/fleet/run"],
        "port": 9400,
        **changes,
    }
    return unit_text(UnitSpec(**settings))


@pytest.mark.parametrize(
    ("fleet", "host", "name"),
    [
        ("demo", "gpu-a", "fleetctl-demo-gpu-a.service"),
        ("a-b", "c", "fleetctl-a\\x2db-c.service"),
        ("a", "b-c", "fleetctl-a-b-c.service"),
        ("a.b", "c_d", "fleetctl-a.b-c_d.service"),
    ],
)
def test_its_name(fleet: str, host: str, name: str) -> None:
    assert unit_name(fleet, host) == name


NAMES = st.text("abAB0._-", min_size=1, max_size=8).filter(lambda name: name[0].isalnum())


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_two_hosts_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (unit_name(*one) == unit_name(*other)) == (one == other)


@pytest.mark.parametrize(
    ("changes", "has", "has_not"),
    [
        ({}, ["KillMode=mixed", "TimeoutStopSec=40", "Restart=on-failure", "User=ops"], ["[Install]"]),
        ({}, ["NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "RestrictSUIDSGID=yes"], ["MemoryMax"]),
        ({}, ["DevicePolicy=closed", "DeviceAllow=char-nvidia* rw", "ProtectHome=yes"], ["CAP_NET_BIND"]),
        ({"needed": ["/home/ops/.fleetctl/x"]}, ["ProtectHome=read-only"], []),
        ({"user": ""}, ["NoNewPrivileges=yes"], ["User=", "ProtectSystem", "DevicePolicy", "LimitMEMLOCK"]),
        ({"port": 80}, ["AmbientCapabilities=CAP_NET_BIND_SERVICE"], []),
        ({"port": 0}, ["CapabilityBoundingSet=\n"], ["AmbientCapabilities"]),
        ({"contained": True}, ["ProtectKernelModules=yes"], ["ProtectKernelTunables", "ProtectControlGroups"]),
        (
            {"limits": {"memory": 1 << 30, "cpus": 3.5, "tasks": 100, "open_files": 4096}},
            ["MemoryMax=1073741824", "CPUQuota=350%", "TasksMax=100", "LimitNOFILE=4096"],
            [],
        ),
        (
            {"argv": ["/bin/true", 'a "b" $HOME %h \\x']},
            ['ExecStart="/bin/true" "a \\"b\\" $$HOME %%h \\\\x"'],
            [],
        ),
    ],
)  # fmt: skip
def test_what_it_says(changes: dict[str, Any], has: list[str], has_not: list[str]) -> None:
    text = unit(**changes)
    for line in has:
        assert line in text
    for line in has_not:
        assert line not in text


@pytest.mark.parametrize(
    "changes", [{"argv": ["/bin/true", "a\nUser=root"]}, {"folder": "/opt/x\nUser=root"}]
)
def test_no_line_can_be_smuggled_in(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="which no unit can"):
        unit(**changes)


def test_homes_are_seen_where_something_lies_in_one() -> None:
    assert home_word(["/opt/x", "/homework"]) == "yes"
    assert home_word(["/opt/x", "/root"]) == "read-only"
    assert home_word(["/home/ops/.fleetctl"]) == "read-only"


def test_the_environment_file_holds_what_it_can() -> None:
    text = environment_text({"A": 'x "y" $z `w` \\', "B.C": "1", "D": "two\nlines", "_E": "ü"})
    assert text == 'A="x \\"y\\" \\$z \\`w\\` \\\\"\n_E="ü"\n'


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize(
    "changes", [{}, {"user": ""}, {"limits": {"memory": 1 << 30, "cpus": 0.5, "tasks": 64}}, {"port": 80}]
)
def test_systemd_finds_nothing_wrong_with_it(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / unit_name("a-b", "gpu-a")
    path.write_text(unit(**{"user": "root", "folder": "/", **changes}))
    argv = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if path.name in line or "fleetctl" in line]
    assert ours == []
