"""A link that is cut, an operator's process that is killed, a disk that is full: the next try completes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.sending import Pace
from fleet_controller.hosts.install.weights import WeightsFile
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

FleetOf = Callable[..., FleetSpec]
SIZE = 6_000_000


@pytest.fixture
def heavy(stub_release: Release, tmp_path: Path) -> Release:
    """The stub with weights of 6 MB."""
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(SIZE))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return replace(stub_release, weights=(WeightsFile("models/tiny/weights.bin", sha256, file=file),))


def place(host: Host) -> Path:
    return host.home / ".fleetctl"


def parts(host: Host) -> list[Path]:
    return sorted(place(host).rglob(".*.part"))


def sent_weights(host: Host, release: Release) -> Path:
    return place(host) / "weights" / release.weights[0].sha256 / "file"


def entry(host: Host, port: int | None = None, **install: Any) -> dict[str, Any]:
    made = {**host.entry(), "install": install}
    if port is not None:
        made["ssh"] = {**made["ssh"], "port": port}  # type: ignore[dict-item]
    return made


def test_a_link_that_is_cut_costs_only_what_was_on_its_way(
    host: Host, cable: Any, fleet_of: FleetOf, state: Path, heavy: Release
) -> None:
    known = host.known_hosts.read_text()
    host.known_hosts.write_text(known + known.replace(f":{host.port} ", f":{cable.port} "))
    # the host's own Python makes no environment here
    made = entry(host, cable.port, interpreter=os.path.realpath("/proc/self/exe"))
    with Machines(fleet_of([made]), state) as machines:
        machine = machines.machine("h1")
        machine.probe()
        # By what the host has, not by what was carried: a window that sshd has not passed on is lost with the link.
        cable.cut_when = lambda: any(part.stat().st_size > SIZE // 4 for part in parts(host))
        with pytest.raises(HostFailure) as caught:
            machine.install(heavy)
        assert caught.value.unreachable
        [left] = parts(host)
        there = left.stat().st_size
        assert SIZE // 4 < there < SIZE, "cut on its way"
        assert not sent_weights(host, heavy).exists()
        with pytest.raises(HostFailure) as caught:
            machine.start(heavy, (), "a1", "token")
        assert caught.value.kind == "release", "nothing half is ever started"
        done = machine.install(heavy)
        assert done.sent_bytes <= SIZE - there + 100_000, "it went on where it stopped"
    assert sent_weights(host, heavy).read_bytes() == heavy.weights[0].file.read_bytes()  # type: ignore[union-attr]
    assert parts(host) == []


def test_a_part_that_is_not_what_it_should_be_is_sent_from_the_beginning(
    host: Host, fleet_of: FleetOf, state: Path, heavy: Release
) -> None:
    with Machines(fleet_of([entry(host, interpreter=os.path.realpath("/proc/self/exe"))]), state) as machines:
        machine = machines.machine("h1")
        target = sent_weights(host, heavy)
        target.parent.mkdir(parents=True, mode=0o700)
        mark = f"{heavy.weights[0].sha256[:20]}-h1"
        (target.parent / f".file.{mark}.part").write_bytes(b"\0" * (SIZE // 2))  # a host that lost power
        done = machine.install(heavy)
        assert done.sent_bytes >= SIZE + SIZE // 2, "all that went over the wire is told"
        assert target.read_bytes() == heavy.weights[0].file.read_bytes()  # type: ignore[union-attr]
        assert parts(host) == []


def _install(spec: FleetSpec, state: Path, release: Release) -> None:
    with Machines(spec, state) as machines:
        machine = machines.machine("h1")
        machine.install(release)


def test_an_operator_who_is_killed_goes_on_where_it_stopped(
    host: Host, fleet_of: FleetOf, state: Path, heavy: Release
) -> None:
    python = os.path.realpath("/proc/self/exe")
    slow = fleet_of([entry(host, interpreter=python, rate_limit="1500KB")])
    child = multiprocessing.get_context("fork").Process(target=_install, args=(slow, state, heavy))
    child.start()
    until = time.monotonic() + 30
    while not any(part.stat().st_size > 1_000_000 for part in parts(host)):
        assert time.monotonic() < until and child.is_alive()
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    [left] = parts(host)
    with Machines(fleet_of([entry(host, interpreter=python)]), state) as machines:
        done = machines.machine("h1").install(heavy)
        assert done.sent_bytes <= SIZE - 1_000_000 + 100_000
        run = machines.machine("h1").start(heavy, machines._spec.models, "a1", "token")
        assert run.release == heavy.key
        machines.machine("h1").stop(5)
    assert not left.exists()


def test_the_rate_limit_holds_for_all_hosts_together() -> None:
    waited: list[float] = []
    now = [10.0]
    pace = Pace(1_000_000, lambda: now[0], waited.append)
    for _ in range(100):  # ten hosts, ten pieces each, at the same moment
        pace(32_768)
    assert waited[-1] == pytest.approx(3.2768 - 0.25)
    now[0] = 100.0
    waited.clear()
    pace(32_768)
    assert waited == [], "a pause is not made up for by a flood, but by a quarter of a second's worth"


def test_the_rate_limit_is_kept_on_the_wire(
    host: Host, fleet_of: FleetOf, state: Path, heavy: Release
) -> None:
    said: list[str] = []
    python = os.path.realpath("/proc/self/exe")
    with Machines(fleet_of([entry(host, interpreter=python, rate_limit="3MB")]), state) as machines:
        machine: Machine = machines.machine("h1")
        began = time.monotonic()
        machine.install(heavy, said.append)
        took = time.monotonic() - began
    assert took > SIZE / 3e6 - 0.3
    assert any("% of 6.0 MB" in text and "/s" in text for text in said), said
