"""Where systemd runs the agent is one of its units: restarted, bounded, shut in, and gone as a whole."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fleet_lab.systemd import SUDO_PASSWORD, SystemdHost

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import AgentProcess, Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.spec import FleetSpec
from fleet_wire.agent import RunFile

pytestmark = [pytest.mark.netns, pytest.mark.systemd]

UNIT = "fleetctl-test-h1.service"
FleetOf = Callable[..., FleetSpec]


class Hand:
    """The host, with the stand-in for the agent installed by one of its users."""

    def __init__(self, machines: Machines, release: Release, host: SystemdHost) -> None:
        self.machines = machines
        self.machine: Machine = machines.machine("h1")
        self.release = release
        self.host = host

    def start(self, action: str = "a1") -> RunFile:
        return self.machine.start(self.release, self.machines._spec.models, action, "token")

    def shown(self, *properties: str, manager: tuple[str, ...] = ()) -> dict[str, str]:
        said = self.host.run("systemctl", *manager, "show", "-p", ",".join(properties), UNIT).stdout
        return dict(line.split("=", 1) for line in said.splitlines())

    def agent(self) -> AgentProcess:
        found = self.machine.probe().agent
        assert found is not None
        return found

    def commands(self) -> list[str]:
        return [process.command for process in self.host.processes()]


@pytest.fixture
def hand(
    booted: SystemdHost, stub_release: Release, fleet_of: FleetOf, tmp_path: Path
) -> Iterator[Callable[..., Hand]]:
    """`hand("ops", agent={...}, option=...)`: somebody's agent, which will behave so."""
    made: list[Hand] = []

    def make(
        user: str = "ops",
        agent: dict[str, object] | None = None,
        password: str | None = None,
        **options: object,
    ) -> Hand:
        booted.login(user)
        entry = booted.entry(
            agent={"port": 0, "drain_timeout": "5s", "start_timeout": "10s", **(agent or {})}
        )
        machines = Machines(fleet_of([entry], **options), tmp_path / "state", SudoPassword(password))
        one = Hand(machines, stub_release, booted)
        one.machine.install(stub_release)
        made.append(one)
        return one

    yield make
    for one in made:
        with suppress(HostFailure):
            one.machine.stop(0.1)
        one.machines.close()


