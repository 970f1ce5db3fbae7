"""A real cron daemon scales the fleet from a crontab."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def crontab(tmp_path: Path) -> Iterator[Any]:
    """Installs lines as this user's crontab and runs Debian's cron; the old crontab comes back afterwards."""
    for program in ("cron", "crontab"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            pytest.fail(f"{program} is missing: apt-get install -y cron")
    if os.getuid() != 0:
        pytest.skip("the cron daemon runs as root only")
    before = subprocess.run(["crontab", "-l"], capture_output=True)
    daemon = None

    def install(line: str) -> None:
        nonlocal daemon
        subprocess.run(["crontab", "-"], input=line.encode() + b"\n", check=True)
        daemon = subprocess.Popen(["/usr/sbin/cron", "-f", "-L", "15"], start_new_session=True)

    yield install
    if before.returncode == 0:
        subprocess.run(["crontab", "-"], input=before.stdout, check=True)
    else:
        subprocess.run(["crontab", "-r"], check=True)
    if daemon is not None:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(10)


def test_a_crontab_line_scales_the_fleet(fleet: Any, local_hosts: str, crontab: Any, tmp_path: Path) -> None:
    fleet.write(local_hosts, {"min_servers": 1, "max_servers": 3})
    fleet.cli("up")
    log = tmp_path / "cron.out"
    crontab(f"* * * * * {sys.executable} -m fleetctl -f {fleet.file} scale 2 --no-wait >>{log} 2>&1")
    deadline = time.monotonic() + 150
    while fleet.pool()["ready"] != 2:
        said = log.read_text() if log.exists() else "cron did not fire"
        assert time.monotonic() < deadline, f"{getpass.getuser()}: {said}\n{fleet.log()}"
        time.sleep(0.5)
    asked = [e for e in fleet.events() if e["kind"] == "scale" and e["to"] == 2]
    assert asked[0]["reason"] == "scaled to 2 by the operator"
