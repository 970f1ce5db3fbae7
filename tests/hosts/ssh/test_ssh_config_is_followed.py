"""~/.ssh/config: what it says of a host holds as it does for `ssh`, and fleet.yaml goes before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host, make_key
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh.connection import SshConnection
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.spec import FleetSpec

FleetOf = Callable[..., FleetSpec]
Configured = Callable[..., FleetSpec]


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def configured(fleet_of: FleetOf, tmp_path: Path) -> Configured:
    """`configured(text, {address: ssh keys})`: hosts h1, h2, ... for whom `text` is the ~/.ssh/config."""

    def make(text: str, hosts: dict[str, dict[str, Any]]) -> FleetSpec:
        path = tmp_path / "ssh_config"
        path.write_text(text)
        path.chmod(0o600)
        entries = [
            {
                "name": f"h{number}",
                "address": address,
                "ssh": {"config": str(path), **ssh},
                "agent": {"port": 0},
            }
            for number, (address, ssh) in enumerate(hosts.items(), 1)
        ]
        return fleet_of(entries)

    return make


def block(name: str, host: Host, *more: str) -> str:
    """What an operator would have in his file for a host of the lab."""
    lines = [
        f"Host {name}",
        f"HostName {host.address}",
        f"Port {host.port}",
        f"User {host.user}",
        f"IdentityFile {host.client_key}",
        f"UserKnownHostsFile {host.known_hosts}",
        *more,
    ]
    return "\n  ".join(lines) + "\n"


def connection(spec: FleetSpec, name: str = "h1") -> SshConnection:
    return Connections(spec).to_host(name)


def refusal(spec: FleetSpec, name: str = "h1") -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        connection(spec, name)
    return caught.value


def test_a_host_is_reached_by_what_the_file_says_alone(
    host: Host, configured: Configured, state: Path
) -> None:
    with Machines(configured(block("gpu-a", host), {"gpu-a": {}}), state) as machines:
        assert machines.machine("h1").probe().boot_id


def test_fleet_yaml_goes_before_the_file_and_the_file_before_defaults(configured: Configured) -> None:
    text = """
Host gpu-*
  HostName 10.0.0.7
  User bob
  Port 2222
  IdentityFile ~/one
  IdentityFile /keys/%h-%r
  ConnectTimeout 3
  ServerAliveInterval 7
  UserKnownHostsFile /kh/1 /kh/2
  GlobalKnownHostsFile none
  IdentitiesOnly yes
  IdentityAgent /run/agent-%r
  HostKeyAlias Rack
"""
    own = {"user": "ops", "port": 22, "identity_file": "/keys/own", "connect_timeout": "9s", "keepalive": 0}
    spec = configured(text, {"gpu-a": {}, "gpu-b": {**own, "known_hosts": "/kh/own"}, "other": {}})
    said, ours, other = (connection(spec, name).server for name in ("h1", "h2", "h3"))
    assert (said.address, said.user, said.port) == ("10.0.0.7", "bob", 2222)
    assert said.keys.files == (Path.home() / "one", Path("/keys/10.0.0.7-bob"))
    assert (said.keys.only, said.keys.required, said.keys.agent) == (True, False, "/run/agent-bob")
    assert said.known_hosts == (Path("/kh/1"), Path("/kh/2"))
    assert (said.known_names, said.principal) == (("rack",), "rack")
    assert (said.connect_timeout, said.keepalive) == (3.0, 7.0)
    assert (ours.address, ours.user, ours.port) == ("10.0.0.7", "ops", 22)
    assert (ours.keys.files, ours.keys.required) == ((Path("/keys/own"),), True)
    assert ours.known_hosts == (Path("/kh/own"),)
    assert (ours.connect_timeout, ours.keepalive) == (9.0, 0.0)
    assert (other.address, other.port, other.keys.files) == ("other", 22, ())
    assert (other.connect_timeout, other.keepalive, other.keys.only) == (10.0, 15.0, False)


def test_match_include_and_the_order_of_the_rules(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host gpu-b\n  Port 3333\n")
    text = f"""
Include {tmp_path}/more
Host gpu-a
  HostName inner-a
Match host inner-*
  User inside
Match originalhost gpu-b user ops
  User never
Match exec "test %n = gpu-b"
  ServerAliveInterval 11
Match final host *.example.org
  Port 4444
Host gpu-* !gpu-c
  Port 2222
Host *
  User everyone