def soon(true: Callable[[], bool], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


@pytest.mark.parametrize("user", ["root", "ops"])
def test_a_unit_of_the_system_runs_as_the_user_who_logs_in(user: str, hand: Callable[..., Hand]) -> None:
    one = hand(user, agent={"limits": {"cpus": 1.5, "open_files": 4321}})
    run = one.start()
    shown = one.shown(
        "User", "MainPID", "ActiveState", "FragmentPath", "NoNewPrivileges", "ProtectSystem", "UnitFileState"
    )
    assert shown["User"] == user
    assert int(shown["MainPID"]) == run.pid
    assert shown["ActiveState"] == "active"
    assert shown["FragmentPath"] == f"/run/systemd/system/{UNIT}", "gone after a reboot"
    assert (shown["NoNewPrivileges"], shown["ProtectSystem"]) == ("yes", "strict")
    assert shown["UnitFileState"] in ("static", "")
    verified = one.host.run("systemd-analyze", "verify", f"/run/systemd/system/{UNIT}")
    assert (verified.returncode, verified.stderr) == (0, "")
    status = Path(f"/proc/{one.host.outer_pid(run.pid)}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status
    limits = Path(f"/proc/{one.host.outer_pid(run.pid)}/limits").read_text()
    assert "4321" in next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert one.start() == run, "the same action starts nothing twice"
    assert "stub agent a1" in one.machine.tail(20)
    assert "stub agent a1" in one.machine.follow(None).lines
    stopped = one.machine.stop(5)
    assert (stopped.was_running, stopped.killed) == (True, ())
    assert not Path(shown["FragmentPath"]).exists()
    assert one.shown("LoadState")["LoadState"] == "not-found"
    assert one.machine.probe().agent is None


def test_systemd_starts_it_again_after_kill_9_where_it_was(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start()
    assert one.agent().restarts == 0
    one.host.run("kill", "-9", str(run.pid))
    assert soon(lambda: one.agent().pid not in (0, run.pid))
    agent = one.agent()
    assert (agent.alive, agent.port, agent.action_id, agent.restarts) == (True, run.port, "a1", 1)
    assert agent.last_end == "killed by signal 9"
    assert one.start().pid == agent.pid, "this action's agent is found"
    with pytest.raises(HostFailure) as caught:
        one.start("a2")
    assert caught.value.kind == "conflict"
    stopped = one.machine.stop(5)
    assert stopped.was_running
    assert one.machine.probe().agent is None


def test_one_that_uses_more_memory_than_it_may_is_killed_started_again_and_told(
    hand: Callable[..., Hand],
) -> None:
    one = hand(agent={"limits": {"memory": "100MiB"}}, bursts=300)
    if why := one.host.limit_memory():
        pytest.skip(why)
    run = one.start()
    with socket.create_connection(("127.0.0.1", run.port), 10):
        pass
    assert soon(lambda: one.agent().restarts == 1 and one.agent().port == run.port, 30)
    assert soon(lambda: one.agent().pid not in (0, run.pid), 30)
    agent = one.agent()
    assert agent.alive
    assert agent.last_end == "out of memory: the limit agent.limits.memory 100 MiB was reached"
    # the next one ends otherwise, and that is not called so
    one.host.run("kill", "-9", str(agent.pid))
    assert soon(lambda: one.agent().restarts == 2 and one.agent().pid not in (0, agent.pid), 30)
    assert one.agent().last_end == "killed by signal 9"
    assert one.machine.stop(5).was_running
    assert one.host.run("ls", "/home/ops/.fleetctl/test/h1/run/ended").returncode != 0


def test_one_that_ignores_sigterm_is_killed_and_proven_gone(hand: Callable[..., Hand]) -> None:
    one = hand(ignore_term=True)
    run = one.start()
    pid = one.host.outer_pid(run.pid)
    stopped = one.machine.stop(0.5)
    assert stopped.was_running
    assert [f"pid {run.pid} " in name for name in stopped.killed] == [True], stopped.killed
    assert not Path(f"/proc/{pid}").exists()


def test_a_child_that_hid_from_everything_goes_with_the_control_group(hand: Callable[..., Hand]) -> None:
    one = hand(hidden=True)
    one.start()
    assert soon(lambda: any("time.sleep(602)" in command for command in one.commands()))
    assert one.machine.stop(5).was_running
    assert not any("time.sleep(602)" in command for command in one.commands())


def test_an_agent_that_dies_at_once_is_quoted_and_not_tried_for_ever(hand: Callable[..., Hand]) -> None:
    one = hand(crash=True)
    with pytest.raises(HostFailure) as caught:
        one.start()
    assert caught.value.kind == "start"
    assert "no such device: cuda:9" in caught.value.cause
    assert soon(lambda: one.shown("ActiveState")["ActiveState"] in ("inactive", "failed"))


def test_it_writes_only_where_it_may(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start()
    inside = str(run.pid)
    for place, allowed in (
        ("/home/ops/.fleetctl/test/h1/run", True),
        ("/dev/shm", True),
        ("/tmp", True),
        ("/home/ops", False),
        ("/etc", False),
    ):
        done = one.host.run("nsenter", "--target", inside, "--mount", "--", "touch", f"{place}/probe")
        assert (done.returncode == 0) is allowed, (place, done.stderr)
    assert one.host.run("ls", "/tmp/probe").returncode != 0, "its /tmp is its own"
    assert one.host.run("rm", "-f", "/dev/shm/probe").returncode == 0


def test_another_fleets_unit_of_the_same_name_is_not_replaced(hand: Callable[..., Hand]) -> None:
    one = hand("ops")
    run = one.start()
    other = hand("root")
    with pytest.raises(HostFailure) as caught:
        other.start("a2")
    assert caught.value.kind == "conflict"
    assert "/home/ops/.fleetctl/test/h1" in caught.value.cause
    assert one.agent().pid == run.pid
    other.machine.stop(0.1)
    assert one.agent().alive, "what another user's agent is cannot be stopped from here by mistake"


def test_without_sudo_it_is_a_unit_of_the_users_own_systemd(hand: Callable[..., Hand]) -> None:
    hand("plain").host.run("loginctl", "enable-linger", "plain")
    one = hand("plain")
    run = one.start()
    manager = ("--user", "--machine=plain@")
    record = json.loads(one.host.run("cat", "/home/plain/.fleetctl/test/h1/run/supervision.json").stdout)
    assert record == {"kind": "systemd-user"}, manager
    group = one.host.run("cat", f"/proc/{run.pid}/cgroup").stdout
    assert f"user@1002.service/app.slice/{UNIT}" in group
    one.host.run("kill", "-9", str(run.pid))
    assert soon(lambda: one.agent().restarts == 1 and one.agent().pid not in (0, run.pid))
    assert "stub agent a1" in one.machine.tail(50)
    assert one.machine.stop(5).was_running
    assert one.machine.probe().agent is None
    assert one.host.run("ls", f"/run/user/1002/systemd/user/{UNIT}").returncode != 0


def test_without_sudo_and_lingering_it_is_supervised_by_a_process(hand: Callable[..., Hand]) -> None:
    one = hand("plain")
    one.host.run("loginctl", "disable-linger", "plain")
    run = one.start()
    assert any("supervise.py" in command for command in one.commands())
    one.host.run("kill", "-9", str(run.pid))
    assert soon(lambda: one.agent().restarts == 1 and one.agent().pid not in (0, run.pid))
    assert one.machine.stop(5).was_running
    assert not any("supervise.py" in command for command in one.commands())
    with pytest.raises(HostFailure) as caught:
        hand("plain", agent={"supervisor": "systemd"}).start()
    assert caught.value.kind == "sudo"


def test_sudo_with_a_password_is_used_where_it_was_given(hand: Callable[..., Hand]) -> None:
    one = hand("guarded", password=SUDO_PASSWORD)
    run = one.start()
    assert int(one.shown("MainPID")["MainPID"]) == run.pid
    everything = [Path(f"/proc/{process.pid}") for process in one.host.processes()]
    for process in everything:
        with suppress(OSError):
            assert (
                SUDO_PASSWORD.encode()
                not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            )
    assert (
        one.host.run("grep", "-r", SUDO_PASSWORD, "/home/guarded", "/run/systemd", "/var/log").returncode != 0
    )
    assert one.machine.stop(5).was_running
    with pytest.raises(HostFailure) as caught:
        hand("guarded", agent={"supervisor": "systemd"}, password="wrong").start()
    assert caught.value.kind == "sudo"
    assert "does not take the password" in caught.value.cause


def test_after_a_reboot_the_machine_starts_nothing_and_the_controller_does(hand: Callable[..., Hand]) -> None:
    one = hand()
    run = one.start()
    before = one.machine.probe().boot_id
    one.machines.close()
    one.host.reboot()
    again = hand()
    probe = again.machine.probe()
    assert probe.boot_id != before
    assert probe.agent is not None
    assert (probe.agent.alive, probe.agent.rebooted) == (False, True)
    assert not any("fleet_agent" in command for command in again.commands())
    assert again.start("a2").action_id == "a2"
    assert again.agent().pid != 0
    assert run.action_id == "a1"
