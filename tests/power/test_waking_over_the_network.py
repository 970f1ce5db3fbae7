"""Wake-on-LAN: the packet is caught by a real socket, and the machine is a real SSH server that comes and goes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine

MachineOf = Callable[..., Machine]
MAC = "52:54:00:ab:cd:ef"
PACKET = b"\xff" * 6 + bytes.fromhex("525400abcdef") * 16


class Card:
    """The network card of a machine: it starts it when its packet comes."""

    def __init__(self, host: Host) -> None:
        self.packets: list[bytes] = []
        self._host = host
        self._end = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.at = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.asleep = ExitStack()
        self._off = host.folder / "off"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if self._off.exists():
                self._off.unlink()
                self._host.kill()
                self._fall_silent()
            try:
                self.packets.append(self._socket.recv(1024))
            except TimeoutError:
                continue
            if self.packets[-1] == PACKET:
                self.asleep.close()
                self._host.start()

    def _fall_silent(self) -> None:
        """Not even a refusal comes from a machine without power: connections to its port are not answered at all."""
        door = self.asleep.enter_context(socket.socket())
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((self._host.address, self._host.port))
        door.listen(0)
        for _ in range(4):  # nobody takes them, so the queue is full
            one = self.asleep.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((self._host.address, self._host.port))

    def power(self, **more: Any) -> dict[str, Any]:
        off = ["sh", "-c", f"touch {self._host.folder}/off; sleep 5"]
        times = {"boot_timeout": "10s", "off_timeout": "15s"}
        return {"driver": "wol", "mac": MAC, "broadcast": self.at, "off": off, **times, **more}

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.asleep.close()
        self._socket.close()


@pytest.fixture
def card(ssh_hosts: Lab) -> Iterator[Card]:
    [host] = ssh_hosts(1)
    made = Card(host)
    yield made
    made.close()


def entry(host: Host) -> dict[str, Any]:
    made: dict[str, Any] = host.entry()
    made["ssh"]["connect_timeout"] = "500ms"
    return made


def machine(card: Card, machine_of: MachineOf, host: Host, **more: Any) -> Machine:
    own = entry(host)
    del own["name"]
    return machine_of(card.power(**more), own=own)


def test_it_is_woken_by_the_packet_and_shut_down_over_ssh_and_seen_to_go(
    card: Card, machine_of: MachineOf, ssh_hosts: Lab
) -> None:
    [host] = ssh_hosts.hosts
    m1 = machine(card, machine_of, host)
    assert m1.power_on() is False and card.packets == [], "it is on"
    assert m1.power_off() is True
    assert host.processes() == []
    assert m1.power_status().state == "off", "it was seen to go"
    assert m1.power_off() is False
    assert m1.power_on() is True
    assert set(card.packets) == {PACKET}
    assert m1.powered() is True


def test_a_silent_machine_that_nobody_saw_go_is_not_called_off_and_may_be_woken(
    card: Card, machine_of: MachineOf, ssh_hosts: Lab
) -> None:
    [host] = ssh_hosts.hosts
    m1 = machine(card, machine_of, host)
    (host.folder / "off").touch()
    until = time.monotonic() + 10
    while m1.power_status().state != "unknown":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "cannot tell a machine that is off from one cut off" in m1.power_status().reason
    for act in (m1.powered, m1.power_off):
        with pytest.raises(HostFailure, match="cannot tell"):
            act()
    assert m1.power_on() is True
    assert host.greets()


def test_a_machine_that_refuses_to_shut_down_is_told_why(
    card: Card, machine_of: MachineOf, ssh_hosts: Lab
) -> None:
    [host] = ssh_hosts.hosts
    off = ["sh", "-c", "echo 'sudo: a password is required' >&2; exit 1"]
    m1 = machine(card, machine_of, host, off=off)
    with pytest.raises(HostFailure, match=r"it is off at once; .*a password is required"):
        m1.power_off()
    assert host.greets()


def test_the_packet_goes_out_from_another_host_of_its_network(
    card: Card, machine_of: MachineOf, ssh_hosts: Lab
) -> None:
    [host] = ssh_hosts.hosts
    [neighbour] = ssh_hosts(1)
    host.kill()
    own = entry(host)
    del own["name"]
    m1 = machine_of(card.power(via=neighbour.name), entry(neighbour), own=own)
    assert m1.power_on() is True
    assert set(card.packets) == {PACKET}
    assert neighbour.log().count("Accepted publickey") == 1
