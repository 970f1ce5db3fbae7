from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_controller.spec import SpecError, UnknownName, load

Write = Callable[[str], Path]

MODELS = 'models:\n  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}\n'


def fleet(hosts: str, pool_hosts: str = '["*"]', more: str = "", scaling: str = "{}") -> str:
    pools = f"pools:\n  - {{name: default, hosts: {pool_hosts}, models: [tiny], scaling: {scaling}}}\n"
    return f"fleet: demo\nhosts:\n{hosts}{MODELS}{pools}{more}"


def test_ranges_become_hosts_in_order(write: Write) -> None:
    spec = load(write(fleet('  - {name: "gpu-[01:16]", address: "10.0.1.[11:26]", zone: rack-1}\n')))
    assert [host.name for host in spec.hosts] == [f"gpu-{n:02}" for n in range(1, 17)]
    assert [host.address for host in spec.hosts] == [f"10.0.1.{n}" for n in range(11, 27)]
    assert {host.zone for host in spec.hosts} == {"rack-1"}
    assert spec.pool("default").hosts == tuple(host.name for host in spec.hosts)


def test_a_pool_names_hosts_by_name_glob_and_range(write: Write) -> None:
    hosts = '  - {name: "g[1:4]", address: "10.0.0.[1:4]"}\n  - {name: x, address: x.example.com}\n'
    spec = load(write(fleet(hosts, '[x, "g[2:3]", "g*"]')))
    assert spec.pool("default").hosts == ("x", "g2", "g3", "g1", "g4")


def test_a_host_wins_over_defaults_key_by_key(write: Write) -> None:
    defaults = (
        "defaults:\n"
        "  ssh: {user: ops, port: 2222, jump: bastion, connect_timeout: 3s}\n"
        "  agent: {device: cuda, port: 9500}\n"
        "  install: {python: python3.11, interpreter: /opt/python}\n"
    )
    hosts = (
        "  - {name: a, address: 10.0.0.1, ssh: {user: root, jump: null}, agent: {port: 1}}\n"
        "  - {name: b, address: 10.0.0.2}\n"
        "  - {name: bastion, address: 10.0.0.9}\n"
        "  - {name: l, address: local}\n"
    )
    spec = load(write(fleet(hosts, more=defaults)))
    a, b, bastion, local = spec.hosts
    assert (a.ssh.user, a.ssh.port, a.ssh.jump, a.ssh.connect_timeout) == ("root", 2222, None, 3.0)
    assert (a.agent.device, a.agent.port) == ("cuda", 1)
    assert (b.ssh.user, b.ssh.jump, b.agent.port, b.install.python) == ("ops", "bastion", 9500, "python3.11")
    assert bastion.ssh.jump is None  # it is not reached through itself
    assert (local.agent.device, local.agent.port, local.install.interpreter) == ("cuda", 0, sys.executable)
    assert local.is_local and local.bind_address == "127.0.0.1"
    assert b.bind_address == "10.0.0.2"


def test_power_commands_name_their_own_host(write: Write) -> None:
    hosts = '  - {name: hyper, address: 10.0.0.9}\n  - {name: "vm-[1:2]", address: "10.0.0.[1:2]"}\n'
    power = (
        'defaults:\n  power: {driver: command, on: [virsh, start, "{name}"], off: [off, "{address}", "{other}"], '
        "status: [st], via: hyper}\n"
    )
    spec = load(write(fleet(hosts, '["vm-*"]', power)))
    assert spec.host("vm-2").power.on == ("virsh", "start", "vm-2")
    assert spec.host("vm-1").power.off == ("off", "10.0.0.1", "{other}")
    assert spec.host("hyper").power.driver == "none"
    assert spec.pool_of("hyper") is None and spec.pool_of("vm-1") is spec.pool("default")


