"""Every way in which one host can be broken: a paragraph with host, cause and next step, and the others go on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet_lab.host import free_port, make_key

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(240)]


def test_up_names_each_broken_host_and_the_others_serve(fleet: Any, ssh_hosts: Any) -> None:
    hosts = ssh_hosts(7)
    _whole, noisy, rekeyed, wrong_key, wrong_port, full, no_python = hosts
    noisy.noisy()
    rekeyed.rekey()
    stranger = ssh_hosts.folder / "stranger"
    make_key(stranger)
    full.with_full_disk(200_000)
    no_python.without_python()
    entries = [h.entry() for h in hosts]
    entries[3]["ssh"]["identity_file"] = str(stranger)
    entries[4]["ssh"]["port"] = free_port("127.0.0.1")
    fleet.write("hosts: " + json.dumps(entries), {"min_servers": 7, "max_servers": 7})
    fleet.down_may_end_with = {0, 3}

    done = fleet.run("up")
    assert done.returncode == 3, f"{done.stdout}\n{done.stderr}\n{fleet.log()}"
    assert sorted(fleet.in_state("ready")) == ["h1", "h2"]
    assert fleet.predict([[1, 2, 3, 4]]).status_code == 200

    said = {h.name: paragraph(done.stderr, h.name) for h in hosts if h not in (_whole, noisy)}
    assert "host key" in said[rekeyed.name] and "ssh-keygen" in said[rekeyed.name]
    assert "key" in said[wrong_key.name] and str(stranger) in said[wrong_key.name]
    assert "refuses the connection" in said[wrong_port.name] and "ssh.port" in said[wrong_port.name]
    assert "disk" in said[full.name].lower() or "space" in said[full.name].lower()
    assert "python" in said[no_python.name] and "apt" in said[no_python.name]
    for name, text in said.items():
        assert text.startswith(f"{name}: "), text
        assert text.count(". ") >= 1, f"a cause and a next step are wanted: {text}"
        assert "Traceback" not in text


def paragraph(stderr: str, host: str) -> str:
    found = [line for line in stderr.splitlines() if line.startswith(f"{host}: ")]
    assert found, f"nothing is said about {host}:\n{stderr}"
    return found[-1]
