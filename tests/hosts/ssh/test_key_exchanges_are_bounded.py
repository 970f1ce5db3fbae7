"""The gate before key exchanges: never more than so many, and nobody who is stuck shuts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.blackhole import mute
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh import gate
from fleet_controller.hosts.ssh.gate import Gate
from fleet_controller.spec import FleetSpec


def most_at_once(door: Gate, comers: list[object]) -> int:
    inside, most, lock = 0, 0, threading.Lock()

    def come(jump: object) -> None:
        nonlocal inside, most
        with door.place(jump):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.005)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(come, comers))
    return most


def test_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 60.0)
    assert most_at_once(Gate(everywhere=4), [None] * 40) == 4
    assert most_at_once(Gate(everywhere=30, per_jump=2), ["bastion"] * 20) == 2
    assert most_at_once(Gate(everywhere=3, per_jump=2), ["a", "b", None] * 10) == 3


def test_who_is_stuck_inside_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0.1)
    door = Gate(everywhere=1)
    with door.place(None), ThreadPoolExecutor(1) as pool:
        assert pool.submit(most_at_once, door, [None]).result(5) == 1
    # Whoever went past took no place, and gave none back.
    monkeypatch.setattr(gate, "PATIENCE_S", 60.0)
    assert most_at_once(door, [None] * 10) == 1


def test_servers_that_say_nothing_hold_no_place(
    ssh_hosts: Lab, fleet_of: Callable[..., FleetSpec], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 60.0)
    [good] = ssh_hosts(1)
    with ExitStack() as stack:
        entries: list[dict[str, Any]] = [good.entry()]
        for number in range(gate.HANDSHAKES + 4):
            entry: dict[str, Any] = good.entry(name=f"mute{number}")
            entry["ssh"] = {**entry["ssh"], "port": stack.enter_context(mute()), "connect_timeout": "4s"}
            entries.append(entry)
        machines = stack.enter_context(Machines(fleet_of(entries), state))
        pool = stack.enter_context(ThreadPoolExecutor(len(entries)))

        def reach(name: str) -> str:
            try:
                machines.machine(name).reach()
            except HostFailure as failure:
                return failure.kind
            return "reached"

        silent = [pool.submit(reach, str(entry["name"])) for entry in entries[1:]]
        time.sleep(0.5)
        began = time.monotonic()
        assert reach("h1") == "reached"
        assert time.monotonic() - began < 3.5, "it did not wait for the others"
        assert {one.result() for one in silent} == {"timeout"}


def test_all_hosts_behind_a_jump_host_log_in_there_once(
    ssh_hosts: Lab, fleet_of: Callable[..., FleetSpec], state: Path
) -> None:
    bastion, *inner = ssh_hosts(9)
    bastion.max_startups = "1:100:1"  # a second one who is not logged in yet is hung up on
    bastion.restart_sshd()
    entries = [bastion.entry()]
    for host in inner:
        entry: dict[str, Any] = host.entry()
        entries.append({**entry, "ssh": {**entry["ssh"], "jump": "h1", "connect_timeout": "20s"}})
    with Machines(fleet_of(entries), state) as machines, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda host: machines.machine(host.name).reach(), inner))
    assert bastion.log().count("Accepted publickey") == 1
    assert "MaxStartups" not in bastion.log()
