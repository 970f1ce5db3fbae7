"""Sixty strings that would run something if any shell on the way read them; over a real sshd."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_lab.host import Host
from fleet_lab.hostile import PAYLOADS, RUN

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.spec import FleetSpec, SpecError


def transport(spec: FleetSpec, name: str) -> tuple[SshTransport, Connections]:
    connections = Connections(spec)
    return SshTransport(connections.to_host(name), 20), connections


def test_as_arguments_environment_and_file_names(host: Host, fleet_of: Callable[..., FleetSpec]) -> None:
    way, connections = transport(fleet_of([host.entry()]), host.name)
    echo = "import os,sys; sys.stdout.write('\\0'.join([*sys.argv[1:], os.environ['PAYLOAD']]))"
    for number, payload in enumerate(PAYLOADS):
        command = Command(("python3", "-c", echo, payload, "x" + payload), env={"PAYLOAD": payload})
        said = way.run(command).stdout.decode().split("\0")
        assert said == [payload, "x" + payload, payload]
        if payload and "/" not in payload:
            name = f"{number:02}{payload}"
            way.put(payload.encode(), name, 0o600)
            assert (host.home / name).read_bytes() == payload.encode()
    assert not (host.home / "canary").exists()
    connections.close()


def test_as_what_stands_in_a_power_command(
    host: Host, fleet_of: Callable[..., FleetSpec], state: Path
) -> None:
    # fleet.yaml itself refuses control characters.
    allowed = [text for text in PAYLOADS if all(c.isprintable() or c in "\n " for c in text)]
    assert len(allowed) >= 55
    words = ["printf", "on %s", *allowed, "{name}", "{address}"]
    power = {"driver": "command", "on": words, "off": words, "status": words, "via": host.name}
    spec = fleet_of([host.entry(), {"name": "vm", "address": "192.0.2.7", "power": power}])
    with Machines(spec, state) as machines:
        assert machines.machine("vm").powered() is True
    assert not (host.home / "canary").exists()


def test_as_the_name_of_a_libvirt_domain(host: Host, fleet_of: Callable[..., FleetSpec], state: Path) -> None:
    if shutil.which("virsh") is None:
        pytest.skip("virsh is not installed: apt-get install libvirt-clients")
    allowed = [text for text in PAYLOADS if text and text.isprintable() and not text.startswith("-")]
    assert len(allowed) >= 45
    uris = [
        "test:///default",
        f"test:///$({RUN})".replace(" ", "${IFS}"),
        f"test:///`{RUN}`".replace(" ", "\t"),
    ]
    power = {"driver": "libvirt", "uri": uris[0], "via": host.name}
    vms = [
        {"name": f"vm{n}", "address": f"127.8.0.{n + 1}", "power": {**power, "domain": text}}
        for n, text in enumerate(allowed[::3])
    ]
    vms.append({"name": "odd", "address": "127.8.1.1", "power": {**power, "uri": uris[1]}})
    with Machines(fleet_of([host.entry(), *vms]), state) as machines:
        for vm in vms:
            assert machines.machine(str(vm["name"])).power_status().state == "unknown"
    assert not (host.home / "canary").exists()
    with pytest.raises(SpecError, match="is not a libvirt URI"):
        fleet_of([host.entry(), {"name": "odd", "address": "127.8.1.1", "power": {**power, "uri": uris[2]}}])
