"""Of releases the last ones are kept, and of environments, wheels and weights what those need."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.weights import WeightsFile
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

FleetOf = Callable[..., FleetSpec]


def age(folder: Path) -> None:
    """As if it had lain there for a day: what is young may be another's that is being brought."""
    for path in folder.iterdir():
        os.utime(path, (1, 1))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.slow
def test_the_last_ones_are_kept_with_what_they_need(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    stub_release: Release,
    index: Path,
    make_wheel: Callable[..., Path],
    tmp_path: Path,
) -> None:
    install = {
        "python": sys.executable,
        "pip_args": ["--no-index", "--find-links", str(index)],
        "keep_releases": 2,
    }
    entry: dict[str, Any] = {**host.entry(), "install": install}
    made = []
    for number in range(4):
        make_wheel(index, "fleetprobe", str(number))
        file = tmp_path / f"weights-{number}"
        file.write_bytes(f"weights {number}".encode())
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        made.append(
            replace(
                stub_release,
                key=str(number) * 20,
                requirements=(f"fleetprobe=={number}",),
                weights=(WeightsFile("models/tiny/w", sha256, file=file),),
            )
        )
    place = host.home / ".fleetctl"
    base = place / "test" / "h1"
    with Machines(fleet_of([entry]), state) as machines:
        machine = machines.machine("h1")
        machine.install(made[0])
        machine.start(made[0], machines._spec.models, "a0", "t")
        machine.stop(5)
        for release in made[1:3]:
            machine.install(release)
        assert names(base / "releases") == {made[0].key, made[2].key}, (
            "the one that ran last is never removed"
        )
        for kind in ("wheels", "weights"):
            age(place / kind)
        machine.install(made[3])
        assert names(base / "releases") == {made[0].key, made[3].key}
        assert len(names(base / "environments")) == 2
        assert names(place / "weights") == {made[0].weights[0].sha256, made[3].weights[0].sha256}
        assert len(names(place / "wheels")) == 3, "two of the environments', and pip"
        # going back needs nothing from here
        assert machine.install(made[0]).sent_bytes == 0
        machine.start(made[0], machines._spec.models, "a1", "t")
        machine.stop(5)


def test_what_another_fleet_of_this_user_needs_is_left(
    host: Host, fleet_of: FleetOf, state: Path, stub_release: Release, tmp_path: Path
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    shared = replace(stub_release, weights=(WeightsFile("models/tiny/w", sha256, file=file),))
    install = {"interpreter": sys.executable, "keep_releases": 2}
    entry: dict[str, Any] = {**host.entry(), "install": install}
    spec = fleet_of([entry])
    with Machines(spec, state) as mine, Machines(spec.model_copy(update={"fleet": "other"}), state) as theirs:
        theirs.machine("h1").install(shared)
        mine.machine("h1").install(shared)
        age(host.home / ".fleetctl" / "weights")
        for number in range(3):
            mine.machine("h1").install(replace(stub_release, key=str(number) * 20))
        assert not (host.home / ".fleetctl" / "test" / "h1" / "releases" / shared.key).exists()
        assert names(host.home / ".fleetctl" / "weights") == {sha256}
        assert theirs.machine("h1").install(shared).sent_bytes == 0
