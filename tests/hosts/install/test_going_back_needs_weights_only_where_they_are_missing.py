"""A pool is sent back to a release whose weights are no longer at their place on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.earlier import EarlierReleases
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.weights import WeightsFile
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "models/tiny/model.safetensors"


@pytest.fixture
def machines(host: Host, fleet_of: Callable[..., FleetSpec], state: Path) -> Iterator[Machines]:
    spec = fleet_of([{**host.entry(), "install": {"interpreter": sys.executable}}])
    with Machines(spec, state) as made:
        yield made


def served(machines: Machines, release: Release, state: Path) -> Release:
    """`release` as it is found when its pool is sent back to it."""
    earlier = EarlierReleases(state / "releases")
    earlier.note("p", release, (), machines.stock.archives)
    return EarlierReleases(state / "releases").read(release.key).release


@pytest.mark.parametrize("fate", ["gone", "changed"])
def test_a_host_that_has_them_uses_its_own_and_one_that_lacks_them_is_refused_in_one_message(
    machines: Machines, host: Host, stub_release: Release, state: Path, tmp_path: Path, fate: str
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(CONTENT)
    machine: Machine = machines.machine("h1")
    first = replace(stub_release, weights=(WeightsFile(NAME, SHA256, file=file),))
    machine.install(first)
    back = served(machines, first, state)
    second = replace(stub_release, key="e" * 20, weights=())
    machine.install(second)
    file.unlink()
    if fate == "changed":
        file.write_bytes(CONTENT[::-1])

    assert machine.install(back).sent_bytes == 0
    shutil.rmtree(host.home / ".fleetctl" / "test" / "h1" / "releases" / back.key)
    assert machine.install(back).sent_bytes > 0, "the release itself is kept here, packed"
    there = host.home / ".fleetctl" / "test" / "h1" / "releases" / back.key / NAME
    assert there.read_bytes() == CONTENT

    shutil.rmtree(host.home / ".fleetctl")
    with pytest.raises(HostFailure) as caught:
        machine.install(back)
    said = str(caught.value)
    assert str(file) in said and ("is pinned" if fate == "changed" else "cannot be read") in said
    assert f"Release {back.key}, to which its pool was sent back" in said and "h1 has no copy" in said
    assert "fleetctl rollback --clear" in said
    releases = host.home / ".fleetctl" / "test" / "h1" / "releases"
    assert not releases.exists() or not any(releases.iterdir()), "nothing half is left"
    file.write_bytes(CONTENT)
    assert machine.install(back).sent_bytes > len(CONTENT)
