"""What a login prints besides, or a Python that is missing, does not confuse anyone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.keeper import errands
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.parcel import parcel
from fleet_controller.spec import FleetSpec

MachinesOf = Callable[..., Machines]


def test_banner_noise_around_every_answer(host: Host, machines_of: MachinesOf, stub_release: Release) -> None:
    host.noisy()
    machines = machines_of([host])
    machine = machines.machine("h1")
    machine.install(stub_release)
    run = machine.start(stub_release, machines._spec.models, "a1", "t")
    assert machine.probe().agent is not None
    assert machine.tail(5) == "stub agent a1"
    assert machine.stop(5).port == run.port


def test_a_host_without_python_says_how_to_install_it(host: Host, machines_of: MachinesOf) -> None:
    host.without_python()
    with pytest.raises(HostFailure) as caught:
        machines_of([host]).machine("h1").probe()
    assert caught.value.kind == "python"
    assert not caught.value.unreachable
    assert "python3" in caught.value.cause
    assert "apt-get install -y python3" in caught.value.next_step
    assert "dnf install" in caught.value.next_step
    assert str(caught.value).startswith("h1: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "kind", "says"),
    [
        ("cat >/dev/null; echo SyntaxError: invalid syntax >&2; exit 1", "python", "older than Python 3.8"),
        ("cat >/dev/null; printf 'Killed\\033[31m' >&2; exit 137", "command", "status 137"),
        ("cat >/dev/null; echo @fleetctl-0123456789abcdef@ answer '{}'", "command", "gave no answer"),
    ],
)
def test_a_python_that_is_none(
    script: str,
    kind: str,
    says: str,
    host: Host,
    fleet_of: Callable[..., FleetSpec],
    state: Path,
    tmp_path: Path,
) -> None:
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    entry = {**host.entry(), "install": {"python": str(python)}}
    with Machines(fleet_of([entry]), state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1").probe()
    assert caught.value.kind == kind
    assert says in caught.value.cause
    assert "\x1b" not in str(caught.value)


def test_a_folder_that_may_not_be_written(
    host: Host, fleet_of: Callable[..., FleetSpec], state: Path, stub_release: Release
) -> None:
    (host.home / "taken").write_text("a file, not a folder")
    entry = host.entry()
    entry["install"] = {**entry["install"], "directory": "~/taken/here"}  # type: ignore[dict-item]
    with Machines(fleet_of([entry]), state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1").install(stub_release)
    assert caught.value.kind == "permission"
    assert "install.directory" in caught.value.next_step


@pytest.mark.parametrize("errand", sorted(p.stem for p in Path(errands.__path__[0]).glob("[a-z]*.py")))
def test_what_an_errand_imports_travels_with_it(errand: str) -> None:
    # -S and -I: nothing of ours can be found but what was sent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=parcel(errand).encode(), capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
