"""Domains of a real libvirtd (its test driver: no virtual machine behind them), by the real virsh."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_lab.lab import Lab
from fleet_lab.peers import needs

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine

MachineOf = Callable[..., Machine]


class Libvirt:
    """A daemon whose domain "test" lives as long as somebody is connected."""

    def __init__(self, folder: Path) -> None:
        self.virsh, daemon = needs("virsh", "libvirt-clients"), needs("libvirtd", "libvirt-daemon")
        folder.mkdir()
        self.uri = f"test+unix:///default?socket={folder}/libvirt-sock"
        config = folder / "libvirtd.conf"
        config.write_text(
            f'unix_sock_dir = "{folder}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            f'log_outputs = "2:file:{folder}/log"\n'
        )
        places = {
            name: str(folder) for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOME")
        }
        argv = [daemon, "-f", str(config), "-p", str(folder / "pid")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes = [subprocess.Popen(argv, env={**os.environ, **places}, **quiet)]  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while subprocess.run([self.virsh, "-c", self.uri, "uri"], capture_output=True).returncode != 0:
            assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
            if self._processes[0].poll() is not None:
                # Another daemon, of another test, has the lock of a driver that is of no use here.
                self._processes[0] = subprocess.Popen(argv, env={**os.environ, **places}, **quiet)  # type: ignore[call-overload]
            time.sleep(0.05)
        keeps = subprocess.Popen(
            [self.virsh, "-q", "-c", self.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(keeps)
        assert keeps.stdin is not None
        assert keeps.stdout is not None
        keeps.stdin.write(b"uri\n")
        keeps.stdin.flush()
        while self.uri.encode() not in (line := keeps.stdout.readline()):  # from here on it is connected
            assert line, "virsh ended"

    def do(self, *words: str) -> str:
        argv = [self.virsh, "-q", "-c", self.uri, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.communicate(timeout=10)


@pytest.fixture
def libvirt(tmp_path: Path) -> Iterator[Libvirt]:
    made = Libvirt(tmp_path / "libvirt")
    yield made
    made.close()


@pytest.mark.parametrize("where", ["here", "over ssh"])
def test_a_domain_is_switched_off_and_on_and_looked_at(
    libvirt: Libvirt, machine_of: MachineOf, ssh_hosts: Lab, where: str
) -> None:
    power = {"driver": "libvirt", "uri": libvirt.uri, "domain": "test"}
    others = []
    if where == "over ssh":
        [host] = ssh_hosts(1)
        others, power = [host.entry()], {**power, "via": host.name}
    machine = machine_of(power, *others)
    assert machine.power_status().state == "on"
    assert machine.power_on() is False
    assert machine.power_off() is True
    assert libvirt.do("domstate", "test") == "shut off"
    assert machine.power_off() is False
    assert machine.power_status().state == "off"
    assert machine.power_on() is True
    assert libvirt.do("domstate", "test") == "running"


def test_off_without_grace_pulls_the_plug(libvirt: Libvirt, machine_of: MachineOf) -> None:
    machine = machine_of({"driver": "libvirt", "uri": libvirt.uri, "domain": "test", "off_grace": 0})
    assert machine.power_off() is True
    assert libvirt.do("domstate", "--reason", "test") == "shut off (destroyed)"


def test_a_paused_domain_is_neither_on_nor_off_and_is_left_alone(
    libvirt: Libvirt, machine_of: MachineOf
) -> None:
    machine = machine_of({"driver": "libvirt", "uri": libvirt.uri, "domain": "test"})
    libvirt.do("suspend", "test")
    reading = machine.power_status()
    assert reading.state == "unknown" and "paused" in reading.reason
    for act in (machine.power_on, machine.power_off):
        with pytest.raises(HostFailure, match=r"virsh -q -c .* resume --domain test") as caught:
            act()
        assert caught.value.kind == "power"
    assert libvirt.do("domstate", "test") == "paused"


def test_a_domain_that_is_not_there_is_named(libvirt: Libvirt, machine_of: MachineOf) -> None:
    machine = machine_of({"driver": "libvirt", "uri": libvirt.uri})  # the domain is called as the host is
    with pytest.raises(HostFailure, match="failed to get domain 'm1'"):
        machine.power_on()


def test_a_hypervisor_that_hangs_is_given_up_in_time(machine_of: MachineOf) -> None:
    needs("virsh", "libvirt-clients")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"test+tcp://127.0.0.1:{silent.getsockname()[1]}/default"
        machine = machine_of({"driver": "libvirt", "uri": uri, "call_timeout": "700ms"})
        began = time.monotonic()
        with pytest.raises(HostFailure, match=r"not done after 0.7 s") as caught:
            machine.power_on()
    assert caught.value.kind == "power", "of the machine itself that says nothing"
    assert time.monotonic() - began < 5.0


def test_without_virsh_it_is_said_what_to_install(
    machine_of: MachineOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostFailure, match="apt-get install libvirt-clients") as caught:
        machine_of({"driver": "libvirt"}).power_on()
    assert caught.value.kind == "config"
