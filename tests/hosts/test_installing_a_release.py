"""Putting a release on a host: once, whole, and never half."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install import release, wheel
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

MachinesOf = Callable[..., Machines]


@pytest.fixture(params=["ssh", "local"])
def machine(request: pytest.FixtureRequest) -> Machine:
    made: Machine
    if request.param == "local":
        spec = request.getfixturevalue("fleet_of")([{"name": "here", "address": "local"}])
        made = Machines(spec, request.getfixturevalue("state")).machine("here")
    else:
        [host] = request.getfixturevalue("ssh_hosts")(1)
        made = request.getfixturevalue("machines_of")([host]).machine("h1")
    return made


@pytest.fixture
def root(request: pytest.FixtureRequest, machine: Machine) -> Path:
    """The machine's folder, as this test sees it."""
    if machine.spec.is_local:
        return Path(request.getfixturevalue("state")) / "hosts" / "here"
    return Path(request.getfixturevalue("ssh_hosts").hosts[0].home) / ".fleetctl" / "test" / "h1"


def test_the_second_time_nothing_is_sent(machine: Machine, root: Path, stub_release: Release) -> None:
    said: list[str] = []
    first = machine.install(stub_release, said.append)
    assert first.key == stub_release.key
    assert first.sent_bytes > 0
    assert any("sending" in text for text in said)
    base = root / "releases" / stub_release.key
    assert (base / "models" / "tiny" / "model.py").read_bytes() == b"class Tiny: ...\n"
    before = (base / "release.json").stat().st_mtime_ns
    assert machine.install(stub_release, said.append).sent_bytes == 0
    assert (base / "release.json").stat().st_mtime_ns == before
    for folder in (root, root / "releases", base, base / "models"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert sorted(path.name for path in (root / "releases").iterdir()) == [".lock", stub_release.key]


@pytest.mark.parametrize("damage", ["changed", "missing", "no marker"])
def test_a_damaged_release_is_seen_and_sent_again(
    damage: str, machine: Machine, root: Path, stub_release: Release
) -> None:
    machine.install(stub_release)
    base = root / "releases" / stub_release.key
    model = base / "models" / "tiny" / "model.py"
    if damage == "changed":
        model.write_bytes(b"class Evil: ...\n")  # the same length
    elif damage == "missing":
        model.unlink()
    else:
        (base / "release.json").unlink()
    with pytest.raises(HostFailure) as caught:
        machine.start(stub_release, (), "a1", "token")
    assert caught.value.kind == "release", "a half release is never started"
    assert machine.install(stub_release).sent_bytes > 0
    assert model.read_bytes() == b"class Tiny: ...\n"


def test_what_an_interrupted_transfer_left_is_cleared_away(
    machine: Machine, root: Path, stub_release: Release
) -> None:
    machine.install(stub_release)
    old = root / "releases" / ".0123.tar.abcd.part"
    old.write_bytes(b"half")
    os.utime(old, (1, 1))
    other = replace(stub_release, key="f" * 20)
    machine.install(other)
    assert not old.exists()


def test_what_a_machine_that_died_amid_an_installation_left_is_removed_by_the_next(
    machine: Machine, root: Path, stub_release: Release
) -> None:
    machine.install(stub_release)
    unpacked, made = root / "releases" / ".0123.4567", root / "environments" / "0123-py3.11.part"
    sent = root / "releases" / ".0123.tar"  # somebody may be sending it: nothing is known until it is old
    for folder in (unpacked, made):
        (folder / "lib").mkdir(parents=True)
        (folder / "lib" / "half").write_bytes(b"half")
    sent.write_bytes(b"half")
    machine.install(stub_release)
    assert (unpacked.exists(), made.exists(), sent.exists()) == (False, False, True)
    assert (root / "releases" / stub_release.key / "release.json").exists()


def test_what_somebody_is_at_work_in_is_left_alone(
    machine: Machine, root: Path, stub_release: Release
) -> None:
    machine.install(stub_release)
    for kind, name in (("releases", ".0123.4567"), ("environments", "0123-py3.11.part")):
        folder = root / kind / name
        folder.mkdir(parents=True)
        with (root / kind / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            machine.install(stub_release)
            assert folder.exists()
        machine.install(stub_release)
        assert not folder.exists(), "nobody has the lock any more"


@pytest.mark.machine
def test_a_full_disk_leaves_no_part_of_a_release(
    host: Host, machines_of: MachinesOf, stub_release: Release, tmp_path: Path
) -> None:
    weights = os.urandom(3_000_000)
    files = (*stub_release.files, release._in_memory("models/tiny/weights", weights))
    big = replace(stub_release, key="b" * 20, files=files)
    host.with_full_disk(1_500_000)
    machine = machines_of([host]).machine("h1")
    with pytest.raises(HostFailure) as caught:
        machine.install(big)
    assert caught.value.kind == "disk"
    assert caught.value.host == "h1"
    assert "install.directory" in caught.value.next_step
    left = [
        path for path in (host.home / ".fleetctl").rglob("*") if path.is_file() and path.stat().st_size > 4096
    ]
    assert left == []
    host.with_room_again()
    assert machine.install(big).sent_bytes > 3_000_000
    path = host.home / ".fleetctl" / "test" / "h1" / "releases" / big.key / "models" / "tiny" / "weights"
    assert path.read_bytes() == weights


def test_the_release_is_named_by_what_is_in_it(fleet_of: Callable[..., FleetSpec], tmp_path: Path) -> None:
    spec = fleet_of([{"name": "here", "address": "local"}])
    first = release.build(spec.models)
    assert release.build(spec.models) == first
    archive, digest = first.archive(tmp_path / "a")
    assert first.archive(tmp_path / "b")[1] == digest
    assert archive.stat().st_size > first.size
    source = spec.models[0].source
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "model.pyc").write_bytes(b"x")
    os.utime(source / "model.py", (1, 1))
    assert release.build(spec.models).key == first.key, "only content counts"
    (source / "requirements.txt").write_text("einops\n")
    second = release.build(spec.models)
    assert second.key != first.key
    assert second.requirement_files == ("models/tiny/requirements.txt",)
    assert second.environment_key(()) != first.environment_key(())
    assert first.environment_key(("--pre",)) != first.environment_key(())


def test_a_file_that_changes_while_it_is_packed(fleet_of: Callable[..., FleetSpec], tmp_path: Path) -> None:
    spec = fleet_of([{"name": "here", "address": "local"}])
    built = release.build(spec.models)
    (spec.models[0].source / "model.py").write_text("class Twin: ...\n")
    with pytest.raises(HostFailure, match=r"models/tiny/model.py changed"):
        built.archive(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("what", ["no folder", "dangling link", "linked folder"])
def test_a_source_that_cannot_be_packed(what: str, fleet_of: Callable[..., FleetSpec]) -> None:
    spec = fleet_of([{"name": "here", "address": "local"}])
    source = spec.models[0].source
    if what == "no folder":
        source.rename(source.with_name("elsewhere"))
    else:
        (source / "link").symlink_to("/nowhere" if what == "dangling link" else "/usr")
    with pytest.raises(HostFailure, match="model tiny cannot be packed"):
        release.build(spec.models)


def test_the_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    built = wheel.build()
    assert wheel.build() == built, "the same code gives the same bytes"
    path = tmp_path / built.name
    path.write_bytes(built.data)
    target = tmp_path / "site"
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        path,
    ]
    subprocess.run(argv, check=True, capture_output=True)
    code = "import fleet_wire.agent, fleet_agent; print(fleet_agent.__file__, fleet_wire.__file__)"
    env = {**os.environ, "PYTHONPATH": str(target)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    ).stdout
    assert said.count(str(target)) == 2
    assert "torch>=2.6" in " ".join(built.requirements)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        metadata = next(name for name in names if name.endswith("METADATA"))
        assert "extra" not in archive.read(metadata).decode()
    assert not any(name.startswith(("fleet_controller", "fleetctl/")) for name in names)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('torch>=2.6; extra == "agent"', ["torch>=2.6"]),
        (
            "uvloop>=0.20; (sys_platform != 'win32') and extra == 'agent'",
            ["uvloop>=0.20; sys_platform != 'win32'"],
        ),
        ("a; (b == 'c' or (d == 'e')) and extra == 'agent'", ["a; (b == 'c' or (d == 'e'))"]),
        ("paramiko>=5", []),
        ("pytest; extra == 'dev'", []),
        ("x; python_version < '3.12'", []),
    ],
)
def test_what_an_extra_adds(line: str, expected: list[str]) -> None:
    assert wheel.extra_requirements([line], "agent") == expected


@pytest.mark.parametrize("which", ["missing", "broken", "old"])
def test_an_interpreter_that_will_not_do(
    which: str,
    host: Host,
    fleet_of: Callable[..., FleetSpec],
    state: Path,
    stub_release: Release,
    tmp_path: Path,
) -> None:
    python = tmp_path / "python"
    if which != "missing":
        python.write_text("#!/bin/sh\n" + ("echo fleet 3.9\n" if which == "old" else "exit 1\n"))
        python.chmod(0o755)
    entry = {**host.entry(), "install": {"interpreter": str(python)}}
    with Machines(fleet_of([entry]), state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1").install(stub_release)
    assert caught.value.kind == "python"
    assert str(python) in caught.value.cause
