"""What fleet.yaml says of the balancer's process reaches it as a file that only its owner can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_controller.door import config as doorconfig
from fleet_controller.door import daemons
from fleet_controller.spec import FleetSpec, load
from fleet_controller.statefolder import StateFolder
from fleet_wire.balancer import AccessLog, BalancerConfig, BalancerLimits, TlsFiles

TEXT = """\
fleet: demo
hosts:
  - {name: h1, address: local}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}
pools:
  - {name: one, hosts: [h1], models: [tiny]}
"""
ALL = """\
balancer:
  listen: 127.0.0.1:1
  admin: 127.0.0.1:2
  engine: haproxy
  workers: 3
  keys: required
  tls: {certificate: tls/cert.pem, key: tls/key.pem}
  access_log: {path: logs/access.log, sample: 0.5}
  limits: {head: 2KiB, target: 1KiB, fields: 50, body: 1MiB}
  timeouts: {header: 1s, body: 2s, idle: 3s, connect: 4s}
"""


@pytest.fixture
def spec(tmp_path: Path) -> FleetSpec:
    for folder in ("tiny", "tls", "logs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / "tls" / name).touch()
    (tmp_path / "fleet.yaml").write_text(TEXT)
    return load(tmp_path / "fleet.yaml")


def changed(spec: FleetSpec, more: str) -> FleetSpec:
    spec.source.write_text(TEXT + more)
    return load(spec.source)


def test_all_that_fleet_yaml_says_of_the_process_is_in_the_file(spec: FleetSpec) -> None:
    spec = changed(spec, ALL)
    folder, home = StateFolder.of(spec), spec.source.parent
    assert doorconfig.config(spec, folder) == BalancerConfig(
        listen="127.0.0.1:1",
        admin="127.0.0.1:2",
        engine="haproxy",
        workers=3,
        token_file=str(folder.path / "tokens" / "balancer"),
        state_file=str(folder.path / "balancer.state.json"),
        keys_required=True,
        tls=TlsFiles(certificate=str(home / "tls/cert.pem"), key=str(home / "tls/key.pem")),
        access_log=AccessLog(path=str(home / "logs/access.log"), sample=0.5),
        limits=BalancerLimits(
            head_bytes=2048,
            target_bytes=1024,
            fields=50,
            body_bytes=1024**2,
            header_timeout_s=1.0,
            body_timeout_s=2.0,
            idle_timeout_s=3.0,
            connect_timeout_s=4.0,
        ),
    )


def test_a_file_without_a_word_of_it_means_what_the_balancer_means(spec: FleetSpec) -> None:
    plain = doorconfig.config(spec, StateFolder.of(spec))
    assert plain.limits == BalancerLimits()
    assert (plain.tls, plain.access_log, plain.keys_required, plain.engine) == (None, None, False, "builtin")


def test_only_its_owner_can_read_it_and_only_what_differs_is_written(spec: FleetSpec) -> None:
    folder = StateFolder.of(spec)
    folder.ensure()
    path = doorconfig.config_file(folder)
    assert "listen" in doorconfig.write(doorconfig.config(spec, folder), folder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert doorconfig.read(folder) == doorconfig.config(spec, folder)
    before = path.stat().st_ino
    assert doorconfig.write(doorconfig.config(spec, folder), folder) == []
    assert path.stat().st_ino == before
    after = doorconfig.config(changed(spec, "balancer: {timeouts: {idle: 9s}}\n"), folder)
    assert doorconfig.write(after, folder) == ["limits"]
    assert [p.name for p in folder.path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("broken", ["", "{", '{"schema": "another/v1"}', "[]"])
def test_one_that_can_not_be_read_is_written_anew(spec: FleetSpec, broken: str) -> None:
    folder = StateFolder.of(spec)
    folder.ensure()
    doorconfig.config_file(folder).write_text(broken)
    assert doorconfig.read(folder) is None
    assert doorconfig.write(doorconfig.config(spec, folder), folder)
    assert doorconfig.read(folder) is not None


def test_the_list_of_processes_shows_nothing_of_it(spec: FleetSpec) -> None:
    spec = changed(spec, ALL)
    folder = StateFolder.of(spec)
    argv = daemons.balancer(spec, folder).argv
    assert argv[-2:] == ["--config", str(folder.path / "balancer.config.json")]
    assert not folder.path.exists()  # knowing how to start it changes nothing
