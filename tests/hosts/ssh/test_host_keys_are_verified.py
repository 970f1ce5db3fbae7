"""Who answers is checked before anything is sent: unknown, changed and revoked host keys; trust on first use."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable

import pytest
from fleet_lab.host import make_key, program
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh import keys
from fleet_controller.spec import FleetSpec

MachinesOf = Callable[..., Machines]


def refusal(machines: Machines, name: str = "h1") -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        machines.machine(name).probe()
    return caught.value


def logins(lab: Lab) -> int:
    """How often a client got so far as to show a key; failed or not."""
    text = lab.hosts[0].log()
    return text.count("Accepted publickey") + text.count("Failed publickey") + text.count("userauth")


def test_an_unknown_key_is_refused_with_the_line_that_adds_it(
    ssh_hosts: Lab, machines_of: MachinesOf
) -> None:
    [host] = ssh_hosts(1, known=False)
    machines = machines_of([host])
    failure = refusal(machines)
    assert failure.kind == "host-key-unknown"
    assert failure.unreachable
    line = f"ssh-keyscan -p {host.port} -t ed25519 {host.address} >> {host.known_hosts}"
    assert line in failure.next_step
    assert "fleetctl up --trust-on-first-use" in failure.next_step
    assert ssh_hosts.known_hosts.read_text() == "", "never added on its own"
    assert logins(ssh_hosts) == 0
    # The line does what it promises.
    subprocess.run(line, shell=True, check=True, stderr=subprocess.DEVNULL)
    assert machines.machine("h1").probe().boot_id


def test_a_changed_key_is_refused_and_the_old_line_is_named(ssh_hosts: Lab, machines_of: MachinesOf) -> None:
    [host] = ssh_hosts(1)
    before = "# first line\n" + ssh_hosts.known_hosts.read_text()
    ssh_hosts.known_hosts.write_text(before)
    host.rekey()
    machines = machines_of([host])
    failure = refusal(machines)
    assert failure.kind == "host-key-changed"
    assert f"{host.known_hosts}:2" in failure.cause
    forget = f"ssh-keygen -R '{host.known_name}' -f {host.known_hosts}"
    assert forget in failure.next_step
    assert ssh_hosts.known_hosts.read_text() == before
    assert logins(ssh_hosts) == 0
    assert keys.trust(machines._spec, ["h1"]) == [], "trust on first use never replaces a key"
    old = " ".join(ssh_hosts.known_hosts.read_text().split()[-2:])
    shown = subprocess.run(
        [program("ssh-keygen"), "-lf", "-"], input=old.encode(), check=True, capture_output=True
    )
    new = subprocess.run(
        [program("ssh-keygen"), "-lf", str(host.folder / "host_key.pub")], check=True, capture_output=True
    )
    for fingerprint in (shown.stdout.split()[1], new.stdout.split()[1]):
        assert fingerprint.decode() in failure.cause
    subprocess.run(forget, shell=True, check=True, capture_output=True)
    failure = refusal(machines)
    assert failure.kind == "host-key-unknown"
    scan = next(part for part in failure.next_step.split("`") if part.startswith("ssh-keyscan"))
    subprocess.run(scan, shell=True, check=True, stderr=subprocess.DEVNULL)
    assert machines.machine("h1").probe().boot_id, "both lines do what they promise"


def test_a_revoked_key_is_refused_even_where_another_line_knows_it(
    ssh_hosts: Lab, machines_of: MachinesOf
) -> None:
    [host] = ssh_hosts(1)
    key = " ".join((host.folder / "host_key.pub").read_text().split()[:2])
    with ssh_hosts.known_hosts.open("a") as file:
        file.write(f"junk\n@revoked * {key}\n")
    machines = machines_of([host])
    failure = refusal(machines)
    assert failure.kind == "host-key-revoked"
    assert f"{host.known_hosts}:3" in failure.cause
    assert logins(ssh_hosts) == 0
    assert keys.unknown(machines._spec, ["h1"]) == []


def test_a_certificate_authority_alone_is_refused_with_a_reason(
    ssh_hosts: Lab, machines_of: MachinesOf
) -> None:
    [host] = ssh_hosts(1, known=False)
    authority = make_key(ssh_hosts.folder / "ca").with_suffix(".pub").read_text()
    ssh_hosts.known_hosts.write_text(f"@cert-authority {host.known_name} {authority}")
    failure = refusal(machines_of([host]))
    assert failure.kind == "host-key-unknown"
    assert "certificate authority" in failure.cause


def test_a_hashed_name_and_another_kind_of_key_are_found(ssh_hosts: Lab, machines_of: MachinesOf) -> None:
    [host] = ssh_hosts(1)
    # The server has an ed25519 key too, and would show that first; the known one is ECDSA.
    make_key(host.folder / "host_ecdsa", kind="ecdsa")
    host.extra_config = f"HostKey {host.folder}/host_ecdsa"
    host.restart_sshd()
    key = " ".join((host.folder / "host_ecdsa.pub").read_text().split()[:2])
    ssh_hosts.known_hosts.write_text(f"{host.known_name} {key}\n")
    subprocess.run(
        [program("ssh-keygen"), "-q", "-H", "-f", str(host.known_hosts)], check=True, capture_output=True
    )
    assert machines_of([host]).machine("h1").probe().boot_id


def test_trust_on_first_use_notes_down_new_keys_once(ssh_hosts: Lab, machines_of: MachinesOf) -> None:
    hosts = ssh_hosts(2, known=False)
    folder = ssh_hosts.folder / "fresh" / "ssh"
    machines = machines_of(hosts, ssh={"known_hosts": str(folder / "known_hosts")})
    spec: FleetSpec = machines._spec
    found = keys.unknown(spec, ["h1", "h2"])
    assert [key.host for key in found] == ["h1", "h2"]
    assert all(key.fingerprint.startswith("SHA256:") for key in found)
    assert not folder.exists(), "looking writes nothing"
    assert keys.trust(spec, ["h1", "h2"]) == found
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "known_hosts").stat().st_mode) == 0o600
    assert (folder / "known_hosts").read_text().count("\n") == 2
    assert keys.trust(spec, ["h1", "h2"]) == []
    assert machines.machine("h2").probe().boot_id


def test_a_key_is_added_on_a_line_of_its_own(ssh_hosts: Lab, machines_of: MachinesOf) -> None:
    [host] = ssh_hosts(1, known=False)
    ssh_hosts.known_hosts.write_text("# no line end")
    machines = machines_of([host])
    keys.trust(machines._spec, ["h1"])
    assert ssh_hosts.known_hosts.read_text() == f"# no line end\n{host.key_line()}\n"
    assert machines.machine("h1").probe().boot_id


@pytest.mark.machine
def test_a_host_that_is_off_does_not_stop_the_others(ssh_hosts: Lab, machines_of: MachinesOf) -> None:
    hosts = ssh_hosts(2, known=False)
    hosts[0].kill()
    found = keys.trust(machines_of(hosts, ssh={"connect_timeout": "1s"})._spec, ["h1", "h2"])
    assert [key.host for key in found] == ["h2"]