"""
    spec = configured(text, {"gpu-a": {}, "gpu-b": {}, "gpu-c": {}, "x.example.org": {}})
    found = [connection(spec, f"h{number}").server for number in range(1, 5)]
    assert [one.user for one in found] == ["inside", "everyone", "everyone", "everyone"]
    assert [one.port for one in found] == [2222, 3333, 22, 4444]
    assert [one.keepalive for one in found] == [15.0, 11.0, 15.0, 15.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Host a\n  Prot 22\n", "line 2: Bad configuration option: prot"),
        ("Host a\n  Port many\n", "line 2: "),
        ("Match nonsense\n", "line 1: "),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    text: str, says: str, configured: Configured, tmp_path: Path
) -> None:
    failure = refusal(configured(text, {"gpu-a": {}}))
    assert failure.kind == "config"
    assert f"{tmp_path}/ssh_config" in failure.cause
    assert says in failure.cause
    assert '"ssh: {config: none}"' in failure.next_step
    assert connection(configured(text, {"gpu-a": {"config": "none"}})).server.port == 22


def test_a_file_that_others_may_write_is_not_read(configured: Configured, tmp_path: Path) -> None:
    spec = configured("Host *\n  User evil\n", {"gpu-a": {}})
    (tmp_path / "ssh_config").chmod(0o666)
    failure = refusal(spec)
    assert failure.kind == "config"
    assert f"chmod 600 {tmp_path}/ssh_config" in failure.next_step


def test_a_machine_without_ssh_says_so(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = configured("Host *\n", {"gpu-a": {}})
    monkeypatch.setenv("PATH", "/nowhere")
    failure = refusal(spec)
    assert failure.kind == "config"
    assert "Install openssh-client" in failure.next_step


def test_a_chain_of_two_jump_hosts_with_their_own_rules(
    ssh_hosts: Lab, configured: Configured, state: Path
) -> None:
    a, b, c = ssh_hosts(3)
    text = block("outer", a) + block("inner", b, "ProxyJump outer") + block("gpu-a", c, "ProxyJump inner")
    with Machines(configured(text, {"gpu-a": {}}), state) as machines:
        assert machines.machine("h1").probe().boot_id
    assert [host.log().count("Accepted publickey") for host in (a, b, c)] == [1, 1, 1]


def test_a_chain_in_one_line(ssh_hosts: Lab, configured: Configured, state: Path) -> None:
    a, b, c = ssh_hosts(3)
    text = block("outer", a) + block("inner", b) + block("gpu-a", c, "ProxyJump outer,inner")
    with Machines(configured(text, {"gpu-a": {}}), state) as machines:
        assert machines.machine("h1").probe().boot_id


def test_fleet_yaml_says_another_way(configured: Configured) -> None:
    text = "Host gpu-*\n  ProxyJump bastion\n"
    spec = configured(text, {"gpu-a": {"jump": None}, "gpu-b": {"jump": "x@other:2200"}})
    assert connection(spec, "h1").jump is None
    way = connection(spec, "h2")
    assert way.jump is not None
    assert (way.jump.server.address, way.jump.server.user, way.jump.server.port) == ("other", "x", 2200)


@pytest.mark.parametrize(
    "text",
    [
        "Host a\n  ProxyJump b\nHost b\n  ProxyJump c\nHost c\n  ProxyJump a\n",
        "Host bastion\n  HostName 10.0.0.1\nHost *\n  ProxyJump bastion\n",  # OpenSSH goes in circles here too
        "Host *\n  ProxyJump bastion\n",
    ],
)
def test_jumps_in_a_circle_are_refused(text: str, configured: Configured) -> None:
    failure = refusal(configured(text, {"a": {}}))
    assert failure.kind == "config"
    assert "circle" in failure.cause or "jumphost loop" in failure.cause


def test_a_bastion_for_all_but_itself(configured: Configured) -> None:
    way = connection(configured("Host * !bastion\n  ProxyJump bastion\n", {"gpu-a": {}}))
    assert way.jump is not None
    assert (way.jump.server.address, way.jump.jump) == ("bastion", None)


def test_a_proxy_command_is_named(configured: Configured) -> None:
    text = "Host gpu-a\n  ProxyCommand nc %h %p\nHost gpu-b\n  ProxyCommand none\n"
    spec = configured(text, {"gpu-a": {}, "gpu-b": {}})
    failure = refusal(spec)
    assert failure.kind == "config"
    assert "nc gpu-a 22" in failure.cause
    assert connection(spec, "h2").jump is None


def test_key_files_that_are_not_there_are_passed_over(
    host: Host, configured: Configured, state: Path, tmp_path: Path
) -> None:
    text = block("gpu-a", host).replace("IdentityFile", f"IdentityFile {tmp_path}/none\n  IdentityFile")
    with Machines(configured(text, {"gpu-a": {}}), state) as machines:
        assert machines.machine("h1").probe().boot_id


def test_identities_only_leaves_the_agents_other_keys_out(
    host: Host, configured: Configured, state: Path, tmp_path: Path, agent: Callable[..., Path]
) -> None:
    stranger = make_key(tmp_path / "stranger")
    path = agent(host.client_key, stranger)
    locked = block("gpu-a", host, f"IdentityAgent {path}", "IdentitiesOnly yes").replace(
        str(host.client_key), str(stranger)
    )
    with Machines(configured(locked, {"gpu-a": {}}), state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1").probe()
    assert caught.value.kind == "auth"
    with Machines(configured(locked.replace("Only yes", "Only no"), {"gpu-a": {}}), state) as machines:
        assert machines.machine("h1").probe().boot_id, "its IdentityAgent holds the right one"


def test_what_the_file_runs_sees_our_environment_without_the_passwords_of_power_controls(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_BMC", "cnrybmc")
    monkeypatch.setenv("CANARY_OTHER", "for a Match exec of the operator's")
    power = {"driver": "ipmi", "bmc": "10.0.0.9", "user": "root", "password_env": "CANARY_BMC"}
    seen = tmp_path / "seen"
    spec = configured(f'Match exec "env > {seen}"\n  User bob\n', {"gpu-a": {}})
    [host] = spec.hosts
    given = host.power.model_validate({**host.power.model_dump(exclude_unset=True), **power})
    spec = spec.model_copy(update={"hosts": (host.model_copy(update={"power": given}),)})
    assert connection(spec).server.user == "bob"
    text = seen.read_text()
    assert "cnrybmc" not in text and "CANARY_BMC" not in text
    assert "CANARY_OTHER=for a Match exec of the operator's" in text
    assert "\nHOME=" in f"\n{text}" and "\nPATH=" in f"\n{text}"
