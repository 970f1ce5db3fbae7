"""A user who is not root, and a real sudo: without a password, with one, with a wrong one, and not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fleet_lab import accounts
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.spec import FleetSpec

pytestmark = pytest.mark.skipif(bool(accounts.missing()), reason=accounts.missing())

PASSWORD = "canary 'pass\\word\" $(x)"
Reached = Callable[..., Machines]


@pytest.fixture
def reached(host: Host, fleet_of: Callable[..., FleetSpec], state: Path) -> Iterator[Reached]:
    """`reached(sudo, password)`: the host with such a user, and what the command line was given."""
    with ExitStack() as stack:

        def make(sudo: accounts.Sudo, password: str | None) -> Machines:
            accounts.give_account(host, PASSWORD, sudo)
            given = SudoPassword() if password is None else SudoPassword(password)
            return stack.enter_context(
                Machines(fleet_of([host.entry(install={"interpreter": "python3"})]), state, given)
            )

        yield make


def as_root(machines: Machines, *argv: str) -> tuple[int | None, str]:
    heard: list[bytes] = []
    status = machines.machine("h1").execute(
        argv or ("id", "-u"), heard.append, heard.append, limit_s=20, sudo=True
    )
    return status, b"".join(heard).decode()


def refusal(machines: Machines) -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        as_root(machines)
    assert caught.value.kind == "sudo"
    return caught.value


def test_what_needs_no_root_is_done_without_sudo(reached: Reached) -> None:
    machines = reached("none", None)
    assert machines.machine("h1").probe().boot_id
    heard: list[bytes] = []
    assert machines.machine("h1").execute(["id", "-u"], heard.append, heard.append, limit_s=20) == 0
    assert b"".join(heard) == b"64321\n"


def test_a_user_without_sudo_is_enough_to_serve(reached: Reached, stub_release: Release) -> None:
    machines = reached("none", None)
    machine = machines.machine("h1")
    machine.install(stub_release)
    run = machine.start(stub_release, machines._spec.models, "a-1", "token")
    agent = machine.probe().agent
    assert agent is not None
    assert agent.alive
    assert Path(f"/proc/{run.pid}").stat().st_uid == accounts.UID
    assert machine.stop(grace_s=5.0).was_running


@pytest.mark.parametrize(
    ("sudo", "password"), [("nopasswd", None), ("password", PASSWORD), ("nopasswd", PASSWORD)]
)
def test_a_user_who_may_becomes_root(sudo: accounts.Sudo, password: str | None, reached: Reached) -> None:
    assert as_root(reached(sudo, password)) == (0, "0\n")


def test_a_password_that_was_not_given_is_asked_for(reached: Reached) -> None:
    failure = refusal(reached("password", None))
    assert "asks for a password" in failure.cause
    assert "--ask-sudo-password" in failure.next_step


def test_a_wrong_password_is_tried_once(reached: Reached, host: Host) -> None:
    failure = refusal(reached("password", "wrong"))
    assert "does not take the password" in failure.cause
    assert "wrong" not in str(failure).replace("does not take", "")


def test_a_user_who_may_not_is_told_so(reached: Reached) -> None:
    failure = refusal(reached("none", PASSWORD))
    assert "sudoers" in str(failure)


def test_the_password_is_seen_nowhere_on_the_host(reached: Reached, host: Host) -> None:
    machines = reached("password", PASSWORD)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(as_root, machines, "sleep", "0.7")
        looks = 0
        while not work.done():
            # The host's processes are among this machine's, and we are root.
            for name in ("cmdline", "environ"):
                for path in Path("/proc").glob(f"[0-9]*/{name}"):
                    with suppress(OSError):
                        assert b"canary 'pass" not in path.read_bytes(), path
            looks += 1
        assert work.result()[0] == 0
    assert looks > 3
    assert "canary" not in host.log()
    for path in host.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"canary" not in path.read_bytes(), path


def test_a_password_that_comes_later_is_used_then(
    host: Host, fleet_of: Callable[..., FleetSpec], state: Path
) -> None:
    accounts.give_account(host, PASSWORD, "password")
    later = SudoPassword()
    with Machines(fleet_of([host.entry()]), state, later) as machines:
        refusal(machines)
        later.give(PASSWORD)
        assert as_root(machines) == (0, "0\n")
