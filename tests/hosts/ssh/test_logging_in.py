"""Which key opens the door, and what is said when none does. Nothing ever prompts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_lab.host import Host, make_key, program
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines

MachinesOf = Callable[..., Machines]


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def agent(ssh_hosts: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real ssh-agent, empty."""
    path = ssh_hosts.folder / "agent"
    process = subprocess.Popen([program("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    while not path.exists():
        assert process.poll() is None
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield
    process.terminate()
    process.wait()


def refusal(machines: Machines) -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        machines.machine("h1").probe()
    return caught.value


def test_a_key_that_the_host_does_not_accept_is_named(
    host: Host, machines_of: MachinesOf, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "other")
    machines = machines_of([host], ssh={"identity_file": str(key)})
    failure = refusal(machines)
    assert failure.kind == "auth"
    assert failure.unreachable
    assert str(key) in failure.cause
    assert "SHA256:" in failure.cause
    assert f"login of {host.user}" in failure.cause
    assert "authorized_keys" in failure.next_step


def test_a_refused_login_is_not_repeated_until_something_changed(
    host: Host, machines_of: MachinesOf, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "other")
    machines = machines_of([host], ssh={"identity_file": str(key)})
    for _ in range(5):
        assert refusal(machines).kind == "auth"
    assert host.log().count("Connection from") == 2, "one greeting at the start, one login"
    key.write_bytes(host.client_key.read_bytes())
    assert machines.machine("h1").probe().boot_id


def test_a_user_that_the_host_does_not_know(host: Host, machines_of: MachinesOf) -> None:
    failure = refusal(machines_of([host], ssh={"user": "nosuchuser"}))
    assert failure.kind == "auth"
    assert "nosuchuser" in failure.cause


def test_no_password_is_tried_where_keys_are_not_allowed(host: Host, machines_of: MachinesOf) -> None:
    host.extra_config = "PubkeyAuthentication no"
    host.restart_sshd()
    failure = refusal(machines_of([host]))
    assert failure.kind == "auth"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist"), (b"not a key\n", "is not a private key"), (b"", "is not a private key")],
)
def test_a_key_file_that_cannot_be_used(
    content: bytes | None, says: str, host: Host, machines_of: MachinesOf, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    failure = refusal(machines_of([host], ssh={"identity_file": str(key)}))
    assert failure.kind == "identity"
    assert f"{key} {says}" in failure.cause
    assert "userauth" not in host.log()


def test_a_locked_key_says_how_to_unlock_it(host: Host, machines_of: MachinesOf, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="correct horse")
    failure = refusal(machines_of([host], ssh={"identity_file": str(key)}))
    assert failure.kind == "identity"
    assert "passphrase" in failure.cause
    assert f"ssh-add {key}" in failure.next_step


def test_a_locked_key_that_the_agent_holds_is_used(
    host: Host, machines_of: MachinesOf, tmp_path: Path, agent: None
) -> None:
    key = make_key(tmp_path / "locked", passphrase="correct horse")
    (host.folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    ask = tmp_path / "askpass"
    ask.write_text("#!/bin/sh\necho correct horse\n")
    ask.chmod(0o700)
    env = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run([program("ssh-add"), "-q", str(key)], env=env, check=True, stdin=subprocess.DEVNULL)
    assert machines_of([host], ssh={"identity_file": str(key)}).machine("h1").probe().boot_id


def test_without_a_key_file_the_agent_and_the_usual_files_are_tried(
    host: Host, machines_of: MachinesOf, tmp_path: Path, agent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    subprocess.run([program("ssh-add"), "-q", str(make_key(tmp_path / "stranger"))], check=True)
    machines = machines_of([host], ssh={"identity_file": None})
    failure = refusal(machines)
    assert failure.kind == "auth"
    assert "stranger in the SSH agent" in failure.cause
    machines = machines_of([host], ssh={"identity_file": None})
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(host.client_key.read_bytes())
    assert machines.machine("h1").probe().boot_id


def test_no_key_at_all(
    host: Host, machines_of: MachinesOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    failure = refusal(machines_of([host], ssh={"identity_file": None}))
    assert failure.kind == "identity"
    assert "ssh-keygen -t ed25519" in failure.next_step


def test_old_ciphers_and_macs_are_not_used(host: Host, machines_of: MachinesOf) -> None:
    host.extra_config = "Ciphers aes256-cbc\nMACs hmac-sha1"
    host.restart_sshd()
    failure = refusal(machines_of([host]))
    assert failure.kind == "protocol"
    assert "no algorithm in common" in failure.cause
