"""A host that trusts an authority for its users (TrustedUserCAKeys), and no single key."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
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
def certified(ssh_hosts: Lab, tmp_path: Path) -> Callable[..., tuple[Host, Path]]:
    """`certified(kind)`: a host that takes certificates alone, and a key with one beside it."""

    def make(kind: str = "ed25519", *options: str) -> tuple[Host, Path]:
        [host] = ssh_hosts(1)
        authority, key = make_key(tmp_path / "ca"), make_key(tmp_path / "id", kind=kind)
        argv = [
            program("ssh-keygen"),
            "-q",
            "-s",
            str(authority),
            "-I",
            "me",
            "-n",
            host.user,
            *options,
            f"{key}.pub",
        ]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        (host.folder / "authorized_keys").write_text("")
        host.extra_config = f"TrustedUserCAKeys {authority}.pub"
        host.restart_sshd()
        return host, key

    return make


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_certificate_beside_the_key_is_shown(
    kind: str, certified: Callable[..., tuple[Host, Path]], machines_of: MachinesOf
) -> None:
    host, key = certified(kind)
    assert machines_of([host], ssh={"identity_file": str(key)}).machine("h1").probe().boot_id
    assert "Accepted certificate ID" in host.log()


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_the_certificate_in_the_agent_is_shown(
    kind: str,
    certified: Callable[..., tuple[Host, Path]],
    machines_of: MachinesOf,
    agent: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, key = certified(kind)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent(key)))
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    assert machines_of([host], ssh={"identity_file": None}).machine("h1").probe().boot_id
    assert "Accepted certificate ID" in host.log()


def test_one_that_has_expired_leaves_the_key_itself(
    certified: Callable[..., tuple[Host, Path]], machines_of: MachinesOf
) -> None:
    host, key = certified("ed25519", "-V", "20200101:20210101")
    machines = machines_of([host], ssh={"identity_file": str(key)})
    with pytest.raises(HostFailure) as caught:
        machines.machine("h1").probe()
    assert caught.value.kind == "auth"
    assert f"with the certificate {key}-cert.pub" in caught.value.cause
    (host.folder / "authorized_keys").write_text(Path(f"{key}.pub").read_text())
    assert machines_of([host], ssh={"identity_file": str(key)}).machine("h1").probe().boot_id
