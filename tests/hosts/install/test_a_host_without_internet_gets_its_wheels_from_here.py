"""Wheels are chosen once, on the operator's machine, and every host is sent the very same; it needs no index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import Machines
from fleet_controller.spec import FleetSpec

FleetOf = Callable[..., FleetSpec]
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def entry(host: Host, index: Path, **install: Any) -> dict[str, Any]:
    pip_args = ["--no-index", "--find-links", str(index)]
    return {**host.entry(), "install": {"python": sys.executable, "pip_args": pip_args, **install}}


def environments(host: Host) -> list[Path]:
    folder = host.home / ".fleetctl" / "test" / "h1" / "environments"
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


@pytest.mark.usefixtures("offline")
def test_what_pip_chose_here_is_installed_there_and_the_second_time_nothing_is_sent(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    stub_release: Release,
    index: Path,
    make_wheel: Callable[..., Path],
) -> None:
    make_wheel(index, "fleetprobe", requires=("fleetdeep>=1; python_version >= '3'",))
    make_wheel(index, "fleetdeep", "2", filler=200_000)
    release = replace(stub_release, requirements=("fleetprobe==1",))
    with Machines(fleet_of([entry(host, index)]), state) as machines:
        machine = machines.machine("h1")
        said: list[str] = []
        first = machine.install(release, said.append)
        assert first.sent_bytes > 200_000
        assert any("choosing the wheels for py" in text for text in said)
        assert any("sending wheel fleetdeep" in text for text in said)
        [built] = environments(host)
        script = (built / "bin" / "fleetprobe").read_text()
        assert script.startswith(f"#!{built}/bin/python"), "scripts name the final place"
        site = built / "lib" / f"python{PYTHON}" / "site-packages"
        assert 'VERSION = "2"' in (site / "fleetdeep" / "__init__.py").read_text()
        assert not (site / "pip").exists(), "pip was only carried there"
        run = machine.start(release, machines._spec.models, "a1", "t")
        assert str(built / "bin" / "python") in Path(f"/proc/{host.outer_pid(run.pid)}/cmdline").read_text()
        machine.stop(5)
    # another process of the operator, whose index has lost everything since
    for path in index.iterdir():
        path.unlink()
    said.clear()
    with Machines(fleet_of([entry(host, index)]), state) as machines:
        assert machines.machine("h1").install(release, said.append).sent_bytes == 0
    assert said == []
