"""A host whose key nobody noted down: refused with the line that notes it, until the operator types the flag."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]


@pytest.mark.slow
def test_up_refuses_an_unknown_key_and_trusts_it_when_told(fleet: Any, ssh_hosts: Any) -> None:
    (host,) = ssh_hosts(1, known=False)
    fleet.write(ssh_hosts.yaml([host]), {"min_servers": 1, "max_servers": 1})

    refused = fleet.run("up")
    assert refused.returncode == 4, f"{refused.stdout}\n{refused.stderr}"
    assert f"ssh-keyscan -p {host.port}" in refused.stderr
    assert "--trust-on-first-use" in refused.stderr
    assert host.known_hosts.read_text() == ""

    trusted = fleet.run("up", "--trust-on-first-use", "--yes")
    assert trusted.returncode == 0, f"{trusted.stdout}\n{trusted.stderr}\n{fleet.log()}"
    assert "SHA256:" in trusted.stderr
    assert host.key_line() in host.known_hosts.read_text()
    assert fleet.predict([[1, 2, 3, 4]]).status_code == 200
