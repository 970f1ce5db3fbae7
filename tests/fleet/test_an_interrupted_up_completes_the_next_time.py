"""Ctrl-C, kill -9 of `fleetctl up` and of the controller while a host is sent its release: `up` again completes.

A real host behind a real sshd, and a rate limit, so that there is time to interrupt.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

if TYPE_CHECKING:
    from conftest import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(400)]

REPO = Path(__file__).resolve().parents[2]
PADDING = 1_500_000
# What has to be there before it is interrupted.
BEGUN = 300_000


@pytest.fixture
def host(fleet: Fleet, ssh_hosts: Lab) -> Host:
    """The one host of a fleet, which takes some five seconds to send the model to."""
    [made] = ssh_hosts(1)
    source = fleet.folder / "tiny"
    shutil.copytree(REPO / "examples" / "tiny", source)
    (source / "padding.bin").write_bytes(os.urandom(PADDING))
    install = {"interpreter": sys.executable, "rate_limit": "400KB"}
    fleet.write(
        ssh_hosts.yaml([made], install=install),
        {"min_servers": 1, "max_servers": 1},
        model={"source": str(source)},
    )
    return made


def arrived(host: Host) -> int:
    """Bytes of the release that are there and have no name yet."""
    sizes = [path.stat().st_size for path in (host.home / ".fleetctl").rglob(".*.part")]
    return max(sizes, default=0)


@pytest.mark.parametrize("what", ["Ctrl-C", "kill -9 of up", "kill -9 of the controller"])
def test_up_goes_on_where_it_was_interrupted(fleet: Fleet, host: Host, what: str) -> None:
    said = fleet.folder / "first-up.txt"
    with said.open("w") as out:
        first = subprocess.Popen(
            [sys.executable, "-m", "fleetctl", "-f", str(fleet.file), "up"],
            cwd=fleet.folder,
            env=fleet.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        fleet.wait("some of the release is there", lambda: arrived(host) > BEGUN, every_s=0.02)
        controller = controller_pid(fleet)
        if what == "Ctrl-C":
            os.killpg(first.pid, signal.SIGINT)  # as a terminal does: everything in the foreground hears it
        else:
            os.kill(first.pid if what == "kill -9 of up" else controller, signal.SIGKILL)
        code = first.wait(60)
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()
    there = arrived(host)
    assert host.agents() == [], "nothing half is started"
    if what == "Ctrl-C":
        assert code == 130, said.read_text()
        assert "interrupted; the controller goes on bringing the fleet up" in said.read_text()
    elif what == "kill -9 of the controller":
        assert code == 1, said.read_text()
        assert "the controller ended" in said.read_text()
        assert "run `fleetctl up` again" in said.read_text()
    fleet.cli("up")
    assert fleet.predict([[1, 2, 3, 4]]).status_code == 200
    assert len(host.agents()) == 1
    [padding] = (host.home / ".fleetctl").rglob("padding.bin")
    ours = hashlib.sha256((fleet.folder / "tiny" / "padding.bin").read_bytes()).hexdigest()
    assert hashlib.sha256(padding.read_bytes()).hexdigest() == ours
    assert [
        path for path in (host.home / ".fleetctl").rglob("*") if path.name.endswith((".part", ".tar"))
    ] == []
    [installed] = [event for event in fleet.events() if event["kind"] == "installed"]
    if what == "kill -9 of the controller":
        assert there > BEGUN
        assert controller_pid(fleet) != controller
        [packed] = (fleet.folder / ".fleetctl" / "test" / "releases").glob("*.tar")
        assert installed["sent_bytes"] <= packed.stat().st_size - BEGUN, "what was there was not sent again"
    else:
        assert controller_pid(fleet) == controller, "it went on by itself"


def controller_pid(fleet: Any) -> int:
    return int(json.loads((fleet.folder / ".fleetctl" / "test" / "controller.pid").read_text())["pid"])
