"""A BMC that OpenIPMI's simulator plays, spoken to by the real ipmitool."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.lab import Lab
from fleet_lab.peers import free_port, needs

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine

MachineOf = Callable[..., Machine]

PASSWORD = "c4nary-0f-ipmi"
LAN = """name "m1"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{folder}/chassis"
  user 2 true "admin" "{password}" admin 10 none md2 md5 straight
"""
EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
# What the simulator calls to look and to act: the machine is a file, what was done is written down.
CHASSIS = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
[ "$1" = 0x20 ] && shift
verb=$1; shift
case $verb in
  get) while [ $# -gt 0 ]; do case $1 in
         power) if [ "$(cat state)" = on ]; then echo power:1; else echo power:0; fi ;;
         boot) echo boot:default ;; esac; shift; done ;;
  set) while [ $# -gt 0 ]; do case $1 in
         power) echo "power $2" >> done
                if [ ! -e lie ]; then if [ "$2" = 1 ]; then echo on > state; else echo off > state; fi; fi; shift ;;
         shutdown) echo soft >> done; [ -e lie ] || [ -e deaf ] || echo off > state; shift ;;
         *) shift ;; esac; shift; done ;;
esac
exit 0
"""


class Bmc:
    def __init__(self, folder: Path, state: str) -> None:
        self.folder = folder
        needs("ipmitool", "ipmitool")
        simulator = needs("ipmi_sim", "openipmi")
        folder.mkdir()
        self.port = free_port(socket.SOCK_DGRAM)
        (folder / "state").write_text(state)
        (folder / "lan.conf").write_text(LAN.format(port=self.port, folder=folder, password=PASSWORD))
        (folder / "m1.emu").write_text(EMULATION)
        (folder / "chassis").write_text(CHASSIS)
        (folder / "chassis").chmod(0o755)
        (folder / "password").write_text(f"{PASSWORD}\n")
        (folder / "password").chmod(0o600)
        argv = [
            simulator,
            "-c",
            str(folder / "lan.conf"),
            "-f",
            str(folder / "m1.emu"),
            "-s",
            str(folder),
            "-n",
        ]
        pipes: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        self._process = subprocess.Popen(argv, **pipes)

    def power(self, **more: Any) -> dict[str, Any]:
        login = {"user": "admin", "password_file": str(self.folder / "password"), "cipher_suite": 3}
        times = {"boot_timeout": "2s", "off_timeout": "2s", "off_grace": "500ms"}
        return {"driver": "ipmi", "bmc": f"127.0.0.1:{self.port}", **login, **times, **more}

    def done(self) -> list[str]:
        path = self.folder / "done"
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=["off"])
def bmc(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bmc]:
    made = Bmc(tmp_path / "bmc", request.param)
    yield made
    made.close()


@pytest.mark.parametrize("where", ["here", "over ssh"])
def test_on_and_off_are_done_once_and_seen(
    bmc: Bmc, machine_of: MachineOf, ssh_hosts: Lab, where: str
) -> None:
    others = [host.entry() for host in ssh_hosts(1)] if where == "over ssh" else []
    machine = machine_of(bmc.power(**({"via": "h1"} if others else {})), *others)
    assert machine.powered() is False
    assert machine.power_on() is True
    assert machine.power_on() is False
    assert machine.power_status().state == "on"
    assert machine.power_off() is True
    assert machine.power_off() is False
    assert bmc.done() == ["power 1", "soft"]


@pytest.mark.parametrize("bmc", ["on"], indirect=True)
def test_a_machine_that_does_not_shut_down_is_switched_off_hard_after_the_grace(
    bmc: Bmc, machine_of: MachineOf
) -> None:
    (bmc.folder / "deaf").touch()
    assert machine_of(bmc.power()).power_off() is True
    assert bmc.done() == ["soft", "power 0"]


def test_a_bmc_that_says_yes_and_does_nothing_is_told_once(bmc: Bmc, machine_of: MachineOf) -> None:
    (bmc.folder / "lie").touch()
    machine = machine_of(bmc.power())
    with pytest.raises(HostFailure, match=r"its BMC 127.0.0.1:\d+ does not say that it is on after 2 s"):
        machine.power_on()
    assert bmc.done() == ["power 1"]


@pytest.mark.parametrize("bmc", ["on"], indirect=True)
def test_nor_is_it_believed_to_be_off(bmc: Bmc, machine_of: MachineOf) -> None:
    (bmc.folder / "lie").touch()
    with pytest.raises(HostFailure, match="does not say that it is off after 2 s"):
        machine_of(bmc.power()).power_off()
    assert bmc.done() == ["soft", "power 0"], "each once"


def test_a_wrong_password_is_said_and_not_shown(bmc: Bmc, machine_of: MachineOf) -> None:
    wrong = bmc.folder / "wrong"
    wrong.write_text("wr0ng-c4nary\n")
    wrong.chmod(0o600)
    with pytest.raises(HostFailure, match="whether it is on is unknown: its BMC") as caught:
        machine_of(bmc.power(password_file=str(wrong))).power_on()
    assert caught.value.kind == "power"
    assert "c4nary" not in str(caught.value)
    assert bmc.done() == []


def test_a_bmc_that_does_not_answer_is_given_up_in_time_and_the_password_is_nowhere_meanwhile(
    machine_of: MachineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("ipmitool", "ipmitool")
    seen: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        login = {"user": "admin", "cipher_suite": 3, "password_env": "BMC_PASSWORD"}
        machine = machine_of({"driver": "ipmi", "bmc": at, **login, "call_timeout": "2s"})
        monkeypatch.setenv("BMC_PASSWORD", PASSWORD)  # ours to know, and handed on to nobody
        caught: list[HostFailure] = []

        def ask() -> None:
            with pytest.raises(HostFailure) as failure:
                machine.power_on()
            caught.append(failure.value)

        began = time.monotonic()
        thread = threading.Thread(target=ask)
        thread.start()
        while thread.is_alive():
            seen += [process for process in _processes() if at.partition(":")[2].encode() in process]
            thread.join(0.05)
    assert time.monotonic() - began < 8.0
    assert caught[0].kind == "power"
    assert any(process.startswith(b"ipmitool\0") for process in seen)
    assert not any(PASSWORD.encode() in process for process in seen)
    assert PASSWORD not in str(caught[0])


def _processes() -> list[bytes]:
    """The arguments and the environment of everything that runs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes() + b"\n" + (folder / "environ").read_bytes())
        except OSError:
            continue
    return found


def test_a_password_that_everybody_may_read_is_refused(bmc: Bmc, machine_of: MachineOf) -> None:
    (bmc.folder / "password").chmod(0o644)
    with pytest.raises(HostFailure, match="may be read or written by every user") as caught:
        machine_of(bmc.power()).power_on()
    assert caught.value.kind == "config"


def test_a_variable_that_is_not_set_is_named(machine_of: MachineOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
    power = {"driver": "ipmi", "bmc": "127.0.0.1", "user": "admin", "password_env": "NO_SUCH_PASSWORD"}
    with pytest.raises(HostFailure, match=r"NO_SUCH_PASSWORD .* is not set where the controller runs"):
        machine_of(power).power_on()
