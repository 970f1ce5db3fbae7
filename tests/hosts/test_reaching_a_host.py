"""Every way in which a host cannot be reached has its own words and ends in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

pytestmark = pytest.mark.machine

MachinesOf = Callable[..., Machines]


def refusal(machines: Machines, name: str = "h1") -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        machines.machine(name).probe()
    return caught.value


@pytest.fixture
def hole() -> Iterator[int]:
    """A port that swallows every new connection, as a firewall that drops does: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture
def knock(host: Host, fleet_of: Callable[..., FleetSpec], state: Path) -> Callable[..., HostFailure]:
    """`knock(address, port)`: the failure of a host that is said to be there."""

    def at(address: str, port: int) -> HostFailure:
        made = host.entry(address=address)
        made["ssh"] = {**made["ssh"], "port": port, "connect_timeout": "1s"}  # type: ignore[dict-item]
        with Machines(fleet_of([made]), state) as machines:
            return refusal(machines)

    return at


Knock = Callable[[str, int], HostFailure]


def test_nothing_listens(host: Host, knock: Knock) -> None:
    failure = knock(host.address, 1)
    assert failure.kind == "refused"
    assert "port 1 " in failure.cause
    assert failure.unreachable


def test_nobody_answers(host: Host, machines_of: MachinesOf, hole: int) -> None:
    machines = machines_of([host], ssh={"port": hole, "connect_timeout": "1s"})
    machines._spec.hosts[0].__dict__["address"] = "127.0.0.1"
    began = time.monotonic()
    failure = refusal(machines)
    assert failure.kind == "timeout"
    assert "within 1 s" in failure.cause
    assert time.monotonic() - began < 2.5


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.5-old\r\n", b"SSH-2.0-x\r\n"]
)
def test_what_listens_is_no_ssh_server_or_says_nothing(greeting: bytes, knock: Knock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client = server.accept()[0]
                    client.sendall(greeting)
                    held.append(client)

        thread = threading.Thread(target=answer)
        thread.start()
        began = time.monotonic()
        failure = knock("127.0.0.1", server.getsockname()[1])
        assert time.monotonic() - began < 3
        assert failure.kind in ("timeout", "protocol")
        assert "ssh.port" in failure.next_step or "Update" in failure.next_step
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for client in held:
            client.close()


def test_a_name_that_does_not_exist(knock: Knock) -> None:
    failure = knock("no-such-host.invalid", 22)
    assert failure.kind == "dns"
    assert "no-such-host.invalid" in failure.cause


def test_a_cable_that_was_cut(host: Host, machines_of: MachinesOf, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--hosts") != "netns":
        pytest.skip("only network-namespace hosts have a cable: --hosts netns")
    machines = machines_of([host], ssh={"connect_timeout": "1s", "command_timeout": "4s"})
    machine = machines.machine("h1")
    machine.probe()
    host.cut()
    assert refusal(machines).unreachable
    began = time.monotonic()
    assert refusal(machines).kind in ("timeout", "route")
    assert time.monotonic() - began < 4
    host.heal()
    until = time.monotonic() + 10
    while not host.greets() and time.monotonic() < until:
        time.sleep(0.05)
    assert machine.probe().boot_id


def test_a_frozen_host_times_out_and_works_again_once_thawed(host: Host, machines_of: MachinesOf) -> None:
    machines = machines_of([host], ssh={"connect_timeout": "1s", "command_timeout": "1s"})
    machine = machines.machine("h1")
    machine.probe()
    host.freeze()
    began = time.monotonic()
    assert refusal(machines).kind in ("timeout", "lost")
    assert time.monotonic() - began < 4
    assert refusal(machines).kind in ("timeout", "lost")
    host.thaw()
    assert machine.probe().boot_id


def test_a_broken_connection_is_made_again(host: Host, machines_of: MachinesOf) -> None:
    machine = machines_of([host]).machine("h1")
    machine.probe()
    host.drop_logins()
    assert machine.probe().boot_id
    assert host.log().count("Accepted publickey") == 2


def test_a_host_that_was_off_is_reached_when_it_is_back(host: Host, machines_of: MachinesOf) -> None:
    machines = machines_of([host], ssh={"connect_timeout": "1s"})
    machine = machines.machine("h1")
    machine.probe()
    host.kill()
    assert refusal(machines).unreachable
    host.start()
    assert machine.probe().boot_id


def test_all_commands_share_one_connection(host: Host, machines_of: MachinesOf) -> None:
    machine = machines_of([host]).machine("h1")
    threads = [threading.Thread(target=machine.probe) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.log().count("Accepted publickey") == 1


def test_a_server_that_turns_away_at_the_door_is_asked_again(ssh_hosts: Lab, machines_of: MachinesOf) -> None:
    [host] = ssh_hosts(1)
    host.max_startups = "1:100:1"
    host.restart_sshd()
    # Each of six operators has a connection of his own; sshd greets one at a time.
    fleets = [machines_of([host]) for _ in range(6)]
    failures: list[HostFailure] = []

    def probe(machines: Machines) -> None:
        try:
            machines.machine("h1").probe()
        except HostFailure as failure:
            failures.append(failure)

    threads = [threading.Thread(target=probe, args=(machines,)) for machines in fleets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_no_thread_is_left(host: Host, machines_of: MachinesOf) -> None:
    before = threading.active_count()
    machines = machines_of([host])
    machines.machine("h1").probe()
    machines.close()
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.02)
    assert threading.active_count() <= before
