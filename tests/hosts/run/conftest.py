"""A host with systemd, booted once for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet_lab.host import free_port
from fleet_lab.lab import Lab
from fleet_lab.systemd import SystemdHost, missing


@pytest.fixture(scope="module")
def booted() -> Iterator[SystemdHost]:
    """Boots in two seconds; skipped where make test-systemd did not prepare it."""
    if why := missing():
        pytest.skip(why)
    lab = Lab("sshd")
    host = SystemdHost("h1", lab.folder / "h1", free_port("127.0.0.1"), lab.client_key, "systemd")
    lab.hosts.append(host)
    try:
        host.start()
        with lab.known_hosts.open("a") as file:
            file.write(f"{host.key_line()}\n")
        yield host
    finally:
        lab.close()
