"""Host certificates against real sshd; the real `ssh` is asked the same question and must give the same answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_lab.host import Host, make_key, program
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh import keys

MachinesOf = Callable[..., Machines]


@pytest.fixture
def authority(ssh_hosts: Lab) -> Path:
    return make_key(ssh_hosts.folder / "ca")


def certify(host: Host, authority: Path, *options: str, key: str = "host_key") -> None:
    """Give the host a certificate for one of its keys, and have its sshd show it."""
    argv = [program("ssh-keygen"), "-q", "-s", str(authority), "-I", f"id of {host.name}", *options]
    subprocess.run([*argv, str(host.folder / f"{key}.pub")], check=True, stdin=subprocess.DEVNULL)
    host.extra_config = f"HostKey {host.folder}/{key}\nHostCertificate {host.folder}/{key}-cert.pub"
    host.restart_sshd()


def believe(host: Host, authority: Path, more: str = "", names: str = "127.0.0.*") -> None:
    public = " ".join(authority.with_suffix(".pub").read_text().split()[:2])
    host.known_hosts.write_text(f"@cert-authority {names},[127.0.0.1]:* {public}\n{more}")


def ssh_gets_in(host: Host) -> bool:
    """What OpenSSH's own client says to the same known_hosts."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(host.known_hosts),
        "GlobalKnownHostsFile": "none",
        "IdentityAgent": "none",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    argv = [
        program("ssh"),
        "-F",
        "none",
        *words,
        "-i",
        str(host.client_key),
        "-p",
        str(host.port),
        host.address,
    ]
    return subprocess.run([*argv, "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def refusal(machines: Machines) -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        machines.machine("h1").probe()
    return caught.value


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_with_a_certificate_of_a_known_authority_is_trusted(
    kind: str, ssh_hosts: Lab, machines_of: MachinesOf
) -> None:
    [host] = ssh_hosts(1, known=False)
    authority = make_key(ssh_hosts.folder / "ca", kind=kind)
    make_key(host.folder / "other_key", kind=kind)
    certify(host, authority, "-h", "-n", "127.0.0.1", key="other_key")
    believe(host, authority)
    machines = machines_of([host])
    assert machines.machine("h1").probe().boot_id
    assert ssh_gets_in(host)
    assert keys.unknown(machines._spec, ["h1"]) == [], "nothing is to be noted down for it"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-h", "-n", "10.9.9.9"], "it is for 10.9.9.9, not for 127.0.0.1"),
        (["-h", "-n", "127.0.0.*"], "it is for 127.0.0.*, not for 127.0.0.1"),
        (["-h", "-V", "20200101:20210101"], "it has expired"),
        (["-h", "-V", "20900101:20910101"], "it is not valid yet"),
    ],
)
def test_a_certificate_that_does_not_hold_here_is_refused_with_the_reason(
    options: list[str], says: str, ssh_hosts: Lab, machines_of: MachinesOf, authority: Path
) -> None:
    [host] = ssh_hosts(1, known=False)
    certify(host, authority, *options)
    believe(host, authority)
    machines = machines_of([host])
    failure = refusal(machines)
    assert failure.kind == "host-key-unknown"
    assert says in failure.cause
    assert not ssh_gets_in(host)
    believe(host, authority, host.key_line())
    assert machines.machine("h1").probe().boot_id, "its plain key may be known all the same"
    assert ssh_gets_in(host)


def test_a_certificate_without_names_is_for_every_host(
    ssh_hosts: Lab, machines_of: MachinesOf, authority: Path
) -> None:
    [host] = ssh_hosts(1, known=False)
    certify(host, authority, "-h")
    believe(host, authority)
    assert machines_of([host]).machine("h1").probe().boot_id
    assert ssh_gets_in(host)


def test_a_certificate_of_another_authority_is_no_better_than_none(
    ssh_hosts: Lab, machines_of: MachinesOf, authority: Path
) -> None:
    [host] = ssh_hosts(1, known=False)
    certify(host, make_key(ssh_hosts.folder / "strange"), "-h", "-n", "127.0.0.1")
    believe(host, authority)
    failure = refusal(machines_of([host]))
    assert failure.kind == "host-key-unknown"
    assert "not among the known ones" in failure.cause
    assert not ssh_gets_in(host)


def test_an_authority_vouches_for_no_name_that_it_was_not_noted_for(
    ssh_hosts: Lab, machines_of: MachinesOf, authority: Path
) -> None:
    [host] = ssh_hosts(1, known=False)
    certify(host, authority, "-h", "-n", "127.0.0.1")
    public = " ".join(authority.with_suffix(".pub").read_text().split()[:2])
    host.known_hosts.write_text(f"@cert-authority *.example.org {public}\n")
    assert refusal(machines_of([host])).kind == "host-key-unknown"
    assert not ssh_gets_in(host)


@pytest.mark.parametrize("what", ["authority", "key"])
def test_what_is_revoked_is_not_vouched_for(
    what: str, ssh_hosts: Lab, machines_of: MachinesOf, authority: Path
) -> None:
    [host] = ssh_hosts(1, known=False)
    certify(host, authority, "-h", "-n", "127.0.0.1")
    path = authority if what == "authority" else host.folder / "host_key"
    believe(host, authority, f"@revoked * {path.with_suffix('.pub').read_text()}\n{host.key_line()}\n")
    failure = refusal(machines_of([host]))
    assert failure.kind == "host-key-revoked"
    assert f"{host.known_hosts}:2" in failure.cause
    assert not ssh_gets_in(host)


def test_a_host_that_is_rekeyed_and_certified_again_needs_nothing(
    ssh_hosts: Lab, machines_of: MachinesOf, authority: Path
) -> None:
    [host] = ssh_hosts(1, known=False)
    certify(host, authority, "-h", "-n", "127.0.0.1")
    believe(host, authority)
    machines = machines_of([host])
    assert machines.machine("h1").probe().boot_id
    make_key(host.folder / "host_key")
    certify(host, authority, "-h", "-n", "127.0.0.1")
    assert machines.machine("h1").probe().boot_id
