"""Wheels are chosen once, on the operator's machine, and every host is sent the very same; it needs no index."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.resolve import Needs, _wanted
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh.transport import SshTransport
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
    monkeypatch: pytest.MonkeyPatch,
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
    asked: list[Command] = []
    run_before = SshTransport.run
    monkeypatch.setattr(SshTransport, "run", lambda *args: (asked.append(args[1]), run_before(*args))[1])
    monkeypatch.setattr(SshTransport, "put", None)
    with Machines(fleet_of([entry(host, index)]), state) as machines:
        machines.machine("h1").reach()
        asked.clear()
        assert machines.machine("h1").install(release, said.append).sent_bytes == 0
    assert said == []
    assert len(asked) == 1, "one question, no bytes"


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_a_damaged_wheel_is_replaced_here_and_there(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    stub_release: Release,
    index: Path,
    make_wheel: Callable[..., Path],
) -> None:
    make_wheel(index, "fleetprobe", filler=50_000)
    release = replace(stub_release, requirements=("fleetprobe==1",))
    with Machines(fleet_of([entry(host, index)]), state) as machines:
        machines.machine("h1").install(release)
        [wheel] = (host.home / ".fleetctl" / "wheels").glob("*/fleetprobe-*.whl")
        wheel.write_bytes(b"what a full disk left")
        [built] = environments(host)
        module = built / "lib" / f"python{PYTHON}" / "site-packages" / "fleetprobe" / "__init__.py"
        module.write_text("")
        with pytest.raises(HostFailure) as caught:
            machines.machine("h1").start(release, machines._spec.models, "a1", "t")
        assert caught.value.kind == "release", "an environment that was touched is not started"
    [here] = (state / "cache" / "wheels").glob("*/fleetprobe-*.whl")
    here.write_bytes(b"damaged here too")
    with Machines(fleet_of([entry(host, index)]), state) as machines:
        said: list[str] = []
        assert machines.machine("h1").install(release, said.append).sent_bytes > 50_000
        assert "fetching fleetprobe-1-py3-none-any.whl" in said
        assert 'VERSION = "1"' in module.read_text()
        machines.machine("h1").start(release, machines._spec.models, "a1", "t")
        machines.machine("h1").stop(5)


@pytest.mark.usefixtures("offline")
def test_what_has_no_wheel_is_said_before_anything_is_sent(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    stub_release: Release,
    index: Path,
    make_wheel: Callable[..., Path],
) -> None:
    make_wheel(index, "fleetprobe", tag="cp311-cp311-win_amd64")
    release = replace(stub_release, requirements=("fleetprobe==1",))
    with Machines(fleet_of([entry(host, index)]), state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1").install(release)
    assert caught.value.host == "this machine"
    assert caught.value.kind == "environment"
    assert "fleetprobe==1" in caught.value.cause
    assert "install.wheels: index" in caught.value.next_step
    assert not list((host.home / ".fleetctl").rglob("*.tar"))


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_a_python_without_ensurepip_will_do(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    stub_release: Release,
    index: Path,
    make_wheel: Callable[..., Path],
    tmp_path: Path,
) -> None:
    make_wheel(index, "fleetprobe")
    python = tmp_path / "python3"
    # What Debian's python3 does without python3-venv.
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with Machines(fleet_of([entry(host, index, python=str(python))]), state) as machines:
        machines.machine("h1").install(replace(stub_release, requirements=("fleetprobe==1",)))
    assert len(environments(host)) == 1
    alone = fleet_of([entry(host, index, python=str(python), wheels="index")])
    with Machines(alone, state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1").install(replace(stub_release, requirements=("fleetprobe>0",)))
    assert caught.value.kind == "environment"
    assert "apt-get install -y python3-venv" in caught.value.next_step


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ensurepip") is None,
    reason="this Python makes no environment with pip: apt-get install python3-venv",
)
def test_a_host_may_ask_the_index_itself(
    host: Host,
    fleet_of: FleetOf,
    state: Path,
    stub_release: Release,
    index: Path,
    make_wheel: Callable[..., Path],
) -> None:
    make_wheel(index, "fleetprobe")
    wanted = replace(stub_release, requirements=("fleetprobe==1",))
    with Machines(fleet_of([entry(host, index, wheels="index")]), state) as machines:
        machine = machines.machine("h1")
        with pytest.raises(HostFailure) as caught:
            machine.install(replace(stub_release, requirements=("fleetprobe==2",)))
        assert caught.value.kind == "environment"
        assert "fleetprobe==2" in caught.value.cause
        assert environments(host) == [], "nothing half-built stays"
        said: list[str] = []
        machine.install(wanted, said.append)
        assert "installing what the models need" in said
        [built] = environments(host)
        said.clear()
        assert machine.install(wanted, said.append).sent_bytes == 0
        assert said == []
        run = machine.start(wanted, machines._spec.models, "a1", "t")
        assert str(built / "bin" / "python") in Path(f"/proc/{host.outer_pid(run.pid)}/cmdline").read_text()
        machine.stop(5)


def test_requirements_of_an_options_file_are_for_pip_alone(tmp_path: Path) -> None:
    needs = Needs(("a>=1",), (b"# words\nb==2 # more\n-r other.txt\n--pre\n",), ())
    assert _wanted(needs) == (("a>=1", "b==2"), False)
    assert _wanted(Needs(("a>=1",), (b"b==2 ; python_version > '3'\n",), ()))[1] is True
    assert needs.key != Needs(("a>=1",), (b"",), ()).key