def test_paths_start_at_the_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(fleet("  - {name: a, address: h, ssh: {identity_file: keys/id, known_hosts: ~/kh}}\n"))
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/someone")
    spec = load(path)
    assert spec.model("tiny").source == tmp_path / "tiny"
    assert spec.host("a").ssh.identity_file == tmp_path / "keys" / "id"
    assert spec.host("a").ssh.known_hosts == Path("/home/someone/kh")
    assert spec.source == path


def test_what_yaml_may_do(write: Write) -> None:
    text = fleet(
        "  - &one {name: a, address: 10.0.0.1, labels: {slot: 4}}\n  - {<<: *one, name: b, address: 10.0.0.2}\n"
        "  - {name: c, address: 10.0.0.3, power: {driver: command, on: [x], off: [x], status: [x]}}\n",
        more="defaults:\n#  ssh:\ncontroller:\n  # interval: 5s\n",
    )
    spec = load(write("\ufeff" + text.replace("\n", "\r\n")))
    assert spec.host("b").labels == {"slot": "4"}
    assert spec.host("c").power.on == ("x",)  # `on` is a key, not a truth value
    assert spec.controller.interval == 5.0


def test_an_unknown_name_is_told_with_a_near_one(write: Write, good: str) -> None:
    spec = load(write(good))
    with pytest.raises(UnknownName, match=r'no pool "defualt" in fleet.yaml; did you mean "default"\?'):
        spec.pool("defualt")
    with pytest.raises(UnknownName, match=r'no pool "gold" in fleet.yaml; it has default$'):
        spec.pool("gold")
    with pytest.raises(KeyError):
        spec.host("zzz")


def test_a_changed_copy_finds_its_own_hosts(write: Write, good: str) -> None:
    spec = load(write(good))
    assert spec.host("b").address == "10.0.0.2"
    fewer = spec.model_copy(update={"hosts": spec.hosts[:1], "pools": ()})
    assert fewer.pool_of("a") is None
    with pytest.raises(UnknownName):
        fewer.host("b")


def test_passwords_are_never_shown(write: Write, good: str) -> None:
    bad = good + (
        'defaults: {install: {pip_args: ["--index-url", {u: "https://me:hunter2@x/"}]}}\n'
        'controller: {state: "mysql://me:hunter2@db/x", interval: "https://me:hunter2@x/"}\n'
    )
    with pytest.raises(SpecError) as caught:
        load(write(bad))
    assert len(caught.value.problems) == 3
    assert "hunter2" not in str(caught.value)
    assert "sqlite" not in repr(load(write(good)).controller)


@pytest.mark.parametrize("how", ["by ranges", "one by one"])
def test_three_thousand_hosts_load_soon(write: Write, how: str) -> None:
    if how == "by ranges":
        hosts = "".join(f'  - {{name: "r{r}-[1:250]", address: "10.0.{r}.[1:250]"}}\n' for r in range(12))
    else:
        hosts = "".join(f"  - {{name: h{n}, address: 10.0.{n // 250}.{n % 250 + 1}}}\n" for n in range(3000))
    path = write(fleet(hosts, scaling="{max_servers: 3000}"))
    started = time.process_time()
    spec = load(path)
    spent = time.process_time() - started
    assert len(spec.hosts) == len(spec.pool("default").hosts) == 3000
    assert spent < (1.0 if how == "by ranges" else 8.0)


def test_ten_thousand_hosts_that_are_all_wrong_are_refused_soon(write: Write) -> None:
    hosts = '  - {name: "h[1:40]-[1:250]", address: "10.0.[1:40].[1:250]", ssh: {jump: hh}}\n'
    pools = "[" + ", ".join(f"x{n}" for n in range(2000)) + "]"
    started = time.process_time()
    with pytest.raises(SpecError) as caught:
        load(write(fleet(hosts + '  - {name: more, address: "10.1.0.1"}\n', pools)))
    assert time.process_time() - started < 15
    assert len(str(caught.value).splitlines()) == 101
    assert "more problems" in str(caught.value)
